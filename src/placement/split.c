/* Which instance computes which rows: the split of every source's rows over an expert's
 * instances. */
#include "placement/placement.h"

#include "base/size.h"
#include "placement/settle.h"
#include "placement/split.h"

#include <string.h>

/* How near an instance is to a source: rows stay as near as they can. */
enum nearness { SAME_RANK, SAME_NODE, ANYWHERE };

static enum nearness nearness_of(int source, int rank, const int *node)
{
    if (rank == source) {
        return SAME_RANK;
    }
    return node[rank] == node[source] ? SAME_NODE : ANYWHERE;
}

/* Rows of one source for one expert, evenly over its nearest instances, the remainder to the lower
 * ones. rank, quota: the expert's instances [n]. */
static void split_rows(int source, int64_t n_row, const int *node, const int *rank, int n,
                       int64_t *quota)
{
    enum nearness nearest = ANYWHERE;
    int n_nearest = 0;
    for (int i = 0; i < n; ++i) {
        const enum nearness nearness = nearness_of(source, rank[i], node);
        if (nearness < nearest) {
            nearest = nearness;
            n_nearest = 0;
        }
        n_nearest += nearness == nearest ? 1 : 0;
    }
    int taken = 0;
    for (int i = 0; i < n; ++i) {
        quota[i] = 0;
        if (nearness_of(source, rank[i], node) == nearest) {
            quota[i] = mt_share_start(n_row, n_nearest, taken + 1) -
                       mt_share_start(n_row, n_nearest, taken);
            ++taken;
        }
    }
}

void mt_split_local_first(const struct mt_placement *placement, const int64_t *counts,
                          const int *node, int64_t *quota)
{
    const int64_t n_instance = mt_placement_n_instance(placement);
    for (int source = 0; source < placement->n_rank; ++source) {
        for (int expert = 0; expert < placement->n_expert; ++expert) {
            const int start = placement->instance_start[expert];
            const int n = placement->instance_start[expert + 1] - start;
            const int64_t n_row = counts[(int64_t)source * placement->n_expert + expert];
            int64_t *share = &quota[source * n_instance + start];
            if (n == 1) { /* no choice, and with owners only nothing else */
                share[0] = n_row;
                continue;
            }
            split_rows(source, n_row, node, &placement->rank[start], n, share);
        }
    }
}

void mt_split_check(const struct mt_placement *placement, const int64_t *counts,
                    const int64_t *quota)
{
    const int64_t n_instance = mt_placement_n_instance(placement);
    for (int source = 0; source < placement->n_rank; ++source) {
        for (int expert = 0; expert < placement->n_expert; ++expert) {
            int64_t n_row = 0;
            for (int i = placement->instance_start[expert];
                 i < placement->instance_start[expert + 1]; ++i) {
                MT_ASSERT(quota[source * n_instance + i] >= 0);
                n_row += quota[source * n_instance + i];
            }
            MT_ASSERT(n_row == counts[(int64_t)source * placement->n_expert + expert]);
        }
    }
}

void mt_split_load(const struct mt_placement *placement, const int64_t *quota, int64_t *load)
{
    const int64_t n_instance = mt_placement_n_instance(placement);
    memset(load, 0, (size_t)placement->n_rank * sizeof(load[0]));
    for (int source = 0; source < placement->n_rank; ++source) {
        for (int64_t i = 0; i < n_instance; ++i) {
            load[placement->rank[i]] += quota[source * n_instance + i];
        }
    }
}

void mt_count_rows(int n_rank, int n_expert, const int64_t *counts, int64_t *total, int64_t *token)
{
    memset(total, 0, (size_t)n_expert * sizeof(total[0]));
    for (int64_t source = 0; source < n_rank; ++source) {
        const int64_t *of_source = &counts[source * n_expert];
        int64_t sum = 0;
        for (int64_t expert = 0; expert < n_expert; ++expert) {
            total[expert] += of_source[expert];
            sum += of_source[expert];
        }
        token[source] = sum;
    }
}

void mt_split(enum mt_split_rule rule, const struct mt_cluster *cluster,
              const struct mt_placement *placement, const int64_t *counts, struct mt_arena *scratch,
              int64_t *quota)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t word = (int64_t)sizeof(int64_t);
    if (rule == MT_SPLIT_LOCAL_FIRST) {
        mt_split_local_first(placement, counts, cluster->node, quota);
        return;
    }
    MT_ASSERT(rule == MT_SPLIT_SETTLED);
    int64_t *total = mt_arena_cut(scratch, placement->n_expert * word);
    int64_t *token = mt_arena_cut(scratch, placement->n_rank * word);
    int64_t *settled = mt_arena_cut(scratch, mt_placement_n_instance(placement) * word);
    mt_count_rows(placement->n_rank, placement->n_expert, counts, total, token);
    (void)mt_settle(placement, total, scratch, settled);
    mt_settle_sources(cluster, placement, counts, settled, scratch, quota);
    mt_arena_release(scratch, mark);
}
