/* How fast ranks are at equal work, phase by phase. */
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "profile/replay_internal.h"

#include <math.h>
#include <stdlib.h>

/* What a phase's time is set against before ranks are compared. */
enum work_kind {
    WORK_EQUAL,  /* every rank has the same to do */
    WORK_TOKENS, /* goes with the rank's own tokens */
    WORK_ROWS,   /* goes with the rows of its experts */
    WORK_BOTH,   /* packing and unpacking: both */
    WORK_OWNED   /* goes with what the rank owns, which may differ: as the rank's other phases */
};

static enum work_kind work_of(int phase)
{
    switch (phase) {
    case MT_PHASE_EXPERT:
    case MT_PHASE_EXPERT_BACKWARD:
        return WORK_ROWS;
    case MT_PHASE_DISPATCH:
    case MT_PHASE_COMBINE:
    case MT_PHASE_DISPATCH_BACKWARD:
    case MT_PHASE_COMBINE_BACKWARD:
        return WORK_BOTH;
    case MT_PHASE_MATERIALIZE:
    case MT_PHASE_REDUCE:
    case MT_PHASE_CLIP:
    case MT_PHASE_UPDATE:
    case MT_PHASE_CHECKPOINT:
    case MT_N_PHASE:
        return WORK_OWNED;
    case MT_PHASE_PLAN:
    case MT_PHASE_METRICS:
        return WORK_EQUAL;
    default:
        return WORK_TOKENS;
    }
}

/* A phase that takes less than this share of a rank's busy time tells nothing about its speed. */
static const double least_share = 0.002;

/* Sums over the replayed steps of one rank. */
struct effort {
    double busy_ns[MT_N_PHASE]; /* not waiting */
    double all_ns, tokens, rows;
    double n_point, expert_ns, rows_squared, product; /* over (step, layer) that have rows */
};

static void add_step(const struct mt_profile *profile, int s, int rank, struct effort *effort)
{
    const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
    const int64_t *rows = mt_profile_by_layer(profile, profile->rows, s, rank);
    const int64_t *expert_ns = mt_profile_by_layer(profile, profile->expert_ns, s, rank);
    for (int p = 0; p < MT_N_PHASE; ++p) {
        const double busy_ns = (double)(step->phase_ns[p] - step->wait_ns[p]);
        effort->busy_ns[p] += busy_ns;
        effort->all_ns += busy_ns;
    }
    effort->tokens += (double)step->n_token;
    for (int l = 0; l < profile->n_layer; ++l) {
        if (rows[l] > 0) {
            effort->n_point += 1;
            effort->rows += (double)rows[l];
            effort->expert_ns += (double)expert_ns[l];
            effort->rows_squared += (double)rows[l] * (double)rows[l];
            effort->product += (double)rows[l] * (double)expert_ns[l];
        }
    }
}

/* Time of one more row: the slope over the (step, layer) points; 0 where rows scatter by less than
 * 2 %, for it would be noise. At most the mean time of a row. */
static double slope_ns(const struct effort *e)
{
    const double variance = e->n_point * e->rows_squared - e->rows * e->rows;
    if (e->rows == 0 || variance <= 0.02 * 0.02 * e->rows * e->rows) {
        return 0;
    }
    const double slope = (e->n_point * e->product - e->rows * e->expert_ns) / variance;
    return fmin(fmax(slope, 0), e->expert_ns / e->rows);
}

/* Of the values above 0, the lower of two middle ones; 0: there are none. scratch [n] */
static double median(const double *value, int n, double *scratch)
{
    int n_known = 0;
    for (int i = 0; i < n; ++i) {
        if (value[i] > 0) {
            scratch[n_known++] = value[i];
        }
    }
    return mt_quantile_f64(scratch, n_known, 0.5);
}

/* row_ns [R]: a rank's own slope; where its rows hardly vary, that of all ranks' points together;
 * where none do, its mean. scratch [R] */
static void find_row_times(struct mt_replay *replay, const struct effort *effort, double *scratch)
{
    struct effort pool = {.all_ns = 0};
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct effort *e = &effort[r];
        replay->row_ns[r] = slope_ns(e);
        pool.n_point += e->n_point;
        pool.rows += e->rows;
        pool.expert_ns += e->expert_ns;
        pool.rows_squared += e->rows_squared;
        pool.product += e->product;
    }
    const double typical_ns = median(replay->row_ns, replay->n_rank, scratch);
    const double shared_ns = typical_ns > 0 ? typical_ns : slope_ns(&pool);
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct effort *e = &effort[r];
        const double mean_ns = e->rows > 0 ? e->expert_ns / e->rows : 0;
        if (replay->row_ns[r] == 0) {
            replay->row_ns[r] = shared_ns > 0 ? fmin(shared_ns, mean_ns) : mean_ns;
        }
    }
}

/* What the rank had to do in this phase, in units that ranks share; 0: nothing is known. */
static double work_of_rank(const struct effort *e, const struct effort *all, int phase,
                           double typical_row_ns, double typical_layer_ns)
{
    switch (work_of(phase)) {
    case WORK_EQUAL:
        return 1;
    case WORK_TOKENS:
        return e->tokens;
    case WORK_ROWS:
        return e->rows * typical_row_ns + e->n_point * typical_layer_ns;
    case WORK_BOTH:
        return all->rows > 0 ? e->tokens + e->rows * all->tokens / all->rows : e->tokens;
    case WORK_OWNED:
    default:
        return 0;
    }
}

/* unit [R]: time of this phase for a unit of work; 0: unknown. */
static void list_units(const struct mt_replay *replay, const struct effort *effort,
                       const struct effort *all, int phase, double *unit, double *scratch)
{
    double *layer_ns = scratch + replay->n_rank; /* of an expert layer, beside its rows */
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct effort *e = &effort[r];
        layer_ns[r] =
            e->n_point > 0 ? (e->expert_ns - replay->row_ns[r] * e->rows) / e->n_point : 0;
    }
    const double typical_row_ns = median(replay->row_ns, replay->n_rank, scratch);
    const double typical_layer_ns = median(layer_ns, replay->n_rank, scratch);
    for (int r = 0; r < replay->n_rank; ++r) {
        const struct effort *e = &effort[r];
        const double work = work_of_rank(e, all, phase, typical_row_ns, typical_layer_ns);
        const bool is_known = work > 0 && e->busy_ns[phase] > least_share * e->all_ns;
        unit[r] = is_known ? e->busy_ns[phase] / work : 0;
    }
}

static double *slowness_of(const struct mt_replay *replay, int rank)
{
    return &replay->slowness[(int64_t)rank * (MT_N_PHASE + 1)];
}

/* Phases without a measure of their own get the mean of the rank's others, by time. */
static void fill_others(const struct mt_replay *replay, const struct effort *effort, int rank)
{
    double *slowness = slowness_of(replay, rank);
    double measured_ns = 0;
    double typical_ns = 0;
    for (int p = 0; p < MT_N_PHASE; ++p) {
        const enum work_kind kind = work_of(p);
        if (kind != WORK_OWNED && kind != WORK_EQUAL && slowness[p] > 0) {
            measured_ns += effort[rank].busy_ns[p];
            typical_ns += effort[rank].busy_ns[p] / slowness[p];
        }
    }
    const double overall = typical_ns > 0 ? fmax(1, measured_ns / typical_ns) : 1;
    for (int p = 0; p <= MT_N_PHASE; ++p) {
        slowness[p] = work_of(p) == WORK_OWNED ? overall : fmax(1, slowness[p]);
    }
}

static void compare(struct mt_replay *replay, const struct effort *effort, double *unit,
                    double *scratch)
{
    struct effort all = {.all_ns = 0};
    for (int r = 0; r < replay->n_rank; ++r) {
        all.tokens += effort[r].tokens;
        all.rows += effort[r].rows;
    }
    find_row_times(replay, effort, scratch);
    for (int p = 0; p < MT_N_PHASE; ++p) {
        list_units(replay, effort, &all, p, unit, scratch);
        const double typical = median(unit, replay->n_rank, scratch);
        for (int r = 0; r < replay->n_rank; ++r) {
            slowness_of(replay, r)[p] = typical > 0 ? unit[r] / typical : 0;
        }
    }
    for (int r = 0; r < replay->n_rank; ++r) {
        fill_others(replay, effort, r);
    }
}

enum mt_status mt_replay_compare_ranks(struct mt_replay *replay)
{
    struct effort *effort = NULL;
    double *scratch = NULL;
    const int n_rank = replay->n_rank;
    MT_TRY(MT_ALLOCATE(effort, n_rank, "efforts of ranks"));
    const enum mt_status status = MT_ALLOCATE(scratch, 3 * (int64_t)n_rank, "efforts of ranks");
    if (status == MT_OK) {
        for (int i = 0; i < replay->n_step; ++i) {
            for (int r = 0; r < n_rank; ++r) {
                add_step(replay->profile, mt_replay_step(replay, i), r, &effort[r]);
            }
        }
        compare(replay, effort, scratch, scratch + n_rank);
    }
    mt_memory_free(scratch);
    mt_memory_free(effort);
    return status;
}
