#include "moe/counts.h"

#include "base/memory.h"
#include "device/memory.h"

static enum mt_status create_gather(struct mt_counts *counts)
{
    const int n_rank = counts->comm->topology.n_rank;
    const int64_t max_op = mt_plan_allgatherv_max_op(n_rank);
    int64_t *block_bytes = NULL;
    MT_TRY(MT_DEVICE_ALLOCATE(counts->device, counts->all, n_rank * counts->n_expert,
                              "expert counts of all ranks"));
    MT_TRY(mt_plan_init(&counts->plan, max_op));
    MT_TRY(mt_exec_create_device(counts->comm, MT_AWAITED, max_op, &counts->exec));
    MT_TRY(MT_ALLOCATE(block_bytes, n_rank, "sizes of a gather"));
    for (int rank = 0; rank < n_rank; ++rank) {
        block_bytes[rank] = counts->n_expert * (int64_t)sizeof(int64_t);
    }
    mt_plan_allgatherv(&counts->plan, &counts->comm->topology, counts->comm->rank, block_bytes);
    mt_memory_free(block_bytes);
    return MT_OK;
}

enum mt_status mt_counts_init(struct mt_counts *counts, struct mt_device *device,
                              struct mt_comm *comm, int64_t n_expert)
{
    *counts = (struct mt_counts){.device = device, .comm = comm, .n_expert = n_expert};
    MT_TRY(MT_DEVICE_ALLOCATE(device, counts->own, n_expert, "expert counts"));
    return comm->device != NULL ? create_gather(counts)
                                : MT_ALLOCATE(counts->own_host, n_expert, "expert counts");
}

void mt_counts_clear(struct mt_counts *counts)
{
    mt_exec_destroy(counts->exec);
    mt_plan_clear(&counts->plan);
    if (counts->device != NULL) {
        mt_device_free(counts->device, counts->own);
        mt_device_free(counts->device, counts->all);
    }
    mt_memory_free(counts->own_host);
    *counts = (struct mt_counts){0};
}

enum mt_status mt_counts_begin(struct mt_counts *counts)
{
    if (counts->all != NULL) {
        void *const buffer[MT_N_BUFFER] = {
            [MT_BUFFER_SEND] = counts->own, [MT_BUFFER_RECV] = counts->all};
        MT_TRY(mt_exec_begin(counts->exec, &counts->plan, buffer));
    }
    mt_device_fetch_begin(counts->device);
    return MT_OK;
}

enum mt_status mt_counts_end(struct mt_counts *counts, int64_t *count)
{
    const int64_t n_bytes = counts->n_expert * (int64_t)sizeof(int64_t);
    if (counts->all != NULL) {
        MT_TRY(mt_exec_end_fetched(counts->exec));
        mt_device_fetch(counts->device, count, counts->all,
                        counts->comm->topology.n_rank * n_bytes);
        return mt_device_fetch_wait(counts->device);
    }
    mt_device_fetch(counts->device, counts->own_host, counts->own, n_bytes);
    MT_TRY(mt_device_fetch_wait(counts->device));
    mt_device_settle(counts->device);
    return mt_comm_gather_i64(counts->comm, counts->own_host, counts->n_expert, count);
}
