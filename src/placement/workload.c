/* Synthetic loads. One design for all shapes: how hot each rank is, how a rank's load lies on its
 * experts, and one exponent that makes the hottest rank exactly as hot as wanted.
 *
 *   order    ranks in a seeded order; a pair of it is swapped for each stretch of steps
 *   heat     [R] log weight of a rank by its place in the order, in [-log R, 0]: the shape
 *   taste    [E] log weight of an expert within its rank
 *   drift    first-order autoregression over steps, and something new every micro-batch, on both
 *   load     [R] n (1 - exp(-c w / n)) with w = exp(a heat), n experts: rows of a token; c makes
 *            them sum to K, a the largest the wanted multiple of K / R
 *   weight   [E] 1 - exp(-weight) is how likely a token takes the expert; a rank's sum to its load
 *
 * The exponential forms keep what is likely below 1 without a case for it: a token takes an expert
 * once. What is wanted beyond that (skew > R, a hot rank with fewer than K experts) ends at the
 * largest that there is. */
#include "placement/workload.h"

#include "base/random.h"
#include "base/size.h"
#include "placement/workload_internal.h"

#include <math.h>
#include <string.h>

enum shape {
    BALANCED,
    HOT_SET,
    HOT_RANK,
    SPREAD_HEAT,
    RAGGED_SOURCE,
    ZERO_LOAD_RANKS,
    ROTATING_HOTSPOT,
    BURST,
    N_SHAPE
};

const struct mt_workload mt_workloads[] = {
    [BALANCED] = {"balanced", "every rank and expert equally likely, whatever the skew"},
    [HOT_SET] = {"hot_set", "a few hot experts on a quarter of the ranks"},
    [HOT_RANK] = {"hot_rank",
                  "rank weights 1/r^a, within a rank 1/l^4: one expert leads each rank"},
    [SPREAD_HEAT] = {"spread_heat", "load falls evenly from rank to rank; a rank's experts alike"},
    [RAGGED_SOURCE] = {"ragged_source", "hot_rank in sum, but every source has a mix of its own"},
    [ZERO_LOAD_RANKS] = {"zero_load_ranks", "hot_rank with up to a quarter of ranks without rows"},
    [ROTATING_HOTSPOT] = {"rotating_hotspot", "one hot rank, the next every 16 steps"},
    [BURST] = {"burst", "balanced ranks; a quarter of the time, two steps long, a hot_rank"},
};
const int mt_n_workload = N_SHAPE;
_Static_assert(sizeof(mt_workloads) / sizeof(mt_workloads[0]) == N_SHAPE, "a row for each shape");

enum {
    LAGS = 32,         /* 0.9^32 = 0.03: what is left of older steps */
    STEPS_A_SWAP = 20, /* how long a pair of ranks stays swapped */
    STEPS_A_TURN = 16, /* of rotating_hotspot */
    STEPS_A_BURST = 2, /* its length, */
    BURST_PERIOD = 4,  /* and one in so many stretches of that length is a burst */
    SPLITS = 48        /* bisections of the exponent: 64 / 2^48 is below what a load can tell */
};
enum stream { RANK_ORDER = 1, SWAP, EXPERT_ORDER, DRIFT, FRESH, BURSTS, MIX };

/* Of log weights from step to step 0.9 * 0.9 = 0.81, measured in training 0.73 - 0.86 (LAER's
 * artifact); 0.9 between the micro-batches of one step. */
static const double DRIFT_CORRELATION = 0.9;
static const double SHARED_BY_MICRO = 0.9;
static const double DRIFT_DEVIATION = 0.25;
static const double EXPONENT_MOST = 64.0;
static const double COLDEST = 27.0; /* e^-27 = 2e-12: rather than an underflow to "never" */

struct model {
    const struct mt_workload_input *input;
    int n_able;     /* ranks that own experts and are not idle */
    int64_t epoch;  /* of the order of ranks */
    int *n_own;     /* [R] experts that may get rows; 0: none may */
    int *place;     /* [R] in the order of heat; of able ranks 0 .. n_able - 1 */
    int *rank_at;   /* [R] the inverse */
    double *heat;   /* [R] */
    double *taste;  /* [E] */
    double *noise;  /* [R + E] */
    double *even;   /* [R] weight that gives all able ranks the same load */
    double *weight; /* [R] */
    double *load;   /* [R] rows of a token that the rank's experts take */
    double *mix;    /* [R] the same for one source */
};

int mt_workload_find(const char *name)
{
    for (int i = 0; i < mt_n_workload; ++i) {
        if (strcmp(mt_workloads[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int64_t mt_workload_scratch_bytes(int n_rank, int n_expert)
{
    enum { N_WORD = 12, N_CUT = 16, CUT_BYTES = 64 };
    return ((int64_t)n_rank + n_expert + 1) * N_WORD * (int64_t)sizeof(double) +
           (int64_t)N_CUT * CUT_BYTES;
}

/* Random bits of a layer for one purpose and moment. */
static uint64_t bits(const struct mt_workload_input *input, enum stream stream, int64_t moment)
{
    const uint64_t purpose = (uint64_t)stream << 32 | (uint32_t)input->layer;
    return mt_random_u64(input->seed, purpose, (uint64_t)moment);
}

/* out [n] += scale * numbers of mean 0 and deviation 1, four a block. */
static void add_noise(uint64_t seed, uint64_t stream, double scale, int n, double *out)
{
    const double width = 2.0 * sqrt(3.0) * scale; /* of a uniform number with deviation `scale` */
    uint32_t word[4];
    for (int i = 0; i < n; ++i) {
        if (i % 4 == 0) {
            mt_random_block(seed, stream, (uint64_t)i / 4, word);
        }
        out[i] += width * ((double)word[i % 4] * 0x1p-32 - 0.5);
    }
}

/* The autoregression as the sum of its last innovations: any step without those before it. Sums of
 * 32 uniform innovations are near enough to normal. */
static void fill_drift(const struct mt_workload_input *input, int n, double *noise)
{
    const double r = DRIFT_CORRELATION;
    const double shared = DRIFT_DEVIATION * sqrt(SHARED_BY_MICRO);
    const double fresh = DRIFT_DEVIATION * sqrt(1.0 - SHARED_BY_MICRO);
    double scale = shared * sqrt((1.0 - r * r) / (1.0 - pow(r, 2.0 * LAGS)));
    memset(noise, 0, (size_t)n * sizeof(*noise));
    for (int lag = 0; lag < LAGS; ++lag, scale *= r) {
        add_noise(input->seed, bits(input, DRIFT, input->step - lag), scale, n, noise);
    }
    const int64_t moment = (int64_t)((uint64_t)input->step << 20) + input->micro;
    add_noise(input->seed, bits(input, FRESH, moment), fresh, n, noise);
}

/* Ranks that own something, in this stretch's order of heat. */
static void order_ranks(struct model *model)
{
    const struct mt_workload_input *input = model->input;
    const bool is_burst = input->workload == BURST;
    const bool is_rotating = input->workload == ROTATING_HOTSPOT;
    int n = 0;
    for (int rank = 0; rank < input->n_rank; ++rank) {
        if (model->n_own[rank] > 0) {
            model->rank_at[n++] = rank;
        }
    }
    MT_ASSERT(n >= 1); /* experts have owners */
    model->n_able = n;
    if (is_rotating) {
        const int64_t turn =
            input->step / STEPS_A_TURN + (int64_t)(bits(input, RANK_ORDER, 0) % 64);
        for (int i = 0; i < n; ++i) {
            model->place[model->rank_at[i]] = (int)(((i - turn) % n + n) % n);
        }
        for (int rank = 0; rank < input->n_rank; ++rank) {
            if (model->n_own[rank] > 0) {
                model->rank_at[model->place[rank]] = rank;
            }
        }
        return;
    }
    mt_workload_shuffle(input->seed, bits(input, RANK_ORDER, is_burst ? model->epoch : 0), n,
                        model->rank_at);
    const uint64_t pair = bits(input, SWAP, model->epoch);
    const int first = (int)((uint32_t)pair % (uint32_t)n);
    const int second = (int)((uint32_t)(pair >> 32) % (uint32_t)n);
    const int kept = model->rank_at[first];
    model->rank_at[first] = model->rank_at[second];
    model->rank_at[second] = kept;
    for (int i = 0; i < n; ++i) {
        model->place[model->rank_at[i]] = i;
    }
}

/* The coldest ranks get nothing: as many as leave the wanted skew within reach, at least one, at
 * most a quarter; and the others own at least K experts. */
static void idle_ranks(struct model *model)
{
    const struct mt_workload_input *input = model->input;
    const int n = model->n_able;
    const int within_skew = (int)((double)n * (1.0 - 1.0 / input->skew));
    const int most = (int)mt_max_i64(1, n / 4);
    int n_idle = (int)mt_min_i64(mt_max_i64(within_skew, 1), most);
    int n_left = input->n_expert;
    for (; n_idle > 0 && model->n_able > 1; --n_idle) {
        const int rank = model->rank_at[model->n_able - 1];
        if (n_left - model->n_own[rank] < input->top_k) {
            break;
        }
        n_left -= model->n_own[rank];
        model->n_own[rank] = 0;
        --model->n_able;
    }
}

static bool is_hot_place(const struct model *model, int place)
{
    return place < (model->n_able + 3) / 4;
}

/* By place in the order, 0 the hottest. */
static double heat_of(const struct model *model, int place)
{
    const double n = model->n_able;
    switch (model->input->workload) {
    case BALANCED:
        return 0.0;
    case HOT_SET:
        return is_hot_place(model, place) ? -0.5 * log(place + 1.0) : -log(n);
    case SPREAD_HEAT:
        return n > 1.0 ? -log(n) * place / (n - 1.0) : 0.0;
    case ROTATING_HOTSPOT:
        return place == 0 ? 0.0 : -log(n);
    default:
        return -log(place + 1.0);
    }
}

/* By place within a rank of n experts at `place`, 0 the likeliest. */
static double taste_of(const struct model *model, int place, int local, int n)
{
    static const double cold = 16.0; /* hot_set: a hot expert against the others of its rank */
    switch (model->input->workload) {
    case BALANCED:
    case SPREAD_HEAT:
        return 0.0;
    case HOT_SET:
        return is_hot_place(model, place) && local >= (n + 3) / 4 ? -log(cold) : 0.0;
    default:
        return -4.0 * log(local + 1.0);
    }
}

static void fill_heat_and_taste(struct model *model)
{
    const struct mt_workload_input *input = model->input;
    const bool is_drifting = input->workload != BALANCED;
    int *next = model->rank_at; /* no longer wanted: place within the rank of its next expert */
    fill_drift(input, input->n_rank + input->n_expert, model->noise);
    for (int rank = 0; rank < input->n_rank; ++rank) {
        const int n = model->n_own[rank];
        next[rank] = 0;
        if (n > 0) {
            model->heat[rank] = heat_of(model, model->place[rank]);
            model->heat[rank] += is_drifting ? model->noise[rank] : 0.0;
            next[rank] = (int)(bits(input, EXPERT_ORDER, rank) % (uint64_t)n);
        }
    }
    for (int e = 0; e < input->n_expert; ++e) {
        const int rank = input->owner[e];
        const int n = model->n_own[rank];
        if (n > 0) {
            model->taste[e] = taste_of(model, model->place[rank], next[rank], n);
            model->taste[e] += is_drifting ? model->noise[input->n_rank + e] : 0.0;
            next[rank] = (next[rank] + 1) % n;
        }
    }
}

/* load [R] for the exponent; returns the largest. */
static double fill_load(struct model *model, double exponent)
{
    const int n_rank = model->input->n_rank;
    double largest = 0.0;
    for (int rank = 0; rank < n_rank; ++rank) {
        const bool is_able = model->n_own[rank] > 0;
        model->weight[rank] =
            is_able ? model->even[rank] * exp(fmax(exponent * model->heat[rank], -COLDEST)) : 0.0;
    }
    const double c = mt_workload_solve(model->weight, model->n_own, n_rank, model->input->top_k);
    for (int rank = 0; rank < n_rank; ++rank) {
        const double n = model->n_own[rank];
        model->load[rank] = n > 0.0 ? n * -expm1(-c * model->weight[rank] / n) : 0.0;
        largest = fmax(largest, model->load[rank]);
    }
    return largest;
}

static void make_load(struct model *model)
{
    const struct mt_workload_input *input = model->input;
    const double wanted = input->skew * input->top_k / input->n_rank;
    const bool is_calm =
        input->workload == BURST && bits(input, BURSTS, model->epoch) % BURST_PERIOD;
    double low = 0.0;
    double high = EXPONENT_MOST;
    double hottest = -INFINITY;
    for (int rank = 0; rank < input->n_rank; ++rank) {
        if (model->n_own[rank] > 0) {
            const double n = model->n_own[rank];
            const double share = fmin(input->top_k / (model->n_able * n), 1.0 - 1e-9);
            model->even[rank] = -n * log1p(-share);
            hottest = fmax(hottest, model->heat[rank]);
        }
    }
    for (int rank = 0; rank < input->n_rank; ++rank) {
        model->heat[rank] -= hottest;
    }
    if (input->workload == BALANCED || is_calm || fill_load(model, low) >= wanted) {
        high = low;
    }
    for (int split = 0; split < SPLITS && high > low; ++split) {
        const double middle = 0.5 * (low + high);
        if (fill_load(model, middle) < wanted) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (void)fill_load(model, high);
}

/* mix [R]: the source's own loads. Sources 2 i and 2 i + 1 lean to opposite sides, so that all
 * together have `load`; the last of an odd number leans to none. */
static void make_mix(struct model *model, int source)
{
    const struct mt_workload_input *input = model->input;
    const int n_rank = input->n_rank;
    double *lean = model->weight;
    double total = 0.0;
    double centre = 0.0;
    double reach = INFINITY;
    for (int rank = 0; rank < n_rank; ++rank) {
        const uint64_t stream = bits(input, MIX, source / 2);
        lean[rank] = 2.0 * mt_random_uniform(input->seed, stream, (uint64_t)rank) - 1.0;
        total += model->load[rank];
        centre += model->load[rank] * lean[rank];
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        const double load = model->load[rank];
        lean[rank] = load * (lean[rank] - centre / total);
        if (fabs(lean[rank]) > 0.0) {
            reach = fmin(reach, fmin(load, model->n_own[rank] - load) / fabs(lean[rank]));
        }
    }
    const double side = source % 2 == 0 ? 0.9 : -0.9;
    const bool is_alone = source == n_rank - 1 && source % 2 == 0;
    for (int rank = 0; rank < n_rank; ++rank) {
        const double step = is_alone || isinf(reach) ? 0.0 : side * reach * lean[rank];
        model->mix[rank] = model->load[rank] + step;
    }
}

/* weight [E] from loads of ranks: rank by rank, as each has a factor of its own. The experts of a
 * rank are gathered in `some`. */
static void fill_weight(const struct model *model, const double *load, struct mt_arena *scratch,
                        double *weight)
{
    const struct mt_workload_input *input = model->input;
    const int64_t mark = mt_arena_mark(scratch);
    double *some = mt_workload_cut(scratch, input->n_expert, sizeof(*some));
    int *expert = mt_workload_cut(scratch, input->n_expert, sizeof(*expert));
    int *start = mt_workload_cut(scratch, (int64_t)input->n_rank + 1, sizeof(*start));
    memset(start, 0, (size_t)(input->n_rank + 1) * sizeof(*start));
    memset(weight, 0, (size_t)input->n_expert * sizeof(*weight));
    for (int rank = 0; rank < input->n_rank; ++rank) {
        start[rank + 1] = start[rank] + model->n_own[rank];
    }
    for (int e = input->n_expert - 1; e >= 0; --e) {
        const int rank = input->owner[e];
        if (model->n_own[rank] > 0) {
            expert[--start[rank + 1]] = e; /* start[r + 1] ends up as where r starts */
        }
    }
    for (int rank = 0; rank < input->n_rank; ++rank) {
        const int n = model->n_own[rank];
        const int *mine = &expert[start[rank + 1]];
        for (int i = 0; i < n; ++i) {
            some[i] = exp(fmax(model->taste[mine[i]], -COLDEST));
        }
        const double c = n > 0 ? mt_workload_solve(some, NULL, n, load[rank]) : 0.0;
        for (int i = 0; i < n; ++i) {
            weight[mine[i]] = c * some[i];
        }
    }
    mt_arena_release(scratch, mark);
}

void mt_workload_weights(const struct mt_workload_input *input, struct mt_arena *scratch,
                         double *weight)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t n_rank = input->n_rank;
    const int64_t n_expert = input->n_expert;
    struct model model = {.input = input};
    MT_ASSERT(input->workload >= 0 && input->workload < N_SHAPE && input->skew >= 1.0);
    MT_ASSERT(input->top_k >= 1 && input->top_k <= n_expert);
    const int64_t late =
        (int64_t)((uint32_t)input->layer * 7U % STEPS_A_SWAP); /* not all at once */
    model.epoch = input->workload == BURST ? input->step / STEPS_A_BURST
                                           : (input->step + late) / STEPS_A_SWAP;
    model.n_own = mt_workload_cut(scratch, n_rank, sizeof(*model.n_own));
    model.place = mt_workload_cut(scratch, n_rank, sizeof(*model.place));
    model.rank_at = mt_workload_cut(scratch, n_rank, sizeof(*model.rank_at));
    model.heat = mt_workload_cut(scratch, n_rank, sizeof(*model.heat));
    model.taste = mt_workload_cut(scratch, n_expert, sizeof(*model.taste));
    model.noise = mt_workload_cut(scratch, n_rank + n_expert, sizeof(*model.noise));
    model.even = mt_workload_cut(scratch, n_rank, sizeof(*model.even));
    model.weight = mt_workload_cut(scratch, n_rank, sizeof(*model.weight));
    model.load = mt_workload_cut(scratch, n_rank, sizeof(*model.load));
    model.mix = mt_workload_cut(scratch, n_rank, sizeof(*model.mix));
    memset(model.n_own, 0, (size_t)n_rank * sizeof(*model.n_own));
    memset(model.heat, 0, (size_t)n_rank * sizeof(*model.heat));
    for (int e = 0; e < n_expert; ++e) {
        ++model.n_own[input->owner[e]];
    }
    order_ranks(&model);
    if (input->workload == ZERO_LOAD_RANKS) {
        idle_ranks(&model);
    }
    fill_heat_and_taste(&model);
    make_load(&model);
    fill_weight(&model, model.load, scratch, weight);
    for (int source = 0; source < n_rank; ++source) {
        if (input->workload == RAGGED_SOURCE) {
            make_mix(&model, source);
            fill_weight(&model, model.mix, scratch, &weight[source * n_expert]);
        } else if (source > 0) {
            memcpy(&weight[source * n_expert], weight, (size_t)n_expert * sizeof(*weight));
        }
    }
    mt_arena_release(scratch, mark);
}
