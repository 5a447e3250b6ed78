/* Pieces of the page's data that have files of their own. */
#ifndef MT_PROFILE_REPORT_JSON_H
#define MT_PROFILE_REPORT_JSON_H

#include "profile/report_internal.h"

#include <jansson.h>

/* Strings come from files that may be anybody's: bytes that are no UTF-8 become "?". */
json_t *mt_json_text(const char *text);

/* Null where it is no number. */
json_t *mt_json_real(double value);

/* Seconds with the digits that a picture needs. */
json_t *mt_json_seconds(double ns);

/* How far from 1 a map's colours are full, of what is farthest from it. */
double mt_json_span(double span);

/* Rows by layer and expert, and where they were computed. */
json_t *mt_json_experts(const struct mt_report *report);

/* Copies, moves, the log of decisions, what other policies would have cost; null: nothing is known.
 */
json_t *mt_json_placement(const struct mt_report *report);

/* Sets lanes, path, names, length: the last replayed step. */
enum mt_status mt_json_lanes(const struct mt_report *report, json_t *critical);

#endif
