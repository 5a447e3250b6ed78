/* The straggler report of a run: what its profile, its metrics, the analysis and the replay say,
 * for people. The same numbers as one HTML file that needs nothing else, and as plain text. */
#ifndef MT_PROFILE_REPORT_H
#define MT_PROFILE_REPORT_H

#include "base/status.h"
#include "profile/profile.h"

#include <stdio.h>

struct mt_report;

/* Reads run_dir; the run may be finished, going on or killed. MT_ERR_INPUT when there is no profile
 * in it. One process. */
enum mt_status mt_report_create(const char *run_dir, struct mt_report **out);
/* Of a profile in memory, which the report takes over also when it fails; run_dir may lack
 * metrics. */
enum mt_status mt_report_create_from(const char *run_dir, struct mt_profile *profile,
                                     struct mt_report **out);
void mt_report_destroy(struct mt_report *report); /* NULL allowed */

/* The first line is the finding: "finding: rank 5 slow-device 12.3%". */
enum mt_status mt_report_write_text(const struct mt_report *report, FILE *out);
/* MT_ERR_RESOURCE when the file cannot be written; what was there under its name stays then. */
enum mt_status mt_report_write_html(const struct mt_report *report, const char *path);

/* "finding: none", ... */
const char *mt_report_finding(const struct mt_report *report);
const struct mt_profile *mt_report_profile(const struct mt_report *report);

#endif
