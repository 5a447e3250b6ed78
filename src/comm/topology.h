/* Which rank is where: nodes, local indices, groups. Plain data, the same on every rank. */
#ifndef MT_COMM_TOPOLOGY_H
#define MT_COMM_TOPOLOGY_H

#include "base/status.h"

#include <mpi.h>
#include <stdint.h>

/* Invariants: n_rank >= 1; nodes are numbered by their lowest rank; the members of a node are in
 * rank order; every rank is in exactly one node. Nodes may be uneven. */
struct mt_topology {
    int n_rank, n_node;
    int *node;       /* [R] node of a rank */
    int *local;      /* [R] index of a rank within its node */
    int *node_start; /* [M+1] into member */
    int *member;     /* [R] ranks by node; a node's leader is its first member */
};

/* Nodes of `ranks_per_node` consecutive ranks (the last may be smaller); 0: one node. */
enum mt_status mt_topology_init(struct mt_topology *topology, int n_rank, int ranks_per_node);
/* From a node id per rank [n_rank], any numbering. */
enum mt_status mt_topology_init_nodes(struct mt_topology *topology, int n_rank, const int *node);
/* Where `world` is all ranks of the job, they agree: one that failed keeps the others from going on
 * into a collective without it. A part of the ranks cannot; there each has its own status. */
enum mt_status mt_topology_agree(MPI_Comm world, enum mt_status status);

/* Collective over `world`: ranks that share memory form a node, unless ranks_per_node > 0. */
enum mt_status mt_topology_discover(struct mt_topology *topology, MPI_Comm world,
                                    int ranks_per_node);
void mt_topology_clear(struct mt_topology *topology);
void mt_topology_check(const struct mt_topology *topology); /* asserts the invariants */

static inline int mt_topology_node_size(const struct mt_topology *topology, int node)
{
    return topology->node_start[node + 1] - topology->node_start[node];
}

static inline int mt_topology_leader(const struct mt_topology *topology, int node)
{
    return topology->member[topology->node_start[node]];
}

#endif
