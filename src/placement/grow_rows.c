/* Where the rows of instances come from: what their exchange takes depends on it. As
 * mt_settle_sources splits them: an instance takes rows of its own rank first, then its share of
 * its node's, then others. */
#include "placement/grow.h"

#include "base/size.h"
#include "placement/ps.h"

#include <string.h>

enum { KIB = 1024, PARTS = 4096, UNIT = MT_GROW_SOURCE };

/* to [n] += from [n]; returns the sum of from. */
static int64_t add_all(int64_t *restrict to, const int64_t *restrict from, int n)
{
    int64_t sum = 0;
    for (int i = 0; i < n; ++i) {
        to[i] += from[i];
        sum += from[i];
    }
    return sum;
}

void mt_grow_count(struct mt_grow_sources *sources, const struct mt_cluster *cluster, int n_expert,
                   const int64_t *counts, struct mt_arena *arena)
{
    const int64_t word = (int64_t)sizeof(int64_t);
    const size_t n_byte = (size_t)n_expert * sizeof(int64_t);
    *sources = (struct mt_grow_sources){.counts = counts};
    sources->total = mt_arena_cut(arena, n_expert * word);
    sources->token = mt_arena_cut(arena, cluster->n_rank * word);
    sources->node = mt_arena_cut(arena, (int64_t)cluster->n_node * n_expert * word);
    memset(sources->total, 0, n_byte);
    for (int node = 0; node < cluster->n_node; ++node) {
        int64_t *of_node = &sources->node[(int64_t)node * n_expert];
        memset(of_node, 0, n_byte);
        for (int at = cluster->node_start[node]; at < cluster->node_start[node + 1]; ++at) {
            const int64_t rank = cluster->member[at];
            sources->token[rank] = add_all(of_node, &counts[rank * n_expert], n_expert);
        }
        (void)add_all(sources->total, of_node, n_expert);
    }
}

void mt_grow_add_rows(const struct mt_grow *grow, int expert, int rank, int64_t n_row,
                      int64_t n_beside, int sign, struct mt_grow_rank *to)
{
    const struct mt_grow_sources *sources = &grow->sources;
    const struct mt_cluster *cluster = grow->cluster;
    const int node = cluster->node[rank];
    int64_t n_own = 0;
    int64_t n_near = 0; /* of the node, own ones among them */
    if (sources->counts != NULL) {
        n_own = sources->counts[(int64_t)rank * grow->flow->n_expert + expert];
        n_near = sources->node[(int64_t)node * grow->flow->n_expert + expert];
    } else {
        n_own = grow->flow->total[expert] / cluster->n_rank;
        n_near = n_own * (cluster->node_start[node + 1] - cluster->node_start[node]);
    }
    if (n_beside > 0 && n_row > 0) {
        n_near = (n_near * (n_row * PARTS / (n_row + n_beside))) / PARTS;
    }
    n_own = mt_min_i64(n_own, n_row);
    n_near = mt_max_i64(n_own, mt_min_i64(n_row, n_near));
    to->n_in[MT_LEVEL_NODE] += sign * (n_near - n_own);
    to->n_in[MT_LEVEL_NETWORK] += sign * (n_row - n_near);
    to->n_source += sign * (n_row - n_own) * grow->source[expert];
}

/* An expert with several instances. */
static void list_several(struct mt_grow *grow, int expert)
{
    const struct mt_flow_instance *all = grow->flow->instance;
    const int *node = grow->cluster->node;
    const int first = grow->flow->of_expert[expert];
    for (int i = first; i >= 0; i = all[i].next_of_expert) {
        grow->in_node[node[all[i].rank]] += all[i].quota;
    }
    for (int i = first; i >= 0; i = all[i].next_of_expert) {
        mt_grow_add_rows(grow, expert, all[i].rank, all[i].quota,
                         grow->in_node[node[all[i].rank]] - all[i].quota, 1,
                         &grow->rank_base[all[i].rank]);
    }
    for (int i = first; i >= 0; i = all[i].next_of_expert) {
        grow->in_node[node[all[i].rank]] = 0;
    }
}

/* What sources send: by node, and the largest over the mean one. */
static void list_sources(struct mt_grow *grow)
{
    const struct mt_cluster *cluster = grow->cluster;
    const int64_t *token = grow->sources.token;
    const int64_t mean = mt_ceil_div(grow->flow->n_row, cluster->n_rank);
    int64_t most = mean;
    for (int node = 0; node < cluster->n_node; ++node) {
        const int start = cluster->node_start[node];
        const int end = cluster->node_start[node + 1];
        grow->node_token[node] = token == NULL ? mean * (end - start) : 0;
        for (int at = start; at < end && token != NULL; ++at) {
            grow->node_token[node] += token[cluster->member[at]];
            most = mt_max_i64(most, token[cluster->member[at]]);
        }
    }
    grow->ragged_k = mean == 0 ? KIB : mt_ps_times(most, KIB) / mean;
}

void mt_grow_list_rows(struct mt_grow *grow)
{
    const struct mt_flow *flow = grow->flow;
    for (int rank = 0; rank < flow->n_rank; ++rank) {
        memset(grow->rank_base[rank].n_in, 0, sizeof(grow->rank_base[rank].n_in));
        grow->rank_base[rank].n_source = 0;
    }
    list_sources(grow);
    for (int expert = 0; expert < flow->n_expert; ++expert) {
        const int64_t n_row = mt_max_i64(flow->total[expert], flow->n_rank);
        grow->source[expert] = mt_max_i64(1, (int64_t)flow->n_rank * UNIT / n_row);
        const struct mt_flow_instance *only = &flow->instance[flow->of_expert[expert]];
        if (only->next_of_expert >= 0) {
            list_several(grow, expert);
        } else {
            mt_grow_add_rows(grow, expert, only->rank, only->quota, 0, 1,
                             &grow->rank_base[only->rank]);
        }
    }
}
