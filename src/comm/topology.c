#include "comm/topology.h"

#include "base/job.h"
#include "base/memory.h"

static enum mt_status allocate(struct mt_topology *topology, int n_rank)
{
    enum mt_status status = MT_OK;
    *topology = (struct mt_topology){.n_rank = n_rank};
    MT_TRY_GOTO(MT_ALLOCATE(topology->node, n_rank, "topology"));
    MT_TRY_GOTO(MT_ALLOCATE(topology->local, n_rank, "topology"));
    MT_TRY_GOTO(MT_ALLOCATE(topology->node_start, (int64_t)n_rank + 1, "topology"));
    MT_TRY_GOTO(MT_ALLOCATE(topology->member, n_rank, "topology"));
    return MT_OK;
cleanup:
    mt_topology_clear(topology);
    return status;
}

/* From node [R], numbered by lowest ranks, to everything else. */
static void fill_members(struct mt_topology *topology)
{
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        const int node = topology->node[rank];
        topology->local[rank] = topology->node_start[node + 1];
        ++topology->node_start[node + 1]; /* sizes first */
    }
    for (int node = 0; node < topology->n_node; ++node) {
        topology->node_start[node + 1] += topology->node_start[node];
    }
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        topology->member[topology->node_start[topology->node[rank]] + topology->local[rank]] = rank;
    }
}

enum mt_status mt_topology_init(struct mt_topology *topology, int n_rank, int ranks_per_node)
{
    MT_ASSERT(n_rank >= 1 && ranks_per_node >= 0);
    MT_TRY(allocate(topology, n_rank));
    for (int rank = 0; rank < n_rank; ++rank) {
        topology->node[rank] = ranks_per_node > 0 ? rank / ranks_per_node : 0;
    }
    topology->n_node = topology->node[n_rank - 1] + 1;
    fill_members(topology);
    return MT_OK;
}

enum mt_status mt_topology_init_nodes(struct mt_topology *topology, int n_rank, const int *node)
{
    MT_ASSERT(n_rank >= 1);
    MT_TRY(allocate(topology, n_rank));
    for (int rank = 0; rank < n_rank; ++rank) {
        /* member serves as the list of lowest ranks until fill_members */
        int found = 0;
        while (found < topology->n_node && node[topology->member[found]] != node[rank]) {
            ++found;
        }
        if (found == topology->n_node) {
            topology->member[found] = rank;
            ++topology->n_node;
        }
        topology->node[rank] = found;
    }
    fill_members(topology);
    return MT_OK;
}

/* leader [R]: for every rank, the lowest rank that it shares memory with. */
static enum mt_status find_leaders(MPI_Comm world, int rank, int *leader)
{
    MPI_Comm node = MPI_COMM_NULL;
    int mine = rank;
    MT_TRY_MPI(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node));
    const int code = MPI_Bcast(&mine, 1, MPI_INT, 0, node);
    (void)MPI_Comm_free(&node);
    MT_TRY_MPI(code);
    MT_TRY_MPI(MPI_Allgather(&mine, 1, MPI_INT, leader, 1, MPI_INT, world));
    return MT_OK;
}

enum mt_status mt_topology_agree(MPI_Comm world, enum mt_status status)
{
    int n_rank = 0;
    MT_TRY_MPI(MPI_Comm_size(world, &n_rank));
    return n_rank == mt_job_size() ? mt_job_agree(status) : status;
}

enum mt_status mt_topology_discover(struct mt_topology *topology, MPI_Comm world,
                                    int ranks_per_node)
{
    enum mt_status status = MT_OK;
    int *leader = NULL;
    int rank = 0;
    int n_rank = 0;
    MT_TRY_MPI(MPI_Comm_rank(world, &rank));
    MT_TRY_MPI(MPI_Comm_size(world, &n_rank));
    if (ranks_per_node > 0) {
        return mt_topology_init(topology, n_rank, ranks_per_node);
    }
    MT_TRY(mt_topology_agree(world, MT_ALLOCATE(leader, n_rank, "topology")));
    MT_TRY_GOTO(find_leaders(world, rank, leader));
    MT_TRY_GOTO(mt_topology_init_nodes(topology, n_rank, leader));
cleanup:
    mt_memory_free(leader);
    return status;
}

void mt_topology_clear(struct mt_topology *topology)
{
    mt_memory_free(topology->node);
    mt_memory_free(topology->local);
    mt_memory_free(topology->node_start);
    mt_memory_free(topology->member);
    *topology = (struct mt_topology){0};
}

void mt_topology_check(const struct mt_topology *topology)
{
    MT_ASSERT(topology->n_rank >= 1);
    MT_ASSERT(topology->n_node >= 1 && topology->n_node <= topology->n_rank);
    MT_ASSERT(topology->node_start[0] == 0);
    MT_ASSERT(topology->node_start[topology->n_node] == topology->n_rank);
    for (int node = 0; node < topology->n_node; ++node) {
        MT_ASSERT(mt_topology_node_size(topology, node) >= 1);
        MT_ASSERT(node == 0 ||
                  mt_topology_leader(topology, node - 1) < mt_topology_leader(topology, node));
        for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
            const int rank = topology->member[i];
            MT_ASSERT(rank >= 0 && rank < topology->n_rank);
            MT_ASSERT(topology->node[rank] == node);
            MT_ASSERT(topology->local[rank] == i - topology->node_start[node]);
            MT_ASSERT(i == topology->node_start[node] || topology->member[i - 1] < rank);
        }
    }
}
