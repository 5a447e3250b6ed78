#include "comm/comm.h"

#include "base/job.h"
#include "base/memory.h"

enum { DEFAULT_SMALL_ITEMS = 4096 };

enum mt_status mt_comm_init(struct mt_comm *comm, int rank, struct mt_topology *topology,
                            struct mt_transport *transport)
{
    MT_ASSERT(rank >= 0 && rank < topology->n_rank);
    *comm = (struct mt_comm){.rank = rank,
                             .topology = *topology,
                             .transport = transport,
                             .slice_bytes = MT_TRANSPORT_MAX_BYTES};
    *topology = (struct mt_topology){0};
    const enum mt_status status = mt_comm_reserve_small(comm, DEFAULT_SMALL_ITEMS);
    if (status != MT_OK) {
        mt_comm_clear(comm);
    }
    return status;
}

enum mt_status mt_comm_init_mpi(struct mt_comm *comm, MPI_Comm world, int ranks_per_node)
{
    struct mt_topology topology = {0};
    struct mt_transport *transport = NULL;
    int rank = 0;
    *comm = (struct mt_comm){0};
    MT_TRY_MPI(MPI_Comm_rank(world, &rank));
    MT_TRY(mt_topology_agree(world, mt_topology_discover(&topology, world, ranks_per_node)));
    const enum mt_status status = mt_transport_create_mpi(world, &transport);
    if (status != MT_OK) {
        mt_topology_clear(&topology);
        return status;
    }
    return mt_comm_init(comm, rank, &topology, transport);
}

enum mt_status mt_comm_rehearse(struct mt_comm *comm, int64_t alpha_us)
{
    enum { NS_PER_US = 1000 };
    if (alpha_us == 0) {
        return MT_OK;
    }
    return mt_transport_mpi_rehearse(comm->transport, comm->topology.n_rank, comm->rank,
                                     comm->topology.node, alpha_us * NS_PER_US);
}

void mt_comm_set_device(struct mt_comm *comm, struct mt_transport *device)
{
    MT_ASSERT(comm->device == NULL && device->verbs->plan != NULL);
    comm->device = device;
}

void mt_comm_time_by(struct mt_comm *comm, struct mt_device *device)
{
    comm->timed = device;
}

void mt_comm_clear(struct mt_comm *comm)
{
    mt_exec_destroy(comm->small_exec);
    mt_plan_clear(&comm->small_plan);
    mt_memory_free(comm->small_stage);
    mt_transport_destroy(comm->device); /* which asks the other one's ranks */
    mt_transport_destroy(comm->transport);
    mt_topology_clear(&comm->topology);
    *comm = (struct mt_comm){0};
}

void mt_comm_reset_traffic(struct mt_comm *comm)
{
    comm->n_traffic = 0;
}
