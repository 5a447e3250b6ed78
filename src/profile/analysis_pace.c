/* Which ranks are slower than the others at equal work, beyond what chance and the machine do.
 *
 * What a machine does to a rank now and then only ever takes time, for a while. So a slow device
 * shows in its better steps, and in every part of the window: the lower quartile of its time over
 * what is usual for the work, against that of the median rank. One that is slow now and then shows
 * in many outliers that other ranks do not have. */
#include "profile/analysis_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

#include <math.h>

/* Slower than this, by more than 4 standard errors of the quartile, and by more than 3 times what
 * half of the other ranks differ (docs/profiling-results). */
static const double LEAST_SLOWDOWN = 0.025;
static const double STANDARD_ERRORS = 4;
const double MT_STUDY_SPREADS = 3;
const double MT_STUDY_LEAST_NETWORK = 0.005;
/* Error of the quartile of n values: sqrt(1/4 * 3/4 / n) over the density there, which is that of
 * the values from the 10 % to the 40 % quantile. What holds a rank up now and then lies above. */
static const double QUARTILE_ERROR = 0.4330;
static const double AROUND = 0.15;
/* Steps that are slow now and then: so much slower, so many, a fifth of all, so many times those of
 * any other rank. */
static const double OUTLIER = 1.15;
enum { LEAST_OUTLIERS = 8, OUTLIER_PART = 5, TIMES_OTHERS = 8 };

struct pace {
    double quartile, error; /* over the steps; 0: no steps */
    int n, n_outlier;
    double at_times; /* in the outliers: mean of the ratio */
};

static struct pace pace_of(const struct mt_study *study, int rank)
{
    struct pace pace = {0};
    for (int s = 0; s < study->n; ++s) {
        const struct mt_excess *excess = &study->excess[mt_study_at(study, s, rank)];
        if (excess->ratio > 0) {
            study->scratch[pace.n++] = excess->raw;
            pace.n_outlier += excess->ratio > OUTLIER ? 1 : 0;
            pace.at_times += excess->ratio > OUTLIER ? excess->ratio : 0;
        }
    }
    pace.at_times /= fmax(1, pace.n_outlier);
    pace.quartile = mt_quantile_f64(study->scratch, pace.n, 0.25);
    const double around = mt_quantile_f64(study->scratch, pace.n, 0.25 + AROUND) -
                          mt_quantile_f64(study->scratch, pace.n, 0.25 - AROUND);
    pace.error = QUARTILE_ERROR * around / (2 * AROUND) / sqrt(fmax(1.0, (double)pace.n));
    return pace;
}

/* By the median rank's; 1 where a rank has no steps. */
static void normalise(const struct mt_study *study, struct pace *pace)
{
    const int n_rank = study->profile->n_rank;
    int64_t n = 0;
    for (int r = 0; r < n_rank; ++r) {
        if (pace[r].n > 0) {
            study->scratch[n++] = pace[r].quartile;
        }
    }
    const double middle = mt_quantile_f64(study->scratch, n, 0.5);
    for (int r = 0; r < n_rank; ++r) {
        const bool has_steps = pace[r].n > 0 && middle > 0;
        pace[r].quartile = has_steps ? pace[r].quartile / middle : 1.0;
        pace[r].error = has_steps ? pace[r].error / middle : 0.0;
    }
}

/* How much the other ranks differ from the median rank: half of them less. */
static double spread_of_others(const struct mt_study *study, const struct pace *pace, int rank)
{
    int64_t n = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        if (r != rank && pace[r].n > 0) {
            study->scratch[n++] = fabs(pace[r].quartile - 1);
        }
    }
    return mt_quantile_f64(study->scratch, n, 0.5);
}

/* The lower quartile of a rank's steps [first, end); 0: it has none. */
static double quartile_of(const struct mt_study *study, int rank, int first, int end)
{
    double *value = study->scratch + 2 * (int64_t)study->profile->n_rank;
    int64_t n = 0;
    for (int s = first; s < end; ++s) {
        const struct mt_excess *excess = &study->excess[mt_study_at(study, s, rank)];
        if (excess->ratio > 0) {
            value[n++] = excess->raw;
        }
    }
    return mt_quantile_f64(value, n, 0.25);
}

/* In each part of the window a rank is at least a third as much above the median rank as in all. */
static bool is_slow_in_every_part(const struct mt_study *study, int rank, double above)
{
    enum { MAX_PARTS = 4, LEAST_STEPS = 5 };
    const int n_part = (int)mt_max_i64(1, mt_min_i64(MAX_PARTS, study->n / LEAST_STEPS));
    for (int part = 0; part < n_part; ++part) {
        const int first = (int)mt_share_start(study->n, n_part, part);
        const int end = (int)mt_share_start(study->n, n_part, part + 1);
        int64_t n = 0;
        for (int r = 0; r < study->profile->n_rank; ++r) {
            const double quartile = quartile_of(study, r, first, end);
            if (quartile > 0) {
                study->scratch[n++] = quartile;
            }
        }
        const double middle = mt_quantile_f64(study->scratch, n, 0.5);
        if (quartile_of(study, rank, first, end) <= (1 + above / 3) * middle) {
            return false;
        }
    }
    return true;
}

static bool is_slow_throughout(const struct mt_study *study, const struct pace *pace, int rank)
{
    const double above = pace[rank].quartile - 1;
    return above > LEAST_SLOWDOWN && above > STANDARD_ERRORS * pace[rank].error &&
           above > MT_STUDY_SPREADS * spread_of_others(study, pace, rank) &&
           is_slow_in_every_part(study, rank, above);
}

static bool is_slow_at_times(const struct mt_study *study, const struct pace *pace, int rank)
{
    int64_t most = 1;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        most = r != rank ? mt_max_i64(most, pace[r].n_outlier) : most;
    }
    return pace[rank].n_outlier >= LEAST_OUTLIERS &&
           pace[rank].n_outlier * OUTLIER_PART >= pace[rank].n &&
           pace[rank].n_outlier > TIMES_OTHERS * most;
}

/* Outliers that return at every so-manieth step, eight times at least: chance keeps no time, so
 * other ranks may have some as well. */
static bool is_slow_in_time(const struct mt_study *study, const struct pace *pace, int rank)
{
    enum { LEAST_TIMES = 8 };
    double *when = study->scratch;
    int period = 0;
    for (int s = 0; s < study->n; ++s) {
        when[s] = fmax(0.0, study->excess[mt_study_at(study, s, rank)].ratio - 1);
    }
    return mt_analysis_persistence(when, study->n, &period) == MT_PERIODIC &&
           study->n >= LEAST_TIMES * period && pace[rank].n_outlier >= LEAST_TIMES;
}

/* The median over the steps: a rank that the machine held up in one step is not far. */
static double network_share(const struct mt_study *study, int rank)
{
    int64_t n = 0;
    for (int s = 0; s < study->n; ++s) {
        if (study->is_detailed[s]) {
            study->scratch[n++] = study->caused[mt_study_at(study, s, rank)].network /
                                  fmax(1.0, (double)mt_study_step_ns(study, s));
        }
    }
    return mt_quantile_f64(study->scratch, n, 0.5) / fmax(1.0, study->profile->n_rank - 1);
}

static void find_far(const struct mt_study *study, double *share)
{
    const int n_rank = study->profile->n_rank;
    for (int r = 0; r < n_rank; ++r) {
        share[r] = network_share(study, r);
    }
    for (int r = 0; r < n_rank; ++r) {
        int64_t n = 0;
        for (int q = 0; q < n_rank; ++q) {
            if (q != r) {
                study->scratch[n++] = share[q];
            }
        }
        study->is_far[r] = share[r] > MT_STUDY_LEAST_NETWORK &&
                           share[r] > MT_STUDY_SPREADS * mt_quantile_f64(study->scratch, n, 0.5);
    }
}

/* At equal work: tokens by the median rank's time for one, experts by the rank's slowdown. Phases
 * whose work depends on who owns what have no excess. */
static void fill_excess(const struct mt_study *study, struct mt_analysis *analysis, int phase)
{
    const int n_rank = study->profile->n_rank;
    const bool is_expert = phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD;
    if (!is_expert && !mt_phase_is_of_tokens((enum mt_phase)phase)) {
        return;
    }
    for (int s = 0; s < study->n; ++s) {
        double *share = study->scratch;
        double *sorted = study->scratch + n_rank;
        int64_t n = 0;
        for (int r = 0; r < n_rank; ++r) {
            const struct mt_profile_step *its = mt_study_step(study, s, r);
            const double busy = (double)(its->phase_ns[phase] - its->wait_ns[phase]);
            share[r] = its->is_there && its->n_token > 0 ? busy / (double)its->n_token : 0.0;
            if (share[r] > 0) {
                sorted[n++] = share[r];
            }
        }
        const double middle = mt_quantile_f64(sorted, n, 0.5);
        for (int r = 0; r < n_rank; ++r) {
            const struct mt_profile_step *its = mt_study_step(study, s, r);
            const double busy = (double)(its->phase_ns[phase] - its->wait_ns[phase]);
            const double slower = fmax(1.0, analysis->slowdown[r]);
            const double above =
                is_expert ? busy * (1 - 1 / slower) : (share[r] - middle) * (double)its->n_token;
            analysis->excess_ns[(int64_t)r * MT_N_PHASE + phase] +=
                (int64_t)(fmax(0.0, above) / study->n);
        }
    }
}

enum mt_status mt_study_pace(struct mt_study *study, struct mt_analysis *analysis)
{
    const int n_rank = study->profile->n_rank;
    struct pace *pace = NULL;
    double *share = NULL;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(pace, n_rank, "analysis"));
    MT_TRY_GOTO(MT_ALLOCATE(share, n_rank, "analysis"));
    find_far(study, share);
    for (int r = 0; r < n_rank; ++r) {
        pace[r] = pace_of(study, r);
    }
    normalise(study, pace);
    for (int r = 0; r < n_rank; ++r) {
        const bool is_slow_now_and_then =
            is_slow_at_times(study, pace, r) || is_slow_in_time(study, pace, r);
        study->is_slow_throughout[r] = is_slow_throughout(study, pace, r);
        study->is_slow[r] = study->is_slow_throughout[r];
        analysis->slowdown[r] = pace[r].quartile;
        if (is_slow_now_and_then && !study->is_slow[r]) {
            study->is_slow[r] = true;
            analysis->slowdown[r] = pace[r].at_times;
        }
    }
    for (int p = 0; p < MT_N_PHASE; ++p) {
        fill_excess(study, analysis, p);
    }
cleanup:
    mt_memory_free(share);
    mt_memory_free(pace);
    return status;
}
