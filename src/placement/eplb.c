#include "placement/eplb.h"

#include "placement/draft.h"

enum { SCALE = 256 }; /* a replica's share of a load keeps this fraction of a row */

/* Items by load, largest first, each to the least loaded pack that has room; a pack takes n /
 * n_pack items. pack, place [n]: which pack, and which of its items. As upstream, one item a
 * pack is no choice: item i goes to pack i. */
static void pack_evenly(const int64_t *load, int n, int n_pack, struct mt_arena *scratch, int *pack,
                        int *place)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int most = n / n_pack;
    int *order = mt_draft_cut(scratch, n, sizeof(*order));
    int *n_item = mt_draft_cut(scratch, n_pack, sizeof(*n_item));
    int64_t *sum = mt_draft_cut(scratch, n_pack, sizeof(*sum));
    mt_load_order(load, n, scratch, order);
    for (int p = 0; p < n_pack; ++p) {
        n_item[p] = 0;
        sum[p] = 0;
    }
    for (int i = 0; i < n; ++i) {
        const int item = most == 1 ? i : order[i];
        int best = most == 1 ? i : -1;
        for (int p = 0; p < n_pack && most > 1; ++p) {
            if (n_item[p] < most && (best < 0 || sum[p] < sum[best])) {
                best = p;
            }
        }
        pack[item] = best;
        place[item] = n_item[best]++;
        sum[best] += load[item];
    }
    mt_arena_release(scratch, mark);
}

void mt_eplb_replicate(const int64_t *load, int n, int64_t n_slot, int most, int *n_replica,
                       int *item)
{
    for (int i = 0; i < n; ++i) {
        n_replica[i] = 1;
        if (item != NULL) {
            item[i] = i;
        }
    }
    for (int64_t slot = n; slot < n_slot; ++slot) {
        int best = -1;
        for (int i = 0; i < n; ++i) {
            /* load / n_replica compared without division */
            if (n_replica[i] < most &&
                (best < 0 || load[i] * n_replica[best] > load[best] * n_replica[i])) {
                best = i;
            }
        }
        if (best < 0) {
            return;
        }
        ++n_replica[best];
        if (item != NULL) {
            item[slot] = best;
        }
    }
}

/* The slots of one node, whose experts are mine [n]; expert [n_slot] written. Ties in
 * the packing follow the order in which replicas were granted. */
static void pack_node(const int64_t *load, const int *mine, int n, int n_slot, int n_rank,
                      struct mt_arena *scratch, int *expert)
{
    const int64_t mark = mt_arena_mark(scratch);
    int *n_replica = mt_draft_cut(scratch, n, sizeof(*n_replica));
    int *item = mt_draft_cut(scratch, n_slot, sizeof(*item)); /* of each replica */
    int *rank = mt_draft_cut(scratch, n_slot, sizeof(*rank));
    int *place = mt_draft_cut(scratch, n_slot, sizeof(*place));
    int64_t *some = mt_draft_cut(scratch, n, sizeof(*some));
    int64_t *share = mt_draft_cut(scratch, n_slot, sizeof(*share));
    for (int i = 0; i < n; ++i) {
        some[i] = load[mine[i]];
    }
    mt_eplb_replicate(some, n, n_slot, n_slot, n_replica, item);
    for (int slot = 0; slot < n_slot; ++slot) {
        share[slot] = some[item[slot]] * SCALE / n_replica[item[slot]];
    }
    pack_evenly(share, n_slot, n_rank, scratch, rank, place);
    for (int slot = 0; slot < n_slot; ++slot) {
        expert[rank[slot] * (n_slot / n_rank) + place[slot]] = mine[item[slot]];
    }
    mt_arena_release(scratch, mark);
}

void mt_eplb_pack(const int64_t *load, const struct mt_eplb_shape *shape, struct mt_arena *scratch,
                  int *expert)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_group = shape->n_group;
    MT_ASSERT(shape->n_expert % n_group == 0 && n_group % shape->n_node == 0);
    MT_ASSERT(shape->n_rank % shape->n_node == 0 && shape->n_slot % shape->n_rank == 0);
    MT_ASSERT(shape->n_slot >= shape->n_expert);
    const int group_size = shape->n_expert / n_group;
    const int node_experts = shape->n_expert / shape->n_node;
    const int node_slots = shape->n_slot / shape->n_node;
    int64_t *group_load = mt_draft_cut(scratch, n_group, sizeof(*group_load));
    int *node = mt_draft_cut(scratch, n_group, sizeof(*node));
    int *place = mt_draft_cut(scratch, n_group, sizeof(*place));
    int *member = mt_draft_cut(scratch, shape->n_expert, sizeof(*member)); /* by node, its order */
    for (int group = 0; group < n_group; ++group) {
        group_load[group] = 0;
        for (int i = 0; i < group_size; ++i) {
            group_load[group] += load[group * group_size + i];
        }
    }
    pack_evenly(group_load, n_group, shape->n_node, scratch, node, place);
    for (int e = 0; e < shape->n_expert; ++e) {
        const int group = e / group_size;
        member[node[group] * node_experts + place[group] * group_size + e % group_size] = e;
    }
    for (int m = 0; m < shape->n_node; ++m) {
        pack_node(load, &member[(int64_t)m * node_experts], node_experts, node_slots,
                  shape->n_rank / shape->n_node, scratch, &expert[(int64_t)m * node_slots]);
    }
    mt_arena_release(scratch, mark);
}
