/* LAER's fully sharded expert parallelism (ASPLOS'26): every step, from the last steps' load, which
 * experts each rank shall hold. Every expert is cut over all ranks and rebuilt by an all-to-all of
 * pieces wherever it works (cuts_experts; store/pieces.c). What placements call its owner is a
 * home: the one rank where it is rebuilt in any case; LAER has none.
 *
 * How many replicas: one each, then one after the other to the expert with the largest load a
 * replica (the paper's heap); a second candidate gives all experts equally many. Where: experts
 * by a replica's load, largest first, each replica to the node that has fewest of that expert,
 * then to the least loaded rank. The candidate with the smaller largest load, rows settled as
 * the split will do it, is taken; without history that is the even one. Slots are filled as far
 * as a rank that lacks the expert has one: in an all-to-all over pieces of experts a slot costs
 * the same whatever it holds. */
#include "placement/draft.h"

#include "placement/eplb.h"
#include "placement/settle.h"

#include <string.h>

enum { SCALE = 256 };

struct layout {
    struct mt_draft draft;
    const int64_t *load; /* [E] */
    int *n_replica;      /* [E] */
    int *order;          /* [E] */
    int64_t *share;      /* [E] of a replica, in rows / SCALE */
    int64_t *rank_load;  /* [R] in rows / SCALE */
    int *n_on_node;      /* [M] replicas of the expert being placed */
    int *first_of_node;  /* [M] rank that takes an expert which the node lacks; -1: none */
};

/* n_replica [E]: n_slot over all, shared out evenly; the remainder to the hottest. order [E]. */
static void replicate_evenly(const int *order, int n_expert, int64_t n_slot, int most,
                             int *n_replica)
{
    for (int i = 0; i < n_expert; ++i) {
        const int64_t n = n_slot / n_expert + (i < n_slot % n_expert ? 1 : 0);
        n_replica[order[i]] = n < most ? (int)n : most;
    }
}

/* Of two ranks that could take a replica, in nodes with as many of the expert: the less loaded,
 * then the one with more free slots, then the lower. b < 0: none. */
static bool is_before(const struct layout *layout, int a, int b)
{
    if (b < 0) {
        return true;
    }
    const int64_t hotter = layout->rank_load[a] - layout->rank_load[b];
    const int freer = layout->draft.n_free[a] - layout->draft.n_free[b];
    return hotter != 0 ? hotter < 0 : freer != 0 ? freer > 0 : a < b;
}

/* Of the node's ranks that can take the expert, -1 for one that none has, the first; -1: none. */
static int find_in_node(const struct layout *layout, int expert, int node)
{
    const struct mt_cluster *cluster = layout->draft.cluster;
    int best = -1;
    for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
        const int rank = cluster->member[at];
        const bool can = expert < 0 ? layout->draft.n_free[rank] > 0
                                    : mt_draft_can(&layout->draft, expert, rank);
        best = can && is_before(layout, rank, best) ? rank : best;
    }
    return best;
}

/* A rank for one more replica: its node has fewest of the expert, then it is the first of all. -1:
 * none can take it. Node by node, for most lack the expert and then know their first rank. */
static int find_rank(const struct layout *layout, int expert)
{
    const struct mt_cluster *cluster = layout->draft.cluster;
    int best = -1;
    int fewest = INT32_MAX;
    for (int node = 0; node < cluster->n_node; ++node) {
        const int n = layout->n_on_node[node];
        if (n > fewest) {
            continue;
        }
        const int rank = n == 0 ? layout->first_of_node[node] : find_in_node(layout, expert, node);
        if (rank >= 0 && (n < fewest || is_before(layout, rank, best))) {
            best = rank;
            fewest = n;
        }
    }
    return best;
}

/* From owners only; n_replica [E] is given. */
static void place(struct layout *layout, struct mt_arena *scratch)
{
    const struct mt_cluster *cluster = layout->draft.cluster;
    const int n_expert = layout->draft.n_expert;
    memset(layout->rank_load, 0, (size_t)cluster->n_rank * sizeof(*layout->rank_load));
    for (int e = 0; e < n_expert; ++e) {
        layout->share[e] = layout->load[e] * SCALE / layout->n_replica[e];
        layout->rank_load[layout->draft.owner[e]] += layout->share[e];
    }
    mt_load_order(layout->share, n_expert, scratch, layout->order);
    for (int node = 0; node < cluster->n_node; ++node) {
        layout->first_of_node[node] = find_in_node(layout, -1, node);
    }
    for (int i = 0; i < n_expert; ++i) {
        const int expert = layout->order[i];
        memset(layout->n_on_node, 0, (size_t)cluster->n_node * sizeof(*layout->n_on_node));
        ++layout->n_on_node[cluster->node[layout->draft.owner[expert]]];
        for (int copy = 1; copy < layout->n_replica[expert]; ++copy) {
            const int rank = find_rank(layout, expert);
            if (rank < 0) {
                break;
            }
            mt_draft_add(&layout->draft, expert, rank, MT_DRAFT_HERE);
            layout->rank_load[rank] += layout->share[expert];
            const int node = cluster->node[rank];
            ++layout->n_on_node[node];
            layout->first_of_node[node] = find_in_node(layout, -1, node);
        }
    }
}

static int64_t settled_load(const struct layout *layout, struct mt_placement *placement,
                            struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    mt_draft_write(&layout->draft, placement);
    int64_t *quota = mt_draft_cut(scratch, mt_placement_n_instance(placement), sizeof(*quota));
    const int64_t largest = mt_settle(placement, layout->load, scratch, quota);
    mt_arena_release(scratch, mark);
    return largest;
}

static void layout_init(struct layout *layout, const struct mt_policy_input *input,
                        const struct mt_placement *placement, const int64_t *load,
                        struct mt_arena *scratch)
{
    const int64_t n_expert = input->n_expert;
    mt_draft_init(&layout->draft, input, placement, scratch);
    layout->load = load;
    layout->n_replica = mt_draft_cut(scratch, n_expert, sizeof(*layout->n_replica));
    layout->order = mt_draft_cut(scratch, n_expert, sizeof(*layout->order));
    layout->share = mt_draft_cut(scratch, n_expert, sizeof(*layout->share));
    layout->rank_load = mt_draft_cut(scratch, placement->n_rank, sizeof(*layout->rank_load));
    layout->n_on_node = mt_draft_cut(scratch, input->cluster->n_node, sizeof(*layout->n_on_node));
    layout->first_of_node =
        mt_draft_cut(scratch, input->cluster->n_node, sizeof(*layout->first_of_node));
}

void mt_policy_fsep_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_expert = input->n_expert;
    const int n_rank = placement->n_rank;
    const int64_t n_slot = n_expert + (int64_t)n_rank * input->slots;
    int64_t *load = mt_draft_cut(scratch, n_expert, sizeof(*load));
    struct layout even;
    struct layout uneven;
    const int64_t total = mt_load_of_history(input, load);
    mt_placement_owners_only(placement);
    layout_init(&even, input, placement, load, scratch);
    mt_load_order(load, n_expert, scratch, even.order);
    replicate_evenly(even.order, n_expert, n_slot, n_rank, even.n_replica);
    place(&even, scratch);
    if (total == 0) {
        mt_draft_write(&even.draft, placement);
    } else {
        layout_init(&uneven, input, placement, load, scratch);
        mt_eplb_replicate(load, n_expert, n_slot, n_rank, uneven.n_replica, NULL);
        place(&uneven, scratch);
        const int64_t even_load = settled_load(&even, placement, scratch);
        if (settled_load(&uneven, placement, scratch) > even_load) {
            mt_draft_write(&even.draft, placement);
        }
    }
    mt_arena_release(scratch, mark);
}
