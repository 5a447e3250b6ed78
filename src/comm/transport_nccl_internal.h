/* What the files of the module's half of transport nccl share (transport_nccl.h). */
#ifndef MT_COMM_TRANSPORT_NCCL_INTERNAL_H
#define MT_COMM_TRANSPORT_NCCL_INTERNAL_H

#include "comm/transport_nccl.h"
#include "kernel/cuda/cuda.h"

#include <nccl.h>

/* A plan between begin and end. */
struct mt_nccl_ticket {
    cudaEvent_t done;
    bool is_taken;
};

struct mt_nccl {
    struct mt_cuda *cuda;
    int rank, n_rank;
    struct mt_nccl_ids ids;
    int n_comm, n_open;            /* communicators there will be, and are connected */
    ncclComm_t comm[MT_N_URGENCY]; /* NULL: not yet, or not any more */
    cudaStream_t stream[MT_N_URGENCY];
    cudaEvent_t ready; /* what the main stream had at the last begin */
    struct mt_nccl_ticket ticket[MT_NCCL_MAX_ACTIVE];
    enum mt_status status; /* the first failure */
    struct mt_nccl_counts counts;
};

/* A plan on its way into a stream. */
struct mt_nccl_run {
    struct mt_nccl *nccl;
    const struct mt_plan *plan;
    char *buffer[MT_N_BUFFER];
    int64_t slice_bytes; /* of a message in one launch */
    int comm;            /* index of communicator and stream */
};

/* Both keep the first failure with the library's own text and end everything under way. */
enum mt_status mt_nccl_check(struct mt_nccl *nccl, int comm, ncclResult_t result, const char *what);
enum mt_status mt_nccl_check_cuda(struct mt_nccl *nccl, cudaError_t error, const char *what);
/* Returns when NCCL has done what the call that gave `result` has begun: the stream has it. */
enum mt_status mt_nccl_settle(struct mt_nccl *nccl, int comm, ncclResult_t result,
                              const char *what);

/* transport_nccl_plan.cu: the whole plan. */
enum mt_status mt_nccl_run_plan(const struct mt_nccl_run *run);
/* transport_nccl_whole.cu: as one collective of NCCL, if it is one. */
enum mt_status mt_nccl_run_whole(const struct mt_nccl_run *run, bool *is_whole);
/* transport_nccl_local.cu: the copies, or the additions, among ops [first, end) of one round. */
void mt_nccl_copy(const struct mt_nccl_run *run, int64_t first, int64_t end);
void mt_nccl_add(const struct mt_nccl_run *run, int64_t first, int64_t end);

static inline char *mt_nccl_address(const struct mt_nccl_run *run, int buffer, int64_t offset)
{
    MT_ASSERT(run->buffer[buffer] != NULL && offset % 4 == 0);
    return run->buffer[buffer] + offset;
}

#endif
