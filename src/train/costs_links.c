/* What a message costs at each level: ping-pong between partners.
 *
 * Other work on the machine only ever lengthens a trip, so the least of several medians is nearest
 * to the link; small and large messages take turns, so that a disturbance meets both. With one
 * median each, on 2 cores under a load of 10, a large message could come out below a small one, and
 * `auto` then sent rows by two levels because the way inside the node seemed free (2026-11-22). */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "comm/ping_pong.h"
#include "train/costs.h"

enum { LARGE_KIB = MT_PING_LARGE_BYTES >> 10, LONG_KIB = MT_PING_LONG_BYTES >> 10 };
enum { N_TRIP = 3, MIN_ROUND = 6, MAX_ROUND = 16, N_COLUMN = 4 };
static const int64_t ENOUGH_NS = 500000000; /* of one level, on slow links */

/* Who sends: every rank that has a partner; the first of each node only. */
enum who { ALL, FIRST };

struct links {
    struct mt_ping_pong ping_pong;
    struct mt_comm *comm;
    enum mt_level level;
    enum who who;
    int64_t *all;    /* [R, N_COLUMN] of all ranks */
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

/* Of this measurement; one rank alone is its own. */
static int partner_of(const struct links *p, int rank)
{
    const struct mt_topology *topology = &p->comm->topology;
    if (topology->n_rank == 1) {
        return rank;
    }
    return p->who == ALL || topology->local[rank] == 0 ? mt_costs_partner(topology, rank, p->level)
                                                       : -1;
}

/* Most ranks of a node that have a partner at that level. */
static int most_partners(const struct mt_topology *topology, enum mt_level level)
{
    int most = 0;
    for (int node = 0; node < topology->n_node; ++node) {
        int n = 0;
        for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
            n += mt_costs_partner(topology, topology->member[i], level) >= 0 ? 1 : 0;
        }
        most = n > most ? n : most;
    }
    return most;
}

/* Median over the ranks that have a partner, of column `column` of all [R, N_COLUMN]. */
static int64_t median_over_ranks(struct links *p, int column)
{
    int n = 0;
    for (int rank = 0; rank < p->comm->topology.n_rank; ++rank) {
        if (partner_of(p, rank) >= 0) {
            p->sorted[n++] = p->all[N_COLUMN * rank + column];
        }
    }
    return mt_median_i64(p->sorted, n);
}

void mt_costs_fit_link(int64_t small_ps, int64_t large_ps, int64_t long_ps, int64_t *alpha_ps,
                       int64_t *kib_ps)
{
    enum { LEAST_SHARE = 8 };
    const int64_t least_ps = large_ps / LEAST_SHARE / LARGE_KIB;
    const int64_t beyond_ps = (long_ps - large_ps) / (LONG_KIB - LARGE_KIB);
    *alpha_ps = mt_min_i64(small_ps, large_ps);
    *kib_ps = mt_max_i64(1, mt_max_i64(beyond_ps, least_ps));
}

int64_t mt_costs_fit_alone(int64_t alone_kib_ps, int64_t kib_ps, int64_t n_member)
{
    return mt_max_i64(mt_min_i64(alone_kib_ps, kib_ps), mt_max_i64(1, kib_ps / n_member));
}

/* Another round has found nothing much faster. */
static bool is_settled(int64_t before_ps, int64_t now_ps)
{
    enum { SHARE = 16 };
    return before_ps - now_ps <= before_ps / SHARE;
}

/* The columns of one rank: the least that messages took, and the time spent. */
enum { SMALL_PS, LARGE_PS, LONG_PS, SPENT_NS };

static enum mt_status measure_round(struct links *p, int partner, int64_t mine[N_COLUMN])
{
    static const int64_t n_bytes[] = {MT_PING_SMALL_BYTES, MT_PING_LARGE_BYTES, MT_PING_LONG_BYTES};
    /* Rows travel both ways at once. Of two ranks in turn on one link each would find it half free:
     * 9.1 us a KiB where 1 Gbit/s allows them 16.4 (2026-11-22). */
    const enum mt_ping_way way =
        p->level == MT_LEVEL_NETWORK ? MT_PING_BOTH_AT_ONCE : MT_PING_IN_TURN;
    const int64_t start_ns = mt_clock_ns();
    for (int i = SMALL_PS; i <= LONG_PS; ++i) {
        int64_t message_ps = 0;
        MT_TRY(mt_ping_pong_time(&p->ping_pong, partner, i == SMALL_PS ? MT_PING_IN_TURN : way,
                                 n_bytes[i], N_TRIP, &message_ps));
        mine[i] = mt_min_i64(mine[i], message_ps);
    }
    mine[SPENT_NS] += mt_clock_ns() - start_ns;
    return mt_comm_gather_i64(p->comm, mine, N_COLUMN, p->all);
}

/* All ranks see the same columns, so all measure equally long. */
static enum mt_status measure(struct links *p, int64_t *alpha_ps, int64_t *kib_ps)
{
    const int partner = partner_of(p, p->comm->rank);
    int64_t mine[N_COLUMN] = {INT64_MAX, INT64_MAX, INT64_MAX, 0};
    int64_t small_ps = INT64_MAX;
    int64_t large_ps = INT64_MAX;
    int64_t long_ps = INT64_MAX;
    bool is_done = false;
    for (int round = 1; round <= MAX_ROUND && !is_done; ++round) {
        const int64_t small_before = small_ps;
        const int64_t large_before = large_ps;
        const int64_t long_before = long_ps;
        MT_TRY(measure_round(p, partner, mine));
        small_ps = median_over_ranks(p, SMALL_PS);
        large_ps = median_over_ranks(p, LARGE_PS);
        long_ps = median_over_ranks(p, LONG_PS);
        is_done = p->all[SPENT_NS] > ENOUGH_NS ||
                  (round >= MIN_ROUND && is_settled(small_before, small_ps) &&
                   is_settled(large_before, large_ps) && is_settled(long_before, long_ps));
    }
    mt_costs_fit_link(small_ps, large_ps, long_ps, alpha_ps, kib_ps);
    return MT_OK;
}

static enum mt_status measure_level(struct links *p, enum mt_level level, struct mt_costs *costs)
{
    p->level = level;
    p->who = ALL;
    return measure(p, &costs->alpha_ps[level], &costs->kib_ps[level]);
}

/* Between nodes, while the others of the node are silent. */
static enum mt_status measure_alone(struct links *p, struct mt_costs *costs)
{
    const int n_member = most_partners(&p->comm->topology, MT_LEVEL_NETWORK);
    int64_t alpha_ps = 0;
    costs->alone_kib_ps = costs->kib_ps[MT_LEVEL_NETWORK];
    if (n_member <= 1) {
        return MT_OK;
    }
    p->level = MT_LEVEL_NETWORK;
    p->who = FIRST;
    MT_TRY(measure(p, &alpha_ps, &costs->alone_kib_ps));
    costs->alone_kib_ps =
        mt_costs_fit_alone(costs->alone_kib_ps, costs->kib_ps[MT_LEVEL_NETWORK], n_member);
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
    const bool has_network = most_partners(topology, MT_LEVEL_NETWORK) > 0;
    const bool has_node = most_partners(topology, MT_LEVEL_NODE) > 0 || !has_network;
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
    return measure_alone(p, costs);
}

static enum mt_status allocate(struct links *p)
{
    const int n_rank = p->comm->topology.n_rank;
    MT_TRY(mt_ping_pong_init(&p->ping_pong, p->comm));
    MT_TRY(MT_ALLOCATE(p->all, N_COLUMN * (int64_t)n_rank, "measuring links"));
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
