/* EPLB (github.com/deepseek-ai/EPLB, the balancer of DeepSeek-V3's inference) with owners.
 *
 * Upstream packs E + extra replicas into the slots of all ranks, from history, in three steps:
 * groups of experts to nodes; within a node replicas, each to the expert with the largest load a
 * replica; replicas by load to the least loaded rank with room (eplb.c has it, to the letter). Here
 * one instance of each expert is its owner's and stays there from step to step, so:
 *
 *   reshard       packs as upstream does, every expert a group of its own (the router knows no
 *                 groups), and makes owners of it: of the ranks that hold an expert the one that
 *                 owns least, and all own equally many. Taken for a layer if the largest predicted
 *                 load falls by more than two percent.
 *   before_gate   replicates within each node, owners' instances being the first replicas, and
 * packs
 *                 the others by load to the least loaded rank of the node with a free slot.
 *
 * A rank holds an expert once; experts without load get no copies. */
#include "placement/draft.h"

#include "base/size.h"
#include "placement/eplb.h"

#include <string.h>

enum { SCALE = 256, GAIN_PERCENT = 2 };

struct packing {
    struct mt_draft draft;
    const int64_t *load;           /* [E] */
    int64_t *rank_load;            /* [R] in rows / SCALE */
    int64_t *some, *some_share;    /* [E] of a node's experts: load, a replica's share */
    int *mine, *order, *n_replica; /* [E] */
};

static void packing_init(struct packing *packing, const struct mt_policy_input *input,
                         const int64_t *load, const struct mt_placement *placement,
                         struct mt_arena *scratch)
{
    const int n_expert = input->n_expert;
    mt_draft_init(&packing->draft, input, placement, scratch);
    packing->load = load;
    packing->rank_load = mt_draft_cut(scratch, placement->n_rank, sizeof(*packing->rank_load));
    packing->some = mt_draft_cut(scratch, n_expert, sizeof(*packing->some));
    packing->some_share = mt_draft_cut(scratch, n_expert, sizeof(*packing->some_share));
    packing->mine = mt_draft_cut(scratch, n_expert, sizeof(*packing->mine));
    packing->order = mt_draft_cut(scratch, n_expert, sizeof(*packing->order));
    packing->n_replica = mt_draft_cut(scratch, n_expert, sizeof(*packing->n_replica));
    memset(packing->rank_load, 0, (size_t)placement->n_rank * sizeof(*packing->rank_load));
}

/* The node's least loaded rank that can take the expert; -1: none. */
static int find_rank(const struct packing *packing, int node, int expert)
{
    const struct mt_cluster *cluster = packing->draft.cluster;
    int best = -1;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        const int rank = cluster->member[i];
        if (mt_draft_can(&packing->draft, expert, rank) &&
            (best < 0 || packing->rank_load[rank] < packing->rank_load[best])) {
            best = rank;
        }
    }
    return best;
}

static void pack_node(struct packing *packing, int node, struct mt_arena *scratch)
{
    const struct mt_cluster *cluster = packing->draft.cluster;
    const int size = cluster->node_start[node + 1] - cluster->node_start[node];
    int64_t n_slot = 0;
    int n = 0;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        n_slot += packing->draft.n_free[cluster->member[i]];
    }
    for (int e = 0; e < packing->draft.n_expert; ++e) {
        if (cluster->node[packing->draft.owner[e]] == node) {
            packing->some[n] = packing->load[e];
            packing->mine[n++] = e;
        }
    }
    mt_eplb_replicate(packing->some, n, n + n_slot, size, packing->n_replica, NULL);
    for (int i = 0; i < n; ++i) {
        packing->some_share[i] = packing->some[i] * SCALE / packing->n_replica[i];
        packing->rank_load[packing->draft.owner[packing->mine[i]]] += packing->some_share[i];
    }
    mt_load_order(packing->some_share, n, scratch, packing->order);
    for (int i = 0; i < n; ++i) {
        const int at = packing->order[i];
        const int expert = packing->mine[at];
        for (int copy = 1; copy < packing->n_replica[at] && packing->some[at] > 0; ++copy) {
            const int rank = find_rank(packing, node, expert);
            if (rank < 0) {
                break;
            }
            mt_draft_add(&packing->draft, expert, rank, MT_DRAFT_HERE);
            packing->rank_load[rank] += packing->some_share[at];
        }
    }
}

/* Returns the largest predicted load of a rank. */
static int64_t pack(struct packing *packing, struct mt_arena *scratch)
{
    const struct mt_cluster *cluster = packing->draft.cluster;
    int64_t largest = 0;
    for (int node = 0; node < cluster->n_node; ++node) {
        pack_node(packing, node, scratch);
    }
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        largest = mt_max_i64(largest, packing->rank_load[rank]);
    }
    return largest;
}

void mt_policy_eplb_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *load = mt_draft_cut(scratch, input->n_expert, sizeof(*load));
    struct packing packing;
    (void)mt_load_of_history(input, load);
    mt_placement_owners_only(placement);
    packing_init(&packing, input, load, placement, scratch);
    (void)pack(&packing, scratch);
    mt_draft_write(&packing.draft, placement);
    mt_arena_release(scratch, mark);
}

/* The largest predicted load of a rank with these owners [E]. */
static int64_t largest_load(const struct mt_reshard_input *input, const int64_t *load, int *owner,
                            struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_expert = input->n_expert;
    const struct mt_policy_input one = {
        .cluster = input->cluster, .n_expert = n_expert, .slots = input->slots};
    struct mt_placement placement = {
        .n_rank = input->cluster->n_rank,
        .n_expert = n_expert,
        .max_instance = n_expert,
        .owner = owner,
        .instance_start = mt_draft_cut(scratch, (int64_t)n_expert + 1, sizeof(int)),
        .rank = mt_draft_cut(scratch, n_expert, sizeof(int)),
        .is_late = mt_draft_cut(scratch, n_expert, sizeof(bool)),
    };
    struct packing packing;
    mt_placement_owners_only(&placement);
    packing_init(&packing, &one, load, &placement, scratch);
    const int64_t largest = pack(&packing, scratch);
    mt_arena_release(scratch, mark);
    return largest;
}

/* Nodes as large as one another and experts that can be shared out evenly: upstream's hierarchical
 * packing; otherwise its global one. */
static struct mt_eplb_shape shape_of(const struct mt_reshard_input *input)
{
    const struct mt_cluster *cluster = input->cluster;
    bool is_even = input->n_expert % cluster->n_node == 0;
    for (int node = 0; node < cluster->n_node; ++node) {
        is_even = is_even &&
                  (cluster->node_start[node + 1] - cluster->node_start[node]) * cluster->n_node ==
                      cluster->n_rank;
    }
    return (struct mt_eplb_shape){.n_expert = input->n_expert,
                                  .n_slot = input->n_expert + cluster->n_rank * input->slots,
                                  .n_group = is_even ? input->n_expert : 1,
                                  .n_node = is_even ? cluster->n_node : 1,
                                  .n_rank = cluster->n_rank};
}

/* wanted [E] from the packed slots: experts with few replicas choose first; an expert whose ranks
 * own enough already goes to the rank that owns least. */
static void choose_owners(const struct mt_reshard_input *input, const struct mt_eplb_shape *shape,
                          const int *slot, struct mt_arena *scratch, int *wanted)
{
    const int64_t mark = mt_arena_mark(scratch);
    const struct mt_cluster *cluster = input->cluster;
    const int n_rank = cluster->n_rank;
    const int n_expert = input->n_expert;
    const int per_rank = shape->n_slot / n_rank;
    int64_t *rarity = mt_draft_cut(scratch, n_expert, sizeof(*rarity));
    int *order = mt_draft_cut(scratch, n_expert, sizeof(*order));
    int *n_own = mt_draft_cut(scratch, n_rank, sizeof(*n_own));
    memset(rarity, 0, (size_t)n_expert * sizeof(*rarity));
    memset(n_own, 0, (size_t)n_rank * sizeof(*n_own));
    for (int i = 0; i < shape->n_slot; ++i) {
        --rarity[slot[i]];
    }
    mt_load_order(rarity, n_expert, scratch, order);
    for (int i = 0; i < n_expert; ++i) {
        const int expert = order[i];
        int best = -1;
        int64_t best_key = 0;
        for (int at = 0; at < n_rank; ++at) { /* packed ranks are numbered node by node */
            const int *held = &slot[(int64_t)at * per_rank];
            const int rank = cluster->member[at];
            int64_t key = n_own[rank];
            bool is_held = false;
            for (int j = 0; j < per_rank; ++j) {
                is_held = is_held || held[j] == expert;
            }
            key += is_held ? 0 : n_expert;
            if (n_own[rank] < n_expert / n_rank && (best < 0 || key < best_key)) {
                best = rank;
                best_key = key;
            }
        }
        wanted[expert] = best;
        ++n_own[best];
    }
    mt_arena_release(scratch, mark);
}

void mt_policy_eplb_reshard(const struct mt_reshard_input *input, struct mt_arena *scratch,
                            int *owner)
{
    const int n_expert = input->n_expert;
    const struct mt_eplb_shape shape = shape_of(input);
    if (n_expert % input->cluster->n_rank != 0) {
        return; /* upstream shares experts out evenly or not at all */
    }
    const int64_t mark = mt_arena_mark(scratch);
    int64_t *load = mt_draft_cut(scratch, n_expert, sizeof(*load));
    int *slot = mt_draft_cut(scratch, shape.n_slot, sizeof(*slot));
    int *wanted = mt_draft_cut(scratch, n_expert, sizeof(*wanted));
    for (int layer = input->first_layer; layer < input->n_layer; ++layer) {
        int *own = &owner[(int64_t)layer * n_expert];
        (void)mt_load_of_layer(input->history, layer, load);
        mt_eplb_pack(load, &shape, scratch, slot);
        choose_owners(input, &shape, slot, scratch, wanted);
        const int64_t before = largest_load(input, load, own, scratch);
        const int64_t after = largest_load(input, load, wanted, scratch);
        if (before - after > before / 100 * GAIN_PERCENT) {
            memcpy(own, wanted, (size_t)n_expert * sizeof(*own));
        }
    }
    mt_arena_release(scratch, mark);
}
