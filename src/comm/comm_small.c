/* Small blocking collectives, for counts, losses, norms and flags.
 *
 *     small_stage:  [ block sizes R x i64 | result n_item x 8 | STAGE of the all-reduce ]  */
#include "comm/comm.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>

static const int64_t ITEM_BYTES = 8;

static int64_t stage_bytes(const struct mt_comm *comm, int64_t n_item)
{
    const int64_t n_bytes = n_item * ITEM_BYTES;
    return comm->topology.n_rank * ITEM_BYTES + n_bytes +
           mt_plan_allreduce_stage_bytes(&comm->topology, n_bytes);
}

enum mt_status mt_comm_reserve_small(struct mt_comm *comm, int64_t n_item)
{
    if (comm->small_exec == NULL) {
        const int64_t max_op = mt_max_i64(mt_plan_allreduce_max_op(&comm->topology),
                                          mt_plan_allgatherv_max_op(comm->topology.n_rank));
        MT_TRY(mt_plan_init(&comm->small_plan, max_op));
        MT_TRY(mt_exec_create(comm, max_op, &comm->small_exec));
    }
    const int64_t n_bytes = stage_bytes(comm, n_item);
    if (n_bytes <= comm->small_stage_bytes) {
        return MT_OK;
    }
    mt_memory_free(comm->small_stage);
    comm->small_stage = NULL;
    comm->small_stage_bytes = 0;
    MT_TRY(mt_memory_allocate(n_bytes, "small collectives", &comm->small_stage));
    comm->small_stage_bytes = n_bytes;
    return MT_OK;
}

static enum mt_status run(struct mt_comm *comm, void *const buffer[MT_N_BUFFER])
{
    MT_TRY(mt_exec_begin(comm->small_exec, &comm->small_plan, buffer));
    return mt_exec_end(comm->small_exec);
}

static enum mt_status sum(struct mt_comm *comm, void *values, int64_t n_item,
                          enum mt_element element)
{
    const int64_t n_bytes = n_item * ITEM_BYTES;
    MT_ASSERT(n_item >= 0 && stage_bytes(comm, n_item) <= comm->small_stage_bytes);
    char *result = (char *)comm->small_stage + comm->topology.n_rank * ITEM_BYTES;
    void *const buffer[MT_N_BUFFER] = {values, result, result + n_bytes};
    mt_plan_allreduce(&comm->small_plan, &comm->topology, comm->rank, n_bytes, element);
    MT_TRY(run(comm, buffer));
    if (n_bytes > 0) {
        memcpy(values, result, (size_t)n_bytes);
    }
    return MT_OK;
}

static enum mt_status gather(struct mt_comm *comm, const void *mine, int64_t n_item, void *all)
{
    MT_ASSERT(n_item >= 0 && stage_bytes(comm, n_item) <= comm->small_stage_bytes);
    int64_t *block_bytes = comm->small_stage;
    for (int rank = 0; rank < comm->topology.n_rank; ++rank) {
        block_bytes[rank] = n_item * ITEM_BYTES;
    }
    /* SEND is only read; the executor's table of buffers is one type for all three. */
    void *const buffer[MT_N_BUFFER] = {(void *)mine, all, NULL};
    mt_plan_allgatherv(&comm->small_plan, &comm->topology, comm->rank, block_bytes);
    return run(comm, buffer);
}

enum mt_status mt_comm_sum_f64(struct mt_comm *comm, double *values, int64_t n_item)
{
    return sum(comm, values, n_item, MT_ELEMENT_F64);
}

enum mt_status mt_comm_sum_i64(struct mt_comm *comm, int64_t *values, int64_t n_item)
{
    return sum(comm, values, n_item, MT_ELEMENT_I64);
}

enum mt_status mt_comm_gather_f64(struct mt_comm *comm, const double *mine, int64_t n_item,
                                  double *all)
{
    return gather(comm, mine, n_item, all);
}

enum mt_status mt_comm_gather_i64(struct mt_comm *comm, const int64_t *mine, int64_t n_item,
                                  int64_t *all)
{
    return gather(comm, mine, n_item, all);
}
