/* What a message costs at each level: ping-pong between partners. */
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/costs.h"
#include "train/ping_pong.h"

#include <stdlib.h>

enum { LARGE_KIB = MT_PING_LARGE_BYTES >> 10 };
enum { N_SMALL = 33, N_LARGE = 9 };

struct links {
    struct mt_ping_pong ping_pong;
    struct mt_comm *comm;
    int64_t *all;    /* [R, 2] of all ranks */
    int64_t *sorted; /* [R] */
};

int mt_costs_partner(const struct mt_topology *topology, int rank, enum mt_level level)
{
    const int local = topology->local[rank];
    const int node = topology->node[rank];
    const int other_local = level == MT_LEVEL_NODE ? local ^ 1 : local;
    const int other_node = level == MT_LEVEL_NETWORK ? node ^ 1 : node;
    MT_ASSERT(level == MT_LEVEL_NODE || level == MT_LEVEL_NETWORK);
    if (other_node >= topology->n_node ||
        other_local >= mt_topology_node_size(topology, other_node)) {
        return -1;
    }
    return topology->member[topology->node_start[other_node] + other_local];
}

static int compare_i64(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left;
    const int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t mt_costs_median(int64_t *value, int n)
{
    if (n == 0) {
        return 0;
    }
    qsort(value, (size_t)n, sizeof(*value), compare_i64);
    return value[(n - 1) / 2];
}

static bool has_level(const struct mt_topology *topology, enum mt_level level)
{
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        if (mt_costs_partner(topology, rank, level) >= 0) {
            return true;
        }
    }
    return false;
}

/* Median over the ranks that have a partner, of column `column` of all [R,2]. alone: one rank only,
 * which is its own partner. */
static int64_t median_over_ranks(struct links *p, enum mt_level level, bool alone, int column)
{
    const struct mt_topology *topology = &p->comm->topology;
    int n = 0;
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        if (alone || mt_costs_partner(topology, rank, level) >= 0) {
            p->sorted[n++] = p->all[2 * rank + column];
        }
    }
    return mt_costs_median(p->sorted, n);
}

static enum mt_status measure_level(struct links *p, enum mt_level level, struct mt_costs *costs)
{
    const bool alone = p->comm->topology.n_rank == 1;
    const int rank = p->comm->rank;
    const int partner = alone ? rank : mt_costs_partner(&p->comm->topology, rank, level);
    int64_t mine[2] = {0, 0};
    MT_TRY(mt_ping_pong_time(&p->ping_pong, partner, MT_PING_SMALL_BYTES, N_SMALL, &mine[0]));
    MT_TRY(mt_ping_pong_time(&p->ping_pong, partner, MT_PING_LARGE_BYTES, N_LARGE, &mine[1]));
    MT_TRY(mt_comm_gather_i64(p->comm, mine, 2, p->all));
    const int64_t small_ps = median_over_ranks(p, level, alone, 0);
    const int64_t large_ps = median_over_ranks(p, level, alone, 1);
    costs->alpha_ps[level] = small_ps;
    costs->kib_ps[level] = mt_max_i64(1, (large_ps - small_ps) / LARGE_KIB);
    return MT_OK;
}

static void copy_level(struct mt_costs *costs, enum mt_level to, enum mt_level from)
{
    costs->alpha_ps[to] = costs->alpha_ps[from];
    costs->kib_ps[to] = costs->kib_ps[from];
}

static enum mt_status measure_levels(struct links *p, struct mt_costs *costs)
{
    const struct mt_topology *topology = &p->comm->topology;
    const bool has_network = has_level(topology, MT_LEVEL_NETWORK);
    const bool has_node = has_level(topology, MT_LEVEL_NODE) || !has_network;
    costs->alpha_ps[MT_LEVEL_RANK] = costs->kib_ps[MT_LEVEL_RANK] = 0;
    if (has_node) {
        MT_TRY(measure_level(p, MT_LEVEL_NODE, costs));
    }
    if (has_network) {
        MT_TRY(measure_level(p, MT_LEVEL_NETWORK, costs));
    }
    if (!has_network) {
        copy_level(costs, MT_LEVEL_NETWORK, MT_LEVEL_NODE);
    } else if (!has_node) {
        copy_level(costs, MT_LEVEL_NODE, MT_LEVEL_NETWORK);
    }
    return MT_OK;
}

static enum mt_status allocate(struct links *p)
{
    const int n_rank = p->comm->topology.n_rank;
    MT_TRY(mt_ping_pong_init(&p->ping_pong, p->comm));
    MT_TRY(MT_ALLOCATE(p->all, 2 * (int64_t)n_rank, "measuring links"));
    return MT_ALLOCATE(p->sorted, n_rank, "measuring links");
}

enum mt_status mt_costs_measure_links(struct mt_comm *comm, struct mt_costs *costs)
{
    enum mt_status status = MT_OK;
    struct links p = {.comm = comm};
    MT_TRY_GOTO(mt_job_agree(allocate(&p)));
    MT_TRY_GOTO(measure_levels(&p, costs));
cleanup:
    mt_memory_free(p.sorted);
    mt_memory_free(p.all);
    mt_ping_pong_clear(&p.ping_pong);
    return status;
}
