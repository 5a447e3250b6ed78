/* What the exchanges that know nodes share: who passes on for whom, and sums over the matrix of
 * bytes. Internal to the all-to-alls of comm/.
 *
 * bytes [R,R]: bytes[s * R + t] go from source s to target t; the same on every rank. */
#ifndef MT_COMM_EXCHANGE_H
#define MT_COMM_EXCHANGE_H

#include "comm/plan.h"
#include "comm/topology.h"

#include <stdbool.h>

/* The member of `node` that works for `rank`, a rank of another node: the one of the same local
 * index, modulo the node's size where nodes are uneven. */
static inline int mt_rail_rank(const struct mt_topology *topology, int rank, int node)
{
    const int size = mt_topology_node_size(topology, node);
    return topology->member[topology->node_start[node] + topology->local[rank] % size];
}

/* Does `worker` work for `rank`, which is in another node? */
static inline bool mt_works_for(const struct mt_topology *topology, int worker, int rank)
{
    const int node = topology->node[worker];
    return topology->node[rank] != node && mt_rail_rank(topology, rank, node) == worker;
}

/* Sum of bytes[s][target] over s in [from, to). */
int64_t mt_bytes_to(const struct mt_topology *topology, const int64_t *bytes, int target, int from,
                    int to);
/* The same of the sources that are not in `node`. */
int64_t mt_bytes_to_from_outside(const struct mt_topology *topology, const int64_t *bytes,
                                 int target, int node, int from, int to);
/* Sum of bytes[source][t] over t in [from, to), and the part of it that leaves the source's
 * node. */
int64_t mt_bytes_from(const struct mt_topology *topology, const int64_t *bytes, int source,
                      int from, int to);
int64_t mt_bytes_leaving(const struct mt_topology *topology, const int64_t *bytes, int source,
                         int from, int to);
/* Sum over the members t of `node` of bytes[source][t]. */
int64_t mt_bytes_to_node(const struct mt_topology *topology, const int64_t *bytes, int source,
                         int node);
/* Sum over the first n_member members s of `node` of bytes[s][target]. */
int64_t mt_bytes_of_members(const struct mt_topology *topology, const int64_t *bytes, int node,
                            int n_member, int target);

/* Members [first, end) of `node`, by local index, that are consecutive ranks: the end of the run
 * that begins at `first`. Their blocks lie one after another wherever blocks are in rank order. */
int mt_member_run_end(const struct mt_topology *topology, int node, int first);

/* Consecutive ranks outside of `node`: the first one from `rank` on, or R. */
int mt_outside_from(const struct mt_topology *topology, int node, int rank);
/* The end of the run that begins at `first`. */
int mt_outside_run_end(const struct mt_topology *topology, int node, int first);

/* Blocks that stay in the node of `rank`, straight to their targets: SEND holds a block per target
 * in rank order, RECV one per source. 2 (k-1) + 1 ops, k ranks in the node. */
void mt_plan_inside(struct mt_plan *plan, const struct mt_topology *topology, int rank, int round,
                    const int64_t *bytes);

/* Copies one after another that may be one: of neighbours from neighbours. */
struct mt_run {
    struct mt_place to, from;
    int64_t n_bytes;
};
void mt_run_copy(struct mt_plan *plan, int round, struct mt_run *run, struct mt_place to,
                 struct mt_place from, int64_t n_bytes);
void mt_run_end(struct mt_plan *plan, int round, struct mt_run *run);

#endif
