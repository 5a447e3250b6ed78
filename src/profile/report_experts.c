/* Rows by layer, expert and rank: how uneven the gate's choices were, and where their rows were
 * computed. */
#include "profile/report_internal.h"
#include "profile/report_json.h"

#include "base/memory.h"

#include <math.h>

/* A step's rows of one expert on one rank. */
static double rows_on(const struct mt_profile *profile, int rank, int layer, int expert)
{
    const double n_step = (double)profile->expert_steps[rank];
    return n_step > 0 ? (double)mt_profile_expert_rows(profile, rank, layer)[expert] / n_step : 0.0;
}

enum mt_status mt_report_sum_experts(struct mt_report *report)
{
    const struct mt_profile *profile = &report->profile;
    const int n_expert = profile->expert_rows != NULL ? profile->n_expert : 0;
    double all = 0;
    MT_TRY(MT_ALLOCATE(report->expert_count, (int64_t)report->n_row_layer * n_expert, "report"));
    for (int i = 0; i < report->n_row_layer; ++i) {
        for (int e = 0; e < n_expert; ++e) {
            double *count = &report->expert_count[(int64_t)i * n_expert + e];
            for (int r = 0; r < report->n_rank; ++r) {
                *count += rows_on(profile, r, report->row_layer[i], e);
            }
            all += *count;
        }
    }
    report->n_expert = all > 0 ? n_expert : 0; /* a run of before these lines has none */
    return MT_OK;
}

double mt_report_expert_mean(const struct mt_report *report, int row_layer)
{
    double sum = 0;
    for (int e = 0; e < report->n_expert; ++e) {
        sum += report->expert_count[(int64_t)row_layer * report->n_expert + e];
    }
    return sum / fmax(1, report->n_expert);
}

int mt_report_expert_homes(const struct mt_report *report, int row_layer, int expert,
                           struct mt_report_home *home)
{
    int n = 0;
    const double all = report->expert_count[(int64_t)row_layer * report->n_expert + expert];
    for (int r = 0; r < report->n_rank; ++r) {
        const double rows = rows_on(&report->profile, r, report->row_layer[row_layer], expert);
        int at = n;
        while (at > 0 && home[at - 1].share * all < rows) {
            --at;
        }
        if (rows <= 0 || at == MT_REPORT_HOMES) {
            continue;
        }
        n += n < MT_REPORT_HOMES ? 1 : 0;
        for (int i = n - 1; i > at; --i) {
            home[i] = home[i - 1];
        }
        home[at] = (struct mt_report_home){r, rows / all};
    }
    return n;
}

static json_t *homes_of(const struct mt_report *report, int row_layer, int expert)
{
    struct mt_report_home home[MT_REPORT_HOMES];
    const int n = mt_report_expert_homes(report, row_layer, expert, home);
    json_t *list = json_array();
    for (int i = 0; i < n; ++i) {
        (void)json_array_append_new(
            list, json_pack("[i,f]", home[i].rank, round(home[i].share * 1000) / 1000));
    }
    return list;
}

json_t *mt_json_experts(const struct mt_report *report)
{
    json_t *counts = json_array();
    json_t *values = json_array();
    json_t *homes = json_array();
    double span = 0;
    for (int i = 0; i < report->n_row_layer && report->n_expert > 0; ++i) {
        const double mean = mt_report_expert_mean(report, i);
        json_t *count = json_array();
        json_t *value = json_array();
        json_t *home = json_array();
        for (int e = 0; e < report->n_expert; ++e) {
            const double rows = report->expert_count[(int64_t)i * report->n_expert + e];
            const double ratio = mean > 0 ? rows / mean : 1.0;
            span = fmax(span, fabs(ratio - 1));
            (void)json_array_append_new(count, json_real(round(rows * 10) / 10));
            (void)json_array_append_new(value, json_real(round(ratio * 1000) / 1000));
            (void)json_array_append_new(home, homes_of(report, i, e));
        }
        (void)json_array_append_new(counts, count);
        (void)json_array_append_new(values, value);
        (void)json_array_append_new(homes, home);
    }
    return json_pack("{s:i,s:o,s:o,s:o,s:f}", "n", report->n_expert, "count", counts, "value",
                     values, "homes", homes, "span", mt_json_span(span));
}
