/* moetrain report RUN_DIR */
#include "cli/cli.h"

#include "profile/report.h"
#include "profile/trace_export.h"

#include <string.h>

static enum mt_status write_trace(const struct mt_report *report, const char *path)
{
    struct mt_trace_export written;
    MT_TRY(mt_trace_export(mt_report_profile(report), path, MT_TRACE_MAX_BYTES, &written));
    (void)printf("%s: %d steps from step %lld on, %lld events", path, written.n_step,
                 (long long)written.first_step, (long long)written.n_event);
    if (written.n_left_out > 0) {
        (void)printf("; %d earlier steps left out, for want of room", written.n_left_out);
    }
    (void)printf("; open it at ui.perfetto.dev or chrome://tracing\n");
    return MT_OK;
}

static enum mt_status write_page(const struct mt_report *report, const char *run_dir,
                                 const char *path)
{
    char own[4096 + 32];
    if (path == NULL) {
        (void)snprintf(own, sizeof(own), "%.4096s/report.html", run_dir);
        path = own;
    }
    MT_TRY(mt_report_write_html(report, path));
    (void)printf("%s\nthe report is in %s\n", mt_report_finding(report), path);
    return MT_OK;
}

enum mt_status mt_command_report(const struct mt_arguments *arguments)
{
    struct mt_report *report = NULL;
    const char *run_dir = arguments->positional[0];
    const char *page = mt_argument(arguments, "-o");
    const char *trace = mt_argument(arguments, "--trace");
    const bool as_text = mt_argument(arguments, "--text") != NULL;
    MT_TRY(mt_report_create(run_dir, &report));
    enum mt_status status = as_text ? mt_report_write_text(report, stdout) : MT_OK;
    if (status == MT_OK && (page != NULL || (!as_text && trace == NULL))) {
        status = write_page(report, run_dir, page);
    }
    if (status == MT_OK && trace != NULL) {
        status = write_trace(report, trace);
    }
    mt_report_destroy(report);
    return status;
}
