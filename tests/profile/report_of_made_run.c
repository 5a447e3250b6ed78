/* Writes the report of a made run: report_of_made_run KIND FILE.html [TRACE.json.gz], where KIND is
 * slow, skewed, clean, many (64 ranks), killed, one (rank), bare (no step). For the browser's test
 * and for looking at. */
#include "made_run.h"
#include "profile/report.h"
#include "profile/trace_export.h"

#include <stdio.h>
#include <string.h>

static struct made_run choose(const char *kind)
{
    struct made_run run = made_run_plain();
    run.n_step = 60;
    run.jitter = 0.03;
    run.has_copies = true;
    run.checkpoint_every = 20;
    run.detailed_from = 44;
    run.traced_from = 52;
    if (strcmp(kind, "slow") == 0) {
        run.slow_rank = 2;
        run.slowdown = 1.3;
    } else if (strcmp(kind, "skewed") == 0) {
        run.hot_rank = 1;
        run.hot = 1.8;
    } else if (strcmp(kind, "many") == 0) {
        run.n_rank = 64;
        run.n_node = 8;
        run.n_layer = 4;
        run.slow_rank = 37;
        run.slowdown = 1.2;
        run.slow_from = 25;
    } else if (strcmp(kind, "killed") == 0) {
        run.killed_rank = 3;
        run.killed_step = 50;
    } else if (strcmp(kind, "one") == 0) {
        run.n_rank = 1;
    } else if (strcmp(kind, "bare") == 0) {
        run.n_step = 0;
    }
    return run;
}

int main(int argc, char **argv)
{
    struct mt_profile profile;
    struct mt_report *report = NULL;
    if (argc < 3 || argc > 4) {
        return MT_ERR_CONFIG;
    }
    const struct made_run run = choose(argv[1]);
    enum mt_status status = made_run_profile(&run, &profile);
    if (status == MT_OK) {
        status = mt_report_create_from(".", &profile, &report);
    }
    if (status == MT_OK) {
        status = mt_report_write_html(report, argv[2]);
    }
    if (status == MT_OK) {
        status = mt_report_write_text(report, stdout);
    }
    if (status == MT_OK && argc == 4) {
        struct mt_trace_export written;
        status = mt_trace_export(mt_report_profile(report), argv[3], MT_TRACE_MAX_BYTES, &written);
    }
    mt_report_destroy(report);
    if (status != MT_OK) {
        (void)fprintf(stderr, "%s\n", mt_error_last()->text);
    }
    return (int)status;
}
