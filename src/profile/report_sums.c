/* The report's tables over steps, phases, rows and saves. */
#include "profile/report_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>
#include <stdlib.h>

/* A phase is worth a word when its slowest rank needs this much more than the mean, and that is
 * this share of a step. */
static const double uneven_ratio = 1.05, uneven_share = 0.005;

static double work_of(const struct mt_profile_step *step)
{
    int64_t ns = step->until_ns - step->begin_ns;
    for (int p = 0; p < MT_N_PHASE; ++p) {
        ns -= step->wait_ns[p];
    }
    return (double)mt_max_i64(0, ns);
}

/* ---- over steps ---- */

/* Time from the last rank's begin to the last rank's end, over ranks that recorded the step. */
static bool measure_step(const struct mt_profile *profile, int s, double *ns)
{
    int64_t begin_ns = INT64_MIN;
    int64_t until_ns = INT64_MIN;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, r);
        if (step->is_there) {
            begin_ns = mt_max_i64(begin_ns, step->begin_ns);
            until_ns = mt_max_i64(until_ns, step->until_ns);
        }
    }
    *ns = (double)(until_ns - begin_ns);
    return until_ns != INT64_MIN;
}

/* heat [R] of this column holds mean work in ns at first, then over the median. */
static void fill_column(struct mt_report *report, int c, int first, int end, double *scratch)
{
    const struct mt_profile *profile = &report->profile;
    struct mt_report_column *column = &report->column[c];
    double n_known = 0;
    int n_rank = 0;
    *column = (struct mt_report_column){.first = profile->step_number[first],
                                        .last = profile->step_number[end - 1]};
    for (int s = first; s < end; ++s) {
        double ns = 0;
        n_known += measure_step(profile, s, &ns) ? 1 : 0;
        column->step_ns += fmax(0, ns);
    }
    column->step_ns /= fmax(1, n_known);
    for (int r = 0; r < report->n_rank; ++r) {
        double sum_ns = 0;
        int n = 0;
        for (int s = first; s < end; ++s) {
            const struct mt_profile_step *step = mt_profile_step(profile, s, r);
            sum_ns += step->is_there ? work_of(step) : 0;
            n += step->is_there ? 1 : 0;
        }
        double *cell = &report->heat[(int64_t)r * report->n_column + c];
        *cell = n > 0 ? sum_ns / n : (double)NAN;
        if (n > 0) {
            scratch[n_rank++] = *cell;
            column->worst_rank = *cell > column->worst_ns ? r : column->worst_rank;
            column->worst_ns = fmax(column->worst_ns, *cell);
        }
    }
    column->median_ns = mt_quantile_f64(scratch, n_rank, 0.5);
    for (int r = 0; r < report->n_rank; ++r) {
        report->heat[(int64_t)r * report->n_column + c] /= fmax(1, column->median_ns);
    }
}

static enum mt_status sum_steps(struct mt_report *report)
{
    const int n_step = report->profile.n_step;
    double *scratch = NULL;
    report->n_column = (int)mt_min_i64(n_step, MT_REPORT_COLUMNS);
    MT_TRY(MT_ALLOCATE(report->heat, (int64_t)report->n_rank * report->n_column, "report"));
    MT_TRY(MT_ALLOCATE(scratch, report->n_rank, "report"));
    for (int c = 0; c < report->n_column; ++c) {
        fill_column(report, c, (int)mt_share_start(n_step, report->n_column, c),
                    (int)mt_share_start(n_step, report->n_column, c + 1), scratch);
    }
    mt_memory_free(scratch);
    return MT_OK;
}

/* ---- over ranks and phases ---- */

/* Sums over all recorded steps of a rank, then means. */
static void sum_rank(struct mt_report *report, int rank, double *busy_ns, double *wait_ns)
{
    const struct mt_profile *profile = &report->profile;
    double n = 0;
    for (int p = 0; p < MT_N_PHASE; ++p) {
        busy_ns[p] = 0;
        wait_ns[p] = 0;
    }
    for (int s = 0; s < profile->n_step; ++s) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
        if (!step->is_there) {
            continue;
        }
        n += 1;
        report->work_ns[rank] += work_of(step);
        report->memory_bytes[rank] = mt_max_i64(report->memory_bytes[rank], step->memory_bytes);
        for (int p = 0; p < MT_N_PHASE; ++p) {
            busy_ns[p] += (double)(step->phase_ns[p] - step->wait_ns[p]);
            wait_ns[p] += (double)step->wait_ns[p];
        }
    }
    report->work_ns[rank] /= fmax(1, n);
    for (int p = 0; p < MT_N_PHASE; ++p) {
        busy_ns[p] /= fmax(1, n);
        wait_ns[p] /= fmax(1, n);
    }
}

static enum mt_status sum_phases(struct mt_report *report)
{
    struct mt_report_phase all[MT_N_PHASE];
    double busy_ns[MT_N_PHASE];
    double wait_ns[MT_N_PHASE];
    MT_TRY(MT_ALLOCATE(report->work_ns, report->n_rank, "report"));
    MT_TRY(MT_ALLOCATE(report->memory_bytes, report->n_rank, "report"));
    for (int p = 0; p < MT_N_PHASE; ++p) {
        all[p] = (struct mt_report_phase){.phase = p};
    }
    for (int r = 0; r < report->n_rank; ++r) {
        sum_rank(report, r, busy_ns, wait_ns);
        for (int p = 0; p < MT_N_PHASE; ++p) {
            all[p].mean_ns += busy_ns[p] / report->n_rank;
            all[p].wait_ns += wait_ns[p] / report->n_rank;
            all[p].worst_rank = busy_ns[p] > all[p].max_ns ? r : all[p].worst_rank;
            all[p].max_ns = fmax(all[p].max_ns, busy_ns[p]);
        }
    }
    for (int p = 0; p < MT_N_PHASE; ++p) {
        all[p].is_uneven = all[p].max_ns > uneven_ratio * all[p].mean_ns &&
                           all[p].max_ns - all[p].mean_ns > uneven_share * report->step_ns;
        if (all[p].max_ns > 0 || all[p].wait_ns > 0) {
            report->phase[report->n_phase++] = all[p];
        }
    }
    return MT_OK;
}

static void sum_waits(struct mt_report *report)
{
    const struct mt_analysis *analysis = &report->analysis;
    double n_known = 0;
    for (int c = 0; c < report->n_column; ++c) {
        report->step_ns += report->column[c].step_ns;
        n_known += report->column[c].step_ns > 0 ? 1 : 0;
    }
    report->step_ns /= fmax(1, n_known);
    for (int r = 0; r < analysis->n_rank && analysis->n_detailed > 0; ++r) {
        report->lost_share += (double)analysis->wait_ns[r] / analysis->n_detailed /
                              analysis->n_rank / fmax(1, report->step_ns);
    }
}

/* ---- rows, saves ---- */

/* Mean rows of one layer a step. */
static double rows_of(const struct mt_profile *profile, int rank, int layer)
{
    double sum = 0;
    double n = 0;
    for (int s = 0; s < profile->n_step; ++s) {
        if (mt_profile_step(profile, s, rank)->is_there) {
            sum += (double)mt_profile_by_layer(profile, profile->rows, s, rank)[layer];
            n += 1;
        }
    }
    return sum / fmax(1, n);
}

/* Layers without rows, the dense ones, are left out: the next one takes their place. */
static enum mt_status sum_rows(struct mt_report *report)
{
    const struct mt_profile *profile = &report->profile;
    MT_TRY(MT_ALLOCATE(report->row_layer, profile->n_layer, "report"));
    MT_TRY(MT_ALLOCATE(report->row_count, (int64_t)profile->n_layer * report->n_rank, "report"));
    for (int l = 0; l < profile->n_layer; ++l) {
        double *of = &report->row_count[(int64_t)report->n_row_layer * report->n_rank];
        double all = 0;
        for (int r = 0; r < report->n_rank; ++r) {
            of[r] = rows_of(profile, r, l);
            all += of[r];
        }
        if (all > 0) {
            report->row_layer[report->n_row_layer++] = l;
        }
    }
    return MT_OK;
}

static void add_save(struct mt_report *report, const struct mt_report_save *save)
{
    if (report->n_save == MT_REPORT_SAVES) {
        for (int i = 1; i < report->n_save; ++i) {
            report->save[i - 1] = report->save[i];
        }
        --report->n_save;
    }
    report->save[report->n_save++] = *save;
}

static void list_saves(struct mt_report *report)
{
    const struct mt_profile *profile = &report->profile;
    for (int s = 0; s < profile->n_step; ++s) {
        struct mt_report_save save = {.step = profile->step_number[s]};
        for (int r = 0; r < report->n_rank; ++r) {
            const double ns = (double)mt_profile_step(profile, s, r)->phase_ns[MT_PHASE_CHECKPOINT];
            save.mean_ns += ns / report->n_rank;
            save.rank = ns > save.max_ns ? r : save.rank;
            save.max_ns = fmax(save.max_ns, ns);
        }
        if (save.max_ns > 0) {
            add_save(report, &save);
        }
    }
}

enum mt_status mt_report_sum_up(struct mt_report *report)
{
    MT_TRY(sum_steps(report));
    sum_waits(report);
    MT_TRY(sum_phases(report));
    MT_TRY(sum_rows(report));
    MT_TRY(mt_report_sum_experts(report));
    list_saves(report);
    return MT_OK;
}
