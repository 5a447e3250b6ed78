/* Plans that are one collective of NCCL: an all-gather of equal blocks, and sums of integers, whose
 * bits no order changes. Sums of floating-point numbers stay plans: NCCL adds along rings and trees
 * of its own choice.
 *
 * Ranks must choose alike, and do: a rank's own ops show whether all blocks are equal, since every
 * rank sends its block to, or receives its block from, all others. */
#include "comm/transport_nccl_internal.h"

#include <string.h>

static bool is_named(const struct mt_plan *plan, const char *name)
{
    return strcmp(plan->name, name) == 0;
}

/* Do ops of this kind go to all other ranks, with as many bytes? */
static bool goes_to_all(const struct mt_nccl_run *run, enum mt_op_kind kind, int64_t n_bytes)
{
    int n = 0;
    for (int64_t i = 0; i < run->plan->n_op; i++) {
        const struct mt_op *op = &run->plan->op[i];
        if (op->kind == kind && op->n_bytes != n_bytes) {
            return false;
        }
        n += op->kind == kind;
    }
    return n == run->nccl->n_rank - 1;
}

static int64_t bytes_of_first(const struct mt_plan *plan, enum mt_op_kind kind)
{
    for (int64_t i = 0; i < plan->n_op; i++) {
        if (plan->op[i].kind == kind) {
            return plan->op[i].n_bytes;
        }
    }
    return 0;
}

static enum mt_status finish(const struct mt_nccl_run *run, ncclResult_t result, const char *what,
                             int64_t sent_bytes)
{
    run->nccl->counts.n_whole++;
    run->nccl->counts.sent_bytes += sent_bytes;
    return mt_nccl_settle(run->nccl, run->comm, result, what);
}

static enum mt_status gather(const struct mt_nccl_run *run, int64_t block_bytes)
{
    struct mt_nccl *nccl = run->nccl;
    MT_ASSERT(block_bytes % 4 == 0);
    return finish(run,
                  ncclAllGather(mt_nccl_address(run, MT_BUFFER_SEND, 0),
                                mt_nccl_address(run, MT_BUFFER_RECV, 0), (size_t)block_bytes / 4,
                                ncclInt32, nccl->comm[run->comm], nccl->stream[run->comm]),
                  "ncclAllGather", block_bytes * (nccl->n_rank - 1));
}

static enum mt_status scatter_sums(const struct mt_nccl_run *run, int64_t block_bytes)
{
    struct mt_nccl *nccl = run->nccl;
    return finish(run,
                  ncclReduceScatter(mt_nccl_address(run, MT_BUFFER_SEND, 0),
                                    mt_nccl_address(run, MT_BUFFER_RECV, 0),
                                    (size_t)block_bytes / sizeof(int64_t), ncclInt64, ncclSum,
                                    nccl->comm[run->comm], nccl->stream[run->comm]),
                  "ncclReduceScatter", block_bytes * (nccl->n_rank - 1));
}

static enum mt_status sum(const struct mt_nccl_run *run, int64_t n_bytes)
{
    struct mt_nccl *nccl = run->nccl;
    return finish(run,
                  ncclAllReduce(mt_nccl_address(run, MT_BUFFER_SEND, 0),
                                mt_nccl_address(run, MT_BUFFER_RECV, 0),
                                (size_t)n_bytes / sizeof(int64_t), ncclInt64, ncclSum,
                                nccl->comm[run->comm], nccl->stream[run->comm]),
                  "ncclAllReduce", n_bytes);
}

enum mt_status mt_nccl_run_whole(const struct mt_nccl_run *run, bool *is_whole)
{
    const struct mt_plan *plan = run->plan;
    const bool is_sum = plan->element == MT_ELEMENT_I64;
    const int64_t copied = bytes_of_first(plan, MT_OP_COPY);
    const int64_t received = bytes_of_first(plan, MT_OP_RECV);
    *is_whole = true;
    if (run->nccl->n_rank == 1 || plan->n_op == 0) {
        *is_whole = false;
        return MT_OK;
    }
    if (is_named(plan, "allgatherv") && goes_to_all(run, MT_OP_RECV, copied)) {
        return gather(run, copied);
    }
    if (is_named(plan, "reduce_scatter") && is_sum && goes_to_all(run, MT_OP_SEND, received)) {
        return scatter_sums(run, received);
    }
    if (is_named(plan, "allreduce") && is_sum) {
        return sum(run, plan->op[0].n_bytes);
    }
    *is_whole = false;
    return MT_OK;
}
