#include "placement/cluster.h"

#include "base/memory.h"
#include "base/ps.h"
#include "base/size.h"

#include <string.h>

enum mt_status mt_cluster_init(struct mt_cluster *cluster, int n_rank, const int *node)
{
    enum mt_status status = MT_OK;
    MT_ASSERT(n_rank >= 1);
    *cluster = (struct mt_cluster){.n_rank = n_rank};
    for (int r = 0; r < n_rank; ++r) {
        MT_ASSERT(node[r] >= 0 && node[r] <= cluster->n_node);
        cluster->n_node += node[r] == cluster->n_node ? 1 : 0;
    }
    MT_TRY_GOTO(MT_ALLOCATE(cluster->node, n_rank, "cluster"));
    MT_TRY_GOTO(MT_ALLOCATE(cluster->node_start, (int64_t)cluster->n_node + 1, "cluster"));
    MT_TRY_GOTO(MT_ALLOCATE(cluster->member, n_rank, "cluster"));
    memcpy(cluster->node, node, (size_t)n_rank * sizeof(*node));
    int at = 0;
    for (int m = 0; m < cluster->n_node; ++m) {
        for (int r = 0; r < n_rank; ++r) {
            if (node[r] == m) {
                cluster->member[at++] = r;
            }
        }
        cluster->node_start[m + 1] = at;
    }
    return MT_OK;
cleanup:
    mt_cluster_clear(cluster);
    return status;
}

void mt_cluster_clear(struct mt_cluster *cluster)
{
    mt_memory_free(cluster->node);
    mt_memory_free(cluster->node_start);
    mt_memory_free(cluster->member);
    *cluster = (struct mt_cluster){0};
}

int64_t mt_cluster_link_kib_ps(const struct mt_cluster *cluster, int node)
{
    const struct mt_costs *costs = &cluster->costs;
    return mt_ps_link_kib(costs->kib_ps[MT_LEVEL_NETWORK], costs->alone_kib_ps,
                          mt_ceil_div(cluster->n_rank, cluster->n_node),
                          cluster->node_start[node + 1] - cluster->node_start[node]);
}

int64_t mt_costs_message_ps(const struct mt_costs *costs, enum mt_level level, int64_t n_bytes)
{
    enum { KIB = 1024 };
    return costs->alpha_ps[level] + (n_bytes / KIB) * costs->kib_ps[level] +
           (n_bytes % KIB) * costs->kib_ps[level] / KIB;
}
