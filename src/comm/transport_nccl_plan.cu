/* Plans into a stream, round by round. Where messages are longer than a slice, a round's launches
 * are waves: wave w moves bytes [w, w + 1) * slice of every message that is that long, as the
 * executor of host memory does. Both ends know the size, so both cut alike. */
#include "comm/transport_nccl_internal.h"

static int64_t round_end(const struct mt_plan *plan, int64_t first)
{
    int64_t end = first;
    while (end < plan->n_op && plan->op[end].round == plan->op[first].round) {
        end++;
    }
    return end;
}

static bool is_message(const struct mt_op *op)
{
    return op->kind == MT_OP_SEND || op->kind == MT_OP_RECV;
}

static bool is_fine(ncclResult_t result)
{
    return result == ncclSuccess || result == ncclInProgress;
}

/* This wave's part of one message. */
static ncclResult_t post(const struct mt_nccl_run *run, const struct mt_op *op, int64_t from)
{
    struct mt_nccl *nccl = run->nccl;
    const int64_t rest = op->n_bytes - from;
    const int64_t n_bytes = rest < run->slice_bytes ? rest : run->slice_bytes;
    const size_t n_word = (size_t)n_bytes / 4;
    char *at = mt_nccl_address(run, op->buffer, op->offset_bytes + from);
    const ncclComm_t comm = nccl->comm[run->comm];
    const cudaStream_t stream = nccl->stream[run->comm];
    MT_ASSERT(n_bytes % 4 == 0);
    nccl->counts.n_message++;
    if (op->kind == MT_OP_RECV) {
        return ncclRecv(at, n_word, ncclInt32, op->peer, comm, stream);
    }
    nccl->counts.sent_bytes += n_bytes;
    return ncclSend(at, n_word, ncclInt32, op->peer, comm, stream);
}

/* All messages of ops [first, end) that go beyond `from`, as one launch: NCCL moves what is in a
 * group at once, so nobody waits for the order of its peers. */
static enum mt_status launch(const struct mt_nccl_run *run, int64_t first, int64_t end,
                             int64_t from)
{
    struct mt_nccl *nccl = run->nccl;
    MT_TRY(mt_nccl_check(nccl, run->comm, ncclGroupStart(), "ncclGroupStart"));
    ncclResult_t posted = ncclSuccess;
    for (int64_t i = first; i < end && is_fine(posted); i++) {
        const struct mt_op *op = &run->plan->op[i];
        if (is_message(op) && op->n_bytes > from) {
            posted = post(run, op, from);
        }
    }
    const ncclResult_t ended = ncclGroupEnd(); /* in any case: a group is left before an abort */
    MT_TRY(mt_nccl_check(nccl, run->comm, posted, "ncclSend or ncclRecv"));
    nccl->counts.n_group++;
    return mt_nccl_settle(nccl, run->comm, ended, "ncclGroupEnd");
}

static enum mt_status move(const struct mt_nccl_run *run, int64_t first, int64_t end)
{
    int64_t largest = 0;
    for (int64_t i = first; i < end; i++) {
        const struct mt_op *op = &run->plan->op[i];
        largest = is_message(op) && op->n_bytes > largest ? op->n_bytes : largest;
    }
    for (int64_t from = 0; from < largest;) {
        MT_TRY(launch(run, first, end, from));
        from = largest - from > run->slice_bytes ? from + run->slice_bytes : largest;
    }
    return MT_OK;
}

enum mt_status mt_nccl_run_plan(const struct mt_nccl_run *run)
{
    const struct mt_plan *plan = run->plan;
    bool is_whole = false;
    MT_TRY(mt_nccl_run_whole(run, &is_whole));
    for (int64_t first = is_whole ? plan->n_op : 0; first < plan->n_op;) {
        const int64_t end = round_end(plan, first);
        MT_TRY(move(run, first, end));
        mt_nccl_copy(run, first, end);
        mt_nccl_add(run, first, end);
        first = end;
    }
    return mt_nccl_check_cuda(run->nccl, cudaGetLastError(), "a launch");
}
