/* Which ranks are slower than the others at equal work, beyond what chance and the machine do.
 *
 * In each step a rank's time is divided by that of the median rank at the same work. A slow device
 * shows in the median of these ratios over the steps; one that is slow now and then shows in many
 * outliers that other ranks do not have. */
#include "profile/analysis_internal.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* Slower than this and by more than 4 standard errors of the median, and than 3 times what half of
 * the other ranks differ: on 8 paced ranks of 2 loaded cores clean windows stay below 1 %, a
 * device slowed by 5 % shows 4 to 5 (docs/profiling-results). */
static const double LEAST_SLOWDOWN = 0.025;
static const double STANDARD_ERRORS = 4;
static const double SPREADS = 3;
/* A rank is far when waiting for its messages costs this in most steps, and 3 times the others. */
static const double LEAST_NETWORK = 0.005;
/* Of a normal distribution: standard deviation over the median deviation; error of a median. */
static const double DEVIATION = 1.4826;
static const double MEDIAN_ERROR = 1.2533;
/* Steps that are slow now and then: so much slower, so many, so many times those of the others. */
static const double OUTLIER = 1.08;
enum { LEAST_OUTLIERS = 8, TIMES_OTHERS = 4 };

struct pace {
    double median, deviation; /* of the ratios over the steps; median 1: no steps */
    int n, n_outlier;
};

static struct pace pace_of(const struct mt_study *study, int rank)
{
    struct pace pace = {.median = 1};
    for (int s = 0; s < study->n; ++s) {
        const double ratio = study->excess[mt_study_at(study, s, rank)].ratio;
        if (ratio > 0) {
            study->scratch[pace.n++] = ratio;
            pace.n_outlier += ratio > OUTLIER ? 1 : 0;
        }
    }
    if (pace.n == 0) {
        return pace;
    }
    pace.median = mt_median(study->scratch, pace.n);
    for (int i = 0; i < pace.n; ++i) {
        study->scratch[i] = fabs(study->scratch[i] - pace.median);
    }
    pace.deviation = mt_median(study->scratch, pace.n);
    return pace;
}

/* How much the other ranks differ from the median rank: half of them less. */
static double spread_of_others(const struct mt_study *study, const struct pace *pace, int rank)
{
    int64_t n = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        if (r != rank && pace[r].n > 0) {
            study->scratch[n++] = fabs(pace[r].median - 1);
        }
    }
    return mt_median(study->scratch, n);
}

static bool is_slow_throughout(const struct mt_study *study, const struct pace *pace, int rank)
{
    const double above = pace[rank].median - 1;
    const double error =
        MEDIAN_ERROR * DEVIATION * pace[rank].deviation / sqrt(fmax(1.0, (double)pace[rank].n));
    return pace[rank].n > 0 && above > LEAST_SLOWDOWN && above > STANDARD_ERRORS * error &&
           above > SPREADS * spread_of_others(study, pace, rank);
}

static bool is_slow_at_times(const struct mt_study *study, const struct pace *pace, int rank)
{
    int64_t n_others = 0;
    for (int r = 0; r < study->profile->n_rank; ++r) {
        n_others += r != rank ? pace[r].n_outlier : 0;
    }
    const double mean = (double)n_others / fmax(1.0, study->profile->n_rank - 1);
    return pace[rank].n_outlier >= LEAST_OUTLIERS &&
           pace[rank].n_outlier > TIMES_OTHERS * fmax(1.0, mean);
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
    return mt_median(study->scratch, n) / fmax(1.0, study->profile->n_rank - 1);
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
        study->is_far[r] =
            share[r] > LEAST_NETWORK && share[r] > SPREADS * mt_median(study->scratch, n);
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
        const double middle = mt_median(sorted, n);
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
    for (int r = 0; r < n_rank; ++r) {
        analysis->slowdown[r] = pace[r].median;
        study->is_slow[r] = is_slow_throughout(study, pace, r) || is_slow_at_times(study, pace, r);
    }
    for (int p = 0; p < MT_N_PHASE; ++p) {
        fill_excess(study, analysis, p);
    }
cleanup:
    mt_memory_free(share);
    mt_memory_free(pace);
    return status;
}
