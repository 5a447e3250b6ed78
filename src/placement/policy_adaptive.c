/* The project's own policy: history for what can be hidden, exact counts for the rest.
 *
 * Before the gate replicas are grown for loads of the recent past, within the slots and within what
 * links carry under attention. After it the rows settle on what is there; only where that leaves a
 * rank more than 2 % above the mean, late copies are added, and only as many as shorten the
 * predicted time. docs/fssdp.md, "adaptive". */
#include "placement/adaptive.h"

#include "base/size.h"
#include "placement/draft.h"
#include "placement/grow.h"
#include "placement/predict.h"
#include "placement/ps.h"
#include "placement/split.h"

#include <string.h>

enum { MIN_ROW = 512 };

/* The placement with arrays of its own from the arena, with room for so many instances. */
static void keep_placement(const struct mt_placement *placement, int64_t n_instance,
                           struct mt_arena *scratch, struct mt_placement *kept)
{
    const int64_t word = (int64_t)sizeof(int);
    *kept = *placement;
    kept->max_instance = (int)n_instance;
    kept->owner = mt_arena_cut(scratch, placement->n_expert * word);
    kept->instance_start = mt_arena_cut(scratch, ((int64_t)placement->n_expert + 1) * word);
    kept->rank = mt_arena_cut(scratch, n_instance * word);
    kept->is_late = mt_arena_cut(scratch, n_instance * (int64_t)sizeof(bool));
    mt_placement_copy(kept, placement);
}

/* Loads to be ready for: the newest, and a mean in which each is worth half of the next. Returns
 * their number; scenario [2, E]. */
static int make_scenarios(const struct mt_policy_input *input, int64_t *scenario)
{
    enum { MOST = 6 }; /* older ones weigh less than 2 % */
    const int64_t n_expert = input->n_expert;
    const bool is_recent = input->n_recent > 0;
    const int n = is_recent ? input->n_recent : input->n_history;
    const int64_t *load = is_recent ? input->recent : input->history;
    int64_t *mean = scenario;
    if (n == 0) {
        return 0;
    }
    const int first = n > MOST ? n - MOST : 0;
    memcpy(mean, &load[first * n_expert], (size_t)n_expert * sizeof(mean[0]));
    for (int at = first + 1; at < n; ++at) {
        for (int64_t expert = 0; expert < n_expert; ++expert) {
            mean[expert] = (mean[expert] + load[at * n_expert + expert] + 1) / 2;
        }
    }
    if (n == 1) {
        return 1;
    }
    memcpy(&scenario[n_expert], &load[(n - 1) * n_expert], (size_t)n_expert * sizeof(mean[0]));
    return 2;
}

/* What every link may carry in one direction under attention. */
static int64_t hidden_ps(const struct mt_policy_input *input)
{
    const struct mt_cluster *cluster = input->cluster;
    if (input->overlap < 0) {
        return cluster->costs.attention_ps;
    }
    const enum mt_level level = cluster->n_node > 1 ? MT_LEVEL_NETWORK : MT_LEVEL_NODE;
    return mt_ps_times(input->overlap,
                       mt_ps_message(&cluster->costs, level, cluster->expert_bytes));
}

/* Slots that copies from history may take: one stays for what the exact counts ask for. */
static int prefetch_slots(const struct mt_adaptive_options *options,
                          const struct mt_policy_input *input)
{
    const bool is_kept = options->repair && input->calibrate && input->slots > 1;
    return is_kept ? input->slots - 1 : input->slots;
}

/* What is held and not planned stays where slots are left, experts of most rows first (load [E]):
 * its gradients would go back now, exposed, and it may be wanted again; if not, they go back with
 * all others under the attention of the step's last backward. */
static void keep_held(const int64_t *load, int slots, const struct mt_placement *held,
                      struct mt_placement *placement, struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_expert = placement->n_expert;
    int *order = mt_arena_cut(scratch, n_expert * (int64_t)sizeof(*order));
    int *n_copy = mt_arena_cut(scratch, placement->n_rank * (int64_t)sizeof(*n_copy));
    mt_load_order(load, n_expert, scratch, order);
    mt_placement_count_copies(placement, n_copy);
    for (int at = 0; at < n_expert; ++at) {
        const int expert = order[at];
        for (int i = held->instance_start[expert]; i < held->instance_start[expert + 1]; ++i) {
            const int rank = held->rank[i];
            if (n_copy[rank] < slots && mt_placement_find(placement, expert, rank) < 0) {
                mt_placement_add(placement, expert, rank, false);
                ++n_copy[rank];
            }
        }
    }
    mt_arena_release(scratch, mark);
}

void mt_adaptive_before_gate(const struct mt_adaptive_options *options,
                             const struct mt_policy_input *input, struct mt_arena *scratch,
                             struct mt_placement *placement)
{
    enum { GOOD_ENOUGH = 100, TOLERANCE = 50 }; /* shares of the mean; loads will differ anyway */
    enum {
        GAIN = 100
    }; /* the least share of the time: copies that save less stand in the way of
                            those that the counts will ask for */
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t n_expert = input->n_expert;
    int64_t *scenario = mt_arena_cut(scratch, 2 * n_expert * (int64_t)sizeof(int64_t));
    const int n = options->prefetch ? make_scenarios(input, scenario) : 0;
    struct mt_placement liked;
    struct mt_flow flow;
    struct mt_grow grow;
    keep_placement(placement, mt_placement_n_instance(placement), scratch, &liked);
    mt_placement_owners_only(placement);
    for (int at = 0; at < n; ++at) {
        if (at == 0) {
            mt_flow_init(&flow, placement, placement->max_instance, scenario, scratch);
            mt_grow_init(&grow, input->cluster, &flow, placement, scratch);
            grow.liked = options->sticky ? &liked : NULL;
            grow.is_liked_here = options->sticky && input->is_held;
        } else {
            mt_flow_set_total(&flow, &scenario[at * n_expert]);
        }
        mt_flow_start(&flow);
        const int64_t largest = mt_flow_settle(&flow);
        const int64_t mean = mt_ceil_div(flow.n_row, flow.n_rank);
        if (largest - mean <= mean / GOOD_ENOUGH) {
            continue;
        }
        grow.rules =
            (struct mt_grow_rules){.slots = prefetch_slots(options, input),
                                   .min_row = mt_grow_min_row(MIN_ROW, flow.n_row, flow.n_rank),
                                   .tolerance_row = mean / TOLERANCE + 1,
                                   .is_timed = true,
                                   .port_ps = hidden_ps(input)};
        mt_grow_reset(&grow);
        const int64_t before_ps = mt_grow_price(&grow);
        if (before_ps - mt_grow_search(&grow, mean, largest) > before_ps / GAIN) {
            mt_grow_apply(&grow);
        }
    }
    if (n > 0) {
        mt_grow_write(&flow, flow.n_instance, placement);
    }
    if (n > 0 && options->sticky && input->is_held) {
        keep_held(scenario, input->slots, &liked, placement, scratch);
    }
    mt_arena_release(scratch, mark);
}

/* The whole prediction of a placement. */
static int64_t predicted_ps(const struct mt_policy_input *input,
                            const struct mt_placement *placement, struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t n_pair = (int64_t)placement->n_rank * mt_placement_n_instance(placement);
    const struct mt_predict_options how = {.rematerialize = true};
    struct mt_prediction prediction;
    int64_t *quota = mt_arena_cut(scratch, n_pair * (int64_t)sizeof(int64_t));
    mt_split(MT_SPLIT_SETTLED, input->cluster, placement, input->count, scratch, quota);
    mt_predict(input->cluster, placement, quota, &how, scratch, &prediction);
    mt_arena_release(scratch, mark);
    return prediction.total_ps;
}

/* Of the placement without late copies, the flow's, and what the rivals on exact counts would make,
 * the one that is predicted fastest; ties to the first. */
static void choose(const struct mt_policy_input *input, const struct mt_flow *flow, int n_early,
                   struct mt_placement *placement, struct mt_arena *scratch)
{
    enum { GROWN, QUOTA, LEAST_LOADED, N_CANDIDATE };
    const int64_t mark = mt_arena_mark(scratch);
    struct mt_placement early;
    struct mt_placement best;
    int64_t least_ps = predicted_ps(input, placement, scratch);
    keep_placement(placement, placement->max_instance, scratch, &early);
    keep_placement(placement, placement->max_instance, scratch, &best);
    for (int candidate = GROWN; candidate < N_CANDIDATE; ++candidate) {
        mt_placement_copy(placement, &early);
        if (candidate == GROWN) {
            mt_grow_write(flow, n_early, placement);
        } else if (candidate == QUOTA) {
            mt_policy_quota_after_gate(input, scratch, placement);
        } else {
            mt_policy_least_loaded_after_gate(input, scratch, placement);
        }
        const int64_t ps = predicted_ps(input, placement, scratch);
        if (ps < least_ps) {
            least_ps = ps;
            mt_placement_copy(&best, placement);
        }
    }
    mt_placement_copy(placement, &best);
    mt_arena_release(scratch, mark);
}

/* Copies are grown on quotas as they are. Where that ends far above even, because the ranks with
 * free slots have no room and those with room no slots, quotas settle on what there is now and
 * growing goes on. Returns whether the end, of that price, is even. */
static bool repair(struct mt_grow *grow, int64_t mean, int64_t largest, int64_t *price)
{
    enum { MOST = 3 };
    const int max_round = grow->flow->n_rank > MT_PLANNER_RANKS ? 1 : MOST;
    bool is_even = false;
    for (int round = 0; round < max_round && !is_even; ++round) {
        *price = mt_grow_search(grow, mean, largest);
        const bool is_grown = grow->n_move > 0;
        is_even = mt_grow_is_even(grow, *price);
        mt_grow_apply(grow);
        if (is_even || !is_grown || round + 1 == max_round) {
            break;
        }
        largest = mt_flow_settle(grow->flow);
        mt_grow_reset(grow);
        *price = mt_grow_price(grow);
        is_even = mt_grow_is_even(grow, *price);
    }
    return is_even;
}

/* Do late copies take so long that their price decides? Growing prices them with its own quotas;
 * rows settled to the least limit may wait longer. */
static bool is_dear(const struct mt_grow *grow, int64_t price)
{
    enum { SHARE = 16 };
    int64_t latest = 0;
    for (int rank = 0; rank < grow->flow->n_rank; ++rank) {
        latest = mt_max_i64(latest, grow->rank_base[rank].arrival_ps);
    }
    return latest > price / SHARE;
}

void mt_adaptive_after_gate(const struct mt_adaptive_options *options,
                            const struct mt_policy_input *input, struct mt_arena *scratch,
                            struct mt_placement *placement)
{
    enum { GOOD_ENOUGH = 50, TOLERANCE = 100 }; /* shares of the mean: 2 %, 1 % */
    const int64_t mark = mt_arena_mark(scratch);
    if (!options->repair || !input->calibrate) {
        return;
    }
    struct mt_grow_sources sources;
    struct mt_flow flow;
    struct mt_grow grow;
    mt_grow_count(&sources, input->cluster, input->n_expert, input->count, scratch);
    mt_flow_init(&flow, placement, placement->max_instance, sources.total, scratch);
    mt_flow_start(&flow);
    const int64_t largest = mt_flow_settle(&flow);
    const int64_t mean = mt_ceil_div(flow.n_row, flow.n_rank);
    if (largest - mean > mean / GOOD_ENOUGH) {
        const int n_early = flow.n_instance;
        mt_grow_init(&grow, input->cluster, &flow, placement, scratch);
        mt_grow_hold(&grow, placement, scratch);
        grow.rules =
            (struct mt_grow_rules){.slots = input->slots,
                                   .min_row = mt_grow_min_row(MIN_ROW, flow.n_row, flow.n_rank),
                                   .tolerance_row = mean / TOLERANCE + 1,
                                   .is_timed = true,
                                   .is_late = true,
                                   .is_resident_first = options->resident_first,
                                   .is_thorough = true,
                                   .port_ps = INT64_MAX};
        grow.sources = sources;
        mt_grow_set_exchange(&grow, scratch);
        mt_grow_reset(&grow);
        int64_t price = 0;
        const bool is_even = repair(&grow, mean, largest, &price);
        const int64_t n_pair = (int64_t)flow.n_rank * flow.n_instance;
        if ((is_even && !is_dear(&grow, price)) || n_pair > MT_PLANNER_PAIRS) {
            mt_grow_write(&flow, n_early, placement);
        } else {
            choose(input, &flow, n_early, placement, scratch);
        }
    }
    mt_arena_release(scratch, mark);
}

/* A pair of moments with one set of options. */
#define MT_ADAPTIVE(name, prefetch_on, repair_on, first_on, sticky_on)                            \
    static const struct mt_adaptive_options name##_options = {.prefetch = (prefetch_on),          \
                                                              .repair = (repair_on),              \
                                                              .resident_first = (first_on),       \
                                                              .sticky = (sticky_on)};             \
    static void name##_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch, \
                                   struct mt_placement *placement)                                \
    {                                                                                             \
        mt_adaptive_before_gate(&name##_options, input, scratch, placement);                      \
    }                                                                                             \
    static void name##_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,  \
                                  struct mt_placement *placement)                                 \
    {                                                                                             \
        mt_adaptive_after_gate(&name##_options, input, scratch, placement);                       \
    }
MT_ADAPTIVE(all, true, true, true, true)
MT_ADAPTIVE(no_prefetch, false, true, true, true)
MT_ADAPTIVE(no_repair, true, false, true, true)
MT_ADAPTIVE(no_resident_first, true, true, false, true)
MT_ADAPTIVE(no_sticky, true, true, true, false)
#undef MT_ADAPTIVE

void mt_policy_adaptive_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                    struct mt_placement *placement)
{
    all_before_gate(input, scratch, placement);
}

void mt_policy_adaptive_after_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                   struct mt_placement *placement)
{
    all_after_gate(input, scratch, placement);
}

const struct mt_policy mt_adaptive_variants[] = {
    {.name = "adaptive-no-prefetch",
     .description = "adaptive without copies from history",
     .before_gate = no_prefetch_before_gate,
     .after_gate = no_prefetch_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "adaptive-no-repair",
     .description = "adaptive without late copies",
     .before_gate = no_repair_before_gate,
     .after_gate = no_repair_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "adaptive-no-resident-first",
     .description = "adaptive where a late copy delays its whole rank",
     .before_gate = no_resident_first_before_gate,
     .after_gate = no_resident_first_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
    {.name = "adaptive-no-sticky",
     .description = "adaptive without regard to copies that were there before",
     .before_gate = no_sticky_before_gate,
     .after_gate = no_sticky_after_gate,
     .split = MT_SPLIT_SETTLED,
     .slots = MT_SLOTS_FEW},
};
const int mt_n_adaptive_variant =
    (int)(sizeof(mt_adaptive_variants) / sizeof(mt_adaptive_variants[0]));
