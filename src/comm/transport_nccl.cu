/* Transport nccl, the module's half: communicators, tickets, failures. */
#include "comm/transport_nccl_internal.h"

#include <new>

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Since then NCCL keeps launches of several communicators in the host's order by itself. */
enum { FIRST_ORDERED_VERSION = 22600 };

/* ---- failures ---- */

static void abort_all(struct mt_nccl *nccl)
{
    for (int i = 0; i < MT_N_URGENCY; i++) {
        if (nccl->comm[i] != NULL) {
            (void)ncclCommAbort(nccl->comm[i]);
            nccl->comm[i] = NULL;
        }
    }
}

/* A rank that has failed by itself knows more: it gets the time to say so and to end the job. */
static void hold_back(void)
{
    struct timespec pause = {2, 0};
    while (nanosleep(&pause, &pause) != 0) {
    }
}

static bool is_our_mistake(ncclResult_t result)
{
    return result == ncclInvalidArgument || result == ncclInvalidUsage;
}

static enum mt_status fail(ncclComm_t comm, ncclResult_t result, const char *what)
{
    const char *words = ncclGetLastError(comm);
    return MT_FAIL(is_our_mistake(result) ? MT_ERR_INTERNAL : MT_ERR_RESOURCE,
                   "NCCL failed in %s: %s%s%s; expected success on every rank; look at the GPUs "
                   "and the network between them, NCCL_DEBUG=WARN says more",
                   what, ncclGetErrorString(result), words != NULL && words[0] != '\0' ? ": " : "",
                   words != NULL ? words : "");
}

enum mt_status mt_nccl_check(struct mt_nccl *nccl, int comm, ncclResult_t result, const char *what)
{
    if (nccl->status == MT_OK && result != ncclSuccess && result != ncclInProgress) {
        nccl->status = fail(nccl->comm[comm], result, what);
        abort_all(nccl);
        if (result == ncclRemoteError) {
            hold_back();
        }
    }
    return nccl->status;
}

enum mt_status mt_nccl_check_cuda(struct mt_nccl *nccl, cudaError_t error, const char *what)
{
    if (nccl->status == MT_OK && error != cudaSuccess && error != cudaErrorNotReady) {
        nccl->status = MT_FAIL(MT_ERR_RESOURCE,
                               "the GPU failed in %s: %s; expected success; see whether other jobs "
                               "use it and whether its memory suffices (moetrain plan)",
                               what, cudaGetErrorString(error));
        abort_all(nccl);
    }
    return nccl->status;
}

enum mt_status mt_nccl_settle(struct mt_nccl *nccl, int comm, ncclResult_t result, const char *what)
{
    nccl->counts.n_settle += result == ncclInProgress;
    while (result == ncclInProgress) {
        (void)sched_yield();
        const ncclResult_t asked = ncclCommGetAsyncError(nccl->comm[comm], &result);
        result = asked != ncclSuccess ? asked : result;
    }
    return mt_nccl_check(nccl, comm, result, what);
}

static enum mt_status check(struct mt_nccl *nccl)
{
    for (int i = 0; i < nccl->n_open && nccl->status == MT_OK; i++) {
        ncclResult_t result = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(nccl->comm[i], &result);
        (void)mt_nccl_check(nccl, i, asked != ncclSuccess ? asked : result, "a collective");
    }
    return nccl->status;
}

/* What others make of it is theirs: nothing is recorded. */
static void give_up(struct mt_nccl *nccl)
{
    nccl->status = nccl->status != MT_OK ? nccl->status : MT_ERR_RESOURCE;
    abort_all(nccl);
}

/* ---- start and end ---- */

static enum mt_status version(int *out)
{
    const ncclResult_t result = ncclGetVersion(out);
    return result == ncclSuccess ? MT_OK : fail(NULL, result, "ncclGetVersion");
}

static enum mt_status create_ids(struct mt_nccl_ids *ids)
{
    static_assert(sizeof(ncclUniqueId) == MT_NCCL_ID_BYTES, "the size of NCCL's id");
    for (int i = 0; i < MT_N_URGENCY; i++) {
        ncclUniqueId id;
        const ncclResult_t result = ncclGetUniqueId(&id);
        if (result != ncclSuccess) {
            return fail(NULL, result, "ncclGetUniqueId");
        }
        memcpy(ids->id[i], &id, sizeof(id));
    }
    return MT_OK;
}

/* Of the next communicator; poll_open sees how it ends. */
static enum mt_status connect_next(struct mt_nccl *nccl)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    const int next = nccl->n_open;
    config.blocking = 0;
    memcpy(&id, nccl->ids.id[next], sizeof(id));
    return mt_nccl_check(
        nccl, next,
        ncclCommInitRankConfig(&nccl->comm[next], nccl->n_rank, id, nccl->rank, &config),
        "ncclCommInitRankConfig");
}

/* Communication goes before computation where both wait for the GPU: others wait for it too. */
static enum mt_status create_streams(struct mt_nccl *nccl)
{
    int least = 0;
    int most = 0;
    MT_TRY(mt_nccl_check_cuda(nccl, cudaDeviceGetStreamPriorityRange(&least, &most), "asking"));
    for (int i = 0; i < nccl->n_comm; i++) {
        MT_TRY(mt_nccl_check_cuda(
            nccl, cudaStreamCreateWithPriority(&nccl->stream[i], cudaStreamNonBlocking, most),
            "a new stream"));
    }
    MT_TRY(mt_nccl_check_cuda(nccl, cudaEventCreateWithFlags(&nccl->ready, cudaEventDisableTiming),
                              "a new event"));
    for (struct mt_nccl_ticket &ticket : nccl->ticket) {
        MT_TRY(mt_nccl_check_cuda(
            nccl, cudaEventCreateWithFlags(&ticket.done, cudaEventDisableTiming), "a new event"));
    }
    return MT_OK;
}

static enum mt_status open(struct mt_cuda *cuda, int rank, int n_rank,
                           const struct mt_nccl_ids *ids, struct mt_nccl **out)
{
    int library = 0;
    *out = NULL;
    MT_TRY(version(&library));
    struct mt_nccl *nccl = new (std::nothrow) struct mt_nccl();
    if (nccl == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "no memory for NCCL's state; %zu bytes were wanted; "
                       "free some",
                       sizeof(struct mt_nccl));
    }
    *out = nccl;
    nccl->cuda = cuda;
    nccl->rank = rank;
    nccl->n_rank = n_rank;
    nccl->ids = *ids;
    nccl->n_comm = library >= FIRST_ORDERED_VERSION ? MT_N_URGENCY : 1;
    (void)setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
    MT_TRY(create_streams(nccl));
    return connect_next(nccl);
}

static enum mt_status poll_open(struct mt_nccl *nccl, bool *is_open)
{
    *is_open = false;
    MT_TRY(nccl->status);
    while (nccl->n_open < nccl->n_comm) {
        ncclResult_t result = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(nccl->comm[nccl->n_open], &result);
        result = asked != ncclSuccess ? asked : result;
        if (result == ncclInProgress || result == ncclRemoteError) {
            return MT_OK; /* a peer that failed says so itself, and all hear of it */
        }
        MT_TRY(mt_nccl_check(nccl, nccl->n_open, result, "connecting all ranks"));
        nccl->n_open++;
        if (nccl->n_open < nccl->n_comm) {
            MT_TRY(connect_next(nccl));
        }
    }
    *is_open = true;
    return MT_OK;
}

static void disconnect(struct mt_nccl *nccl, int comm)
{
    if (mt_nccl_settle(nccl, comm, ncclCommFinalize(nccl->comm[comm]), "ncclCommFinalize") ==
        MT_OK) {
        (void)ncclCommDestroy(nccl->comm[comm]);
        nccl->comm[comm] = NULL;
    }
}

static void close(struct mt_nccl *nccl)
{
    if (nccl == NULL) {
        return;
    }
    for (int i = 0; i < nccl->n_open && nccl->status == MT_OK; i++) {
        disconnect(nccl, i);
    }
    abort_all(nccl);
    for (cudaStream_t stream : nccl->stream) {
        if (stream != NULL) {
            (void)cudaStreamSynchronize(stream);
            (void)cudaStreamDestroy(stream);
        }
    }
    for (const struct mt_nccl_ticket &ticket : nccl->ticket) {
        if (ticket.done != NULL) {
            (void)cudaEventDestroy(ticket.done);
        }
    }
    if (nccl->ready != NULL) {
        (void)cudaEventDestroy(nccl->ready);
    }
    delete nccl;
}

/* ---- plans ---- */

static int take_ticket(struct mt_nccl *nccl)
{
    int ticket = 0;
    while (ticket < MT_NCCL_MAX_ACTIVE && nccl->ticket[ticket].is_taken) {
        ticket++;
    }
    MT_ASSERT(ticket < MT_NCCL_MAX_ACTIVE);
    nccl->ticket[ticket].is_taken = true;
    return ticket;
}

static enum mt_status begin(struct mt_nccl *nccl, enum mt_urgency urgency,
                            const struct mt_plan *plan, void *const buffer[MT_N_BUFFER], void *over,
                            int *ticket)
{
    MT_TRY(nccl->status);
    struct mt_nccl_run run = {};
    run.nccl = nccl;
    run.plan = plan;
    run.comm = nccl->n_comm > 1 ? (int)urgency : 0;
    run.slice_bytes = urgency == MT_BACKGROUND ? (int64_t)MT_NCCL_SLICE_BYTES : INT64_MAX;
    for (int i = 0; i < MT_N_BUFFER; i++) {
        run.buffer[i] = static_cast<char *>(buffer[i]);
    }
    const cudaStream_t stream = nccl->stream[run.comm];
    MT_TRY(mt_nccl_check_cuda(nccl, cudaEventRecord(nccl->ready, nccl->cuda->stream), "an event"));
    MT_TRY(mt_nccl_check_cuda(nccl, cudaStreamWaitEvent(stream, nccl->ready, 0), "an event"));
    MT_TRY(mt_nccl_run_plan(&run));
    nccl->counts.n_plan++;
    if (over != NULL) {
        MT_TRY(mt_nccl_check_cuda(nccl, cudaEventRecord(static_cast<cudaEvent_t>(over), stream),
                                  "an event"));
    }
    *ticket = take_ticket(nccl);
    return mt_nccl_check_cuda(nccl, cudaEventRecord(nccl->ticket[*ticket].done, stream),
                              "an event");
}

static enum mt_status poll(struct mt_nccl *nccl, int ticket, bool *is_done)
{
    MT_TRY(check(nccl));
    const cudaError_t error = cudaEventQuery(nccl->ticket[ticket].done);
    *is_done = error == cudaSuccess;
    return mt_nccl_check_cuda(nccl, error, "a plan");
}

static enum mt_status end_before(struct mt_nccl *nccl, int ticket, cudaStream_t stream)
{
    MT_TRY(nccl->status);
    nccl->ticket[ticket].is_taken = false;
    return mt_nccl_check_cuda(nccl, cudaStreamWaitEvent(stream, nccl->ticket[ticket].done, 0),
                              "an event");
}

static enum mt_status end(struct mt_nccl *nccl, int ticket)
{
    return end_before(nccl, ticket, nccl->cuda->stream);
}

static enum mt_status end_fetched(struct mt_nccl *nccl, int ticket)
{
    return end_before(nccl, ticket, nccl->cuda->fetch);
}

static struct mt_nccl_counts count(const struct mt_nccl *nccl)
{
    return nccl->counts;
}

const struct mt_nccl_table mt_nccl_functions = {version, create_ids, open,  poll_open,
                                                begin,   poll,       end,   end_fetched,
                                                check,   give_up,    close, count};
