/* What a healthy rank would have taken for the same work.
 *
 *   experts, a step's layer l:   time = layer_ns + row_ns * rows, times the rank's own factor
 *   attention, head and so on:   time per token of the median rank
 *
 * The line is fitted to all ranks, steps and layers at once, with one factor a rank, so that a rank
 * that is slow at few rows and one that is quick at many are told from a line that bends. Rows that
 * hardly vary leave the line open: then it goes through zero. */
#include "profile/analysis_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>
#include <stdlib.h>

static double median(double *value, int64_t n)
{
    return mt_quantile_f64(value, n, 0.5);
}

bool mt_phase_is_of_tokens(enum mt_phase phase)
{
    switch (phase) {
    case MT_PHASE_EMBED:
    case MT_PHASE_ATTENTION:
    case MT_PHASE_GATE:
    case MT_PHASE_DENSE_FFN:
    case MT_PHASE_HEAD:
    case MT_PHASE_EMBED_BACKWARD:
    case MT_PHASE_ATTENTION_BACKWARD:
    case MT_PHASE_GATE_BACKWARD:
    case MT_PHASE_DENSE_FFN_BACKWARD:
    case MT_PHASE_HEAD_BACKWARD:
        return true;
    default:
        return false;
    }
}

/* One rank's experts in one layer of one step. */
struct sample {
    double rows, ns;
    int rank;
};

static bool take_sample(const struct mt_study *study, int step, int rank, int layer,
                        struct sample *sample)
{
    const struct mt_profile *profile = study->profile;
    const int s = study->first + step;
    sample->rank = rank;
    sample->rows = (double)mt_profile_by_layer(profile, profile->rows, s, rank)[layer];
    sample->ns = (double)mt_profile_by_layer(profile, profile->expert_ns, s, rank)[layer];
    return mt_profile_step(profile, s, rank)->is_there && sample->ns > 0;
}

/* All samples in one row: of steps, in them of ranks, in them of layers. */
static int64_t n_sample(const struct mt_study *study)
{
    return (int64_t)study->n * study->profile->n_rank * study->profile->n_layer;
}

static bool take_nth(const struct mt_study *study, int64_t index, struct sample *sample)
{
    const int n_layer = study->profile->n_layer;
    const int64_t at = index / n_layer;
    return take_sample(study, (int)(at / study->profile->n_rank),
                       (int)(at % study->profile->n_rank), (int)(index % n_layer), sample);
}

struct line {
    double row_ns, layer_ns;
    double *factor; /* [R] */
};

static double at_rows(const struct line *line, double rows)
{
    return fmax(0.0, line->layer_ns + line->row_ns * rows);
}

/* Least squares over all samples, each divided by its rank's factor. The slope is drawn towards
 * `typical`, that of a line through zero, with the weight of rows that spread by 5 %. */
static void fit(const struct mt_study *study, struct line *line, double typical)
{
    static const double SPREAD = 0.05;
    double n = 0;
    double sum_rows = 0;
    double sum_ns = 0;
    double sum_rows2 = 0;
    double sum_both = 0;
    for (int64_t i = 0; i < n_sample(study); ++i) {
        struct sample sample;
        if (take_nth(study, i, &sample)) {
            const double ns = sample.ns / line->factor[sample.rank];
            n += 1;
            sum_rows += sample.rows;
            sum_ns += ns;
            sum_rows2 += sample.rows * sample.rows;
            sum_both += sample.rows * ns;
        }
    }
    if (n == 0) {
        return;
    }
    const double mean_rows = sum_rows / n;
    const double mean_ns = sum_ns / n;
    const double weight = SPREAD * SPREAD * mean_rows * mean_rows;
    const double variance = sum_rows2 / n - mean_rows * mean_rows;
    const double covariance = sum_both / n - mean_rows * mean_ns;
    const double slope = (covariance + weight * typical) / fmax(variance + weight, 1e-9);
    line->row_ns = fmax(0.0, slope);
    line->layer_ns = mean_ns - line->row_ns * mean_rows;
}

/* Time over what the line says, of all samples of a rank; 1 where there are none. */
static double factor_of(const struct mt_study *study, const struct line *line, int rank)
{
    double ns = 0;
    double expected_ns = 0;
    for (int s = 0; s < study->n; ++s) {
        for (int l = 0; l < study->profile->n_layer; ++l) {
            struct sample sample;
            if (take_sample(study, s, rank, l, &sample)) {
                ns += sample.ns;
                expected_ns += at_rows(line, sample.rows);
            }
        }
    }
    return expected_ns > 0 && ns > 0 ? ns / expected_ns : 1.0;
}

/* All time over all rows; 0: there are none. */
static double row_ns_of(const struct mt_study *study, int rank)
{
    double rows = 0;
    double ns = 0;
    for (int s = 0; s < study->n; ++s) {
        for (int l = 0; l < study->profile->n_layer; ++l) {
            struct sample sample;
            if (take_sample(study, s, rank, l, &sample)) {
                rows += sample.rows;
                ns += sample.ns;
            }
        }
    }
    return rows > 0 ? ns / rows : 0.0;
}

/* Of the median rank. */
static double typical_row_ns(const struct mt_study *study)
{
    int64_t n = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        const double ns = row_ns_of(study, r);
        if (ns > 0) {
            study->scratch[n++] = ns;
        }
    }
    return median(study->scratch, n);
}

static void fit_line(const struct mt_study *study, struct line *line)
{
    enum { ROUNDS = 6 };
    const int n_rank = study->profile->n_rank;
    const double typical = typical_row_ns(study);
    *line = (struct line){.row_ns = typical, .factor = line->factor};
    for (int round = 0; round <= ROUNDS; ++round) {
        for (int r = 0; r < n_rank; ++r) {
            line->factor[r] = study->scratch[r] = factor_of(study, line, r);
        }
        const double middle = median(study->scratch, n_rank);
        for (int r = 0; r < n_rank; ++r) {
            line->factor[r] /= middle;
        }
        if (round < ROUNDS) {
            fit(study, line, typical);
        }
    }
}

static double busy_ns(const struct mt_profile_step *step, int phase)
{
    return (double)mt_max_i64(0, step->phase_ns[phase] - step->wait_ns[phase]);
}

static double token_phases_ns(const struct mt_profile_step *step)
{
    double ns = 0;
    for (int p = 0; p < MT_N_PHASE; ++p) {
        ns += mt_phase_is_of_tokens((enum mt_phase)p) ? busy_ns(step, p) : 0.0;
    }
    return ns;
}

/* A token's time, of the median rank in one step. */
static double token_ns(const struct mt_study *study, int step)
{
    int64_t n = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        const struct mt_profile_step *its = mt_study_step(study, step, r);
        if (its->is_there && its->n_token > 0) {
            study->scratch[n++] = token_phases_ns(its) / (double)its->n_token;
        }
    }
    return median(study->scratch, n);
}

static double median_data_ns(const struct mt_study *study, int step)
{
    for (int r = 0; r < study->profile->n_rank; ++r) {
        study->scratch[r] = busy_ns(mt_study_step(study, step, r), MT_PHASE_DATA);
    }
    return median(study->scratch, study->profile->n_rank);
}

static double mean_rows(const struct mt_study *study, int step, int layer)
{
    const struct mt_profile *profile = study->profile;
    double sum = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        sum += (double)mt_profile_by_layer(profile, profile->rows, study->first + step, r)[layer];
    }
    return sum / profile->n_rank;
}

/* One rank in one step; expected_ns: of a healthy rank for the same tokens and rows. */
struct account {
    double ns, expected_ns, rows_ns;
};

static struct account account_of(const struct mt_study *study, const struct line *line, int step,
                                 int rank, double per_token_ns)
{
    const struct mt_profile_step *its = mt_study_step(study, step, rank);
    struct account account = {.ns = token_phases_ns(its),
                              .expected_ns = per_token_ns * (double)its->n_token};
    for (int l = 0; l < study->profile->n_layer; ++l) {
        struct sample sample;
        if (take_sample(study, step, rank, l, &sample)) {
            const double expected = at_rows(line, sample.rows);
            account.ns += sample.ns;
            account.expected_ns += expected;
            account.rows_ns += fmax(0.0, expected - at_rows(line, mean_rows(study, step, l)));
        }
    }
    return account;
}

static double usual_token_ns(const struct mt_study *study)
{
    double *by_step = study->scratch + 2 * (int64_t)study->profile->n_rank;
    for (int s = 0; s < study->n; ++s) {
        by_step[s] = token_ns(study, s);
    }
    return median(by_step, study->n);
}

/* What all ranks have in common in a step, a busy machine say, is nobody's excess. */
static void fill_step(struct mt_study *study, const struct line *line, int step,
                      double per_token_ns)
{
    const int n_rank = study->profile->n_rank;
    const double data_ns = median_data_ns(study, step);
    int64_t n = 0;
    for (int r = 0; r < n_rank; ++r) {
        const struct account account = account_of(study, line, step, r, per_token_ns);
        struct mt_excess *excess = &study->excess[mt_study_at(study, step, r)];
        if (!mt_study_step(study, step, r)->is_there || account.expected_ns <= 0) {
            continue;
        }
        excess->raw = excess->ratio = account.ns / account.expected_ns;
        excess->rows = account.rows_ns;
        excess->device = account.expected_ns; /* times what the ratio is above the median: below */
        excess->data = fmax(0.0, busy_ns(mt_study_step(study, step, r), MT_PHASE_DATA) - data_ns);
        study->scratch[n++] = excess->ratio;
    }
    const double middle = median(study->scratch, n);
    for (int r = 0; r < n_rank; ++r) {
        struct mt_excess *excess = &study->excess[mt_study_at(study, step, r)];
        excess->ratio = middle > 0 ? excess->ratio / middle : 0.0;
        excess->device *= fmax(0.0, excess->ratio - 1) * middle;
    }
}

static void fill_rows_ratio(const struct mt_study *study, double *ratio)
{
    const struct mt_profile *profile = study->profile;
    double total = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        double rows = 0;
        for (int s = 0; s < study->n; ++s) {
            for (int l = 0; l < profile->n_layer; ++l) {
                rows += (double)mt_profile_by_layer(profile, profile->rows, study->first + s, r)[l];
            }
        }
        ratio[r] = rows;
        total += rows / profile->n_rank;
    }
    for (int r = 0; r < profile->n_rank; ++r) {
        ratio[r] = total > 0 ? ratio[r] / total : 1.0;
    }
}

enum mt_status mt_study_work(struct mt_study *study, struct mt_analysis *analysis)
{
    struct line line = {0};
    MT_TRY(MT_ALLOCATE(line.factor, study->profile->n_rank, "analysis"));
    fit_line(study, &line);
    const double per_token_ns = usual_token_ns(study);
    for (int s = 0; s < study->n; ++s) {
        fill_step(study, &line, s, per_token_ns);
    }
    fill_rows_ratio(study, analysis->rows_ratio);
    analysis->row_ns = line.row_ns;
    analysis->layer_ns = line.layer_ns;
    mt_memory_free(line.factor);
    return MT_OK;
}
