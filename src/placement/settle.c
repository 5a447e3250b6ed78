/* From counts to who computes what: quotas of instances, then of sources. */
#include "placement/settle.h"

#include "base/size.h"
#include "placement/flow.h"

#include <string.h>

int64_t mt_settle(const struct mt_placement *placement, const int64_t *total,
                  struct mt_arena *scratch, int64_t *quota)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_instance = mt_placement_n_instance(placement);
    struct mt_flow flow;
    mt_flow_init(&flow, placement, n_instance, total, scratch);
    mt_flow_start(&flow);
    const int64_t largest = mt_flow_settle(&flow);
    for (int i = 0; i < n_instance; ++i) {
        quota[i] = flow.instance[i].quota;
    }
    mt_arena_release(scratch, mark);
    return largest;
}

/* One expert's rows on their way: what is still to be given. */
struct share {
    const struct mt_cluster *cluster;
    const int *rank;    /* [n] of the instances */
    int64_t *room;      /* [n] what each instance still takes */
    int64_t *left;      /* [R] rows of each source that have no instance yet */
    int64_t *quota;     /* [R, n_instance], at the expert's first instance */
    int64_t n_instance; /* length of a row of quota */
    int n;
    /* of nodes that have an instance */
    int64_t *node_room; /* [M] */
    int64_t *node_left; /* [M] */
    int *cursor;        /* [M] in the cluster's members: sources before it have nothing left */
};

static int64_t give(struct share *share, int source, int i, int64_t most)
{
    const int64_t n_row = mt_min_i64(share->left[source], most);
    if (n_row > 0) {
        share->left[source] -= n_row;
        share->room[i] -= n_row;
        share->quota[source * share->n_instance + i] += n_row;
    }
    return n_row;
}

/* What nodes can take of their own rows, and how many they have. */
static void count_nodes(struct share *share)
{
    const struct mt_cluster *cluster = share->cluster;
    for (int i = 0; i < share->n; ++i) {
        share->cursor[cluster->node[share->rank[i]]] = -1;
    }
    for (int i = 0; i < share->n; ++i) {
        const int node = cluster->node[share->rank[i]];
        if (share->cursor[node] < 0) {
            share->cursor[node] = cluster->node_start[node];
            share->node_room[node] = 0;
            share->node_left[node] = 0;
            for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
                share->node_left[node] += share->left[cluster->member[at]];
            }
        }
        share->node_room[node] += share->room[i];
    }
}

/* Rows of the instance's node, at most so many. */
static void give_near(struct share *share, int i, int64_t most)
{
    const struct mt_cluster *cluster = share->cluster;
    const int node = cluster->node[share->rank[i]];
    int *cursor = &share->cursor[node];
    while (most > 0 && *cursor < cluster->node_start[node + 1]) {
        const int source = cluster->member[*cursor];
        most -= give(share, source, i, most);
        *cursor += share->left[source] == 0 ? 1 : 0;
    }
}

/* Own ranks first, then own nodes, then whoever is left. Instances of a node share its rows by what
 * they still take, in 1/4096: did the first take all, the others would hear from far only, and the
 * busiest port would carry a seventh more in nodes of eight. */
static void share_out(struct share *share)
{
    enum { SHIFT = 12 };
    const struct mt_cluster *cluster = share->cluster;
    for (int i = 0; i < share->n; ++i) {
        (void)give(share, share->rank[i], i, share->room[i]);
    }
    count_nodes(share);
    for (int i = 0; i < share->n; ++i) {
        const int node = cluster->node[share->rank[i]];
        const int64_t near = mt_min_i64(share->node_left[node], share->node_room[node]);
        if (near > 0) {
            const int64_t part = mt_min_i64(share->room[i], near) * (1 << SHIFT);
            const int64_t even = (near * (1 << SHIFT) / share->node_room[node]) * share->room[i];
            give_near(share, i, mt_min_i64(part, even) >> SHIFT);
        }
    }
    for (int i = 0; i < share->n; ++i) {
        give_near(share, i, share->room[i]);
    }
    int source = 0;
    for (int i = 0; i < share->n; ++i) {
        while (share->room[i] > 0) {
            MT_ASSERT(source < cluster->n_rank);
            (void)give(share, source, i, share->room[i]);
            source += share->left[source] == 0 ? 1 : 0;
        }
    }
}

/* Experts with one instance have no choice: their rows are copied in runs of such experts. */
static void copy_single(const struct mt_placement *placement, const int64_t *counts, int64_t *quota)
{
    const int n_expert = placement->n_expert;
    const int *start = placement->instance_start;
    for (int64_t source = 0; source < placement->n_rank; ++source) {
        const int64_t *from = &counts[source * n_expert];
        int64_t *to = &quota[source * start[n_expert]];
        for (int expert = 0; expert < n_expert; ++expert) {
            const int n = start[expert + 1] - start[expert];
            if (n == 1) {
                to[start[expert]] = from[expert];
            } else {
                memset(&to[start[expert]], 0, (size_t)n * sizeof(to[0]));
            }
        }
    }
}

void mt_settle_sources(const struct mt_cluster *cluster, const struct mt_placement *placement,
                       const int64_t *counts, const int64_t *instance_quota,
                       struct mt_arena *scratch, int64_t *quota)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = placement->n_rank;
    const int n_expert = placement->n_expert;
    const int64_t word = (int64_t)sizeof(int64_t);
    struct share share = {.cluster = cluster, .n_instance = mt_placement_n_instance(placement)};
    share.room = mt_arena_cut(scratch, n_rank * word);
    share.left = mt_arena_cut(scratch, n_rank * word);
    share.node_room = mt_arena_cut(scratch, cluster->n_node * word);
    share.node_left = mt_arena_cut(scratch, cluster->n_node * word);
    share.cursor = mt_arena_cut(scratch, cluster->n_node * (int64_t)sizeof(int));
    copy_single(placement, counts, quota);
    for (int expert = 0; expert < n_expert; ++expert) {
        const int start = placement->instance_start[expert];
        share.n = placement->instance_start[expert + 1] - start;
        if (share.n == 1) {
            continue;
        }
        share.rank = &placement->rank[start];
        share.quota = &quota[start];
        memcpy(share.room, &instance_quota[start], (size_t)share.n * sizeof(*share.room));
        for (int64_t source = 0; source < n_rank; ++source) {
            share.left[source] = counts[source * n_expert + expert];
        }
        share_out(&share);
    }
    mt_arena_release(scratch, mark);
}
