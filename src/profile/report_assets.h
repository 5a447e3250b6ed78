/* The files of report/, in the program: cmake/MtEmbed.cmake makes this header's source from them at
 * build time. Strings end with a zero. */
#ifndef MT_PROFILE_REPORT_ASSETS_H
#define MT_PROFILE_REPORT_ASSETS_H

extern const char mt_asset_page_html[];
extern const char mt_asset_style_css[];
extern const char mt_asset_script_js[]; /* base.js, charts.js, sections.js, one after another */

#endif
