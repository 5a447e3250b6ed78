/* Transport mpi: messages between processes, on a communicator of their own, so that tags meet
 * nothing else. MPI makes progress when it is called: the executor's tests are what drives it. */
#include "comm/transport.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "comm/topology.h"

struct transport_mpi {
    struct mt_transport base; /* first: a transport points to it */
    MPI_Comm comm;
    /* Rehearsals only: */
    bool *is_far;         /* [R] in another node; NULL: nothing is late */
    int64_t alpha_ns;     /* that a message from there takes at this rank's port */
    int64_t port_free_ns; /* when the last of them had arrived */
};

enum { NOT_LATE = 0, BATCH = 256 };
/* Of a late message that is not there yet. */
static const int64_t NOT_THERE = INT64_MAX;

static MPI_Comm comm_of(struct mt_transport *transport)
{
    return ((struct transport_mpi *)transport)->comm;
}

static void mpi_group_begin(struct mt_transport *transport)
{
    MT_UNUSED(transport); /* MPI starts each message when it is posted */
}

/* The requests outlive the call: the analyzer cannot see that mpi_test completes them. */
// NOLINTBEGIN(clang-analyzer-optin.mpi.MPI-Checker)
static enum mt_status mpi_post_send(struct mt_transport *transport, int peer, int tag,
                                    const void *data, int64_t n_bytes, union mt_request *request)
{
    const int n = mt_size_to_int(n_bytes);
    request->mpi.ready_ns = NOT_LATE;
    MT_TRY_MPI(MPI_Isend(data, n, MPI_BYTE, peer, tag, comm_of(transport), &request->mpi.request));
    return MT_OK;
}

static enum mt_status mpi_post_recv(struct mt_transport *transport, int peer, int tag, void *data,
                                    int64_t n_bytes, union mt_request *request)
{
    const int n = mt_size_to_int(n_bytes);
    const bool *is_far = ((struct transport_mpi *)transport)->is_far;
    request->mpi.ready_ns = is_far != NULL && is_far[peer] ? NOT_THERE : NOT_LATE;
    MT_TRY_MPI(MPI_Irecv(data, n, MPI_BYTE, peer, tag, comm_of(transport), &request->mpi.request));
    return MT_OK;
}
// NOLINTEND(clang-analyzer-optin.mpi.MPI-Checker)

static enum mt_status mpi_group_end(struct mt_transport *transport)
{
    MT_UNUSED(transport);
    return MT_OK;
}

static enum mt_status test_one(MPI_Request *request, int *is_complete)
{
    *is_complete = 1;
    if (*request != MPI_REQUEST_NULL) {
        MT_TRY_MPI(MPI_Test(request, is_complete, MPI_STATUS_IGNORE));
    }
    return MT_OK;
}

/* Looks at all of them with one call: each MPI_Test of a message that is not there makes progress,
 * which asks the kernel for every connection and gives the core away. Of an exchange of 64 ranks,
 * 56 such messages a look, tests one by one were most of the processor time (2026-11-22). */
static enum mt_status test_batch(union mt_request *request, int n)
{
    MPI_Request open[BATCH];
    int at[BATCH];
    int done[BATCH];
    int n_open = 0;
    int n_done = 0;
    for (int i = 0; i < n; ++i) {
        if (request[i].mpi.request != MPI_REQUEST_NULL) {
            open[n_open] = request[i].mpi.request;
            at[n_open++] = i;
        }
    }
    if (n_open > 0) {
        MT_TRY_MPI(MPI_Testsome(n_open, open, &n_done, done, MPI_STATUSES_IGNORE));
    }
    for (int i = 0; i < n_done; ++i) {
        request[at[done[i]]].mpi.request = MPI_REQUEST_NULL;
    }
    return MT_OK;
}

/* When each is there decides when it counts as arrived. */
static enum mt_status test_late(struct transport_mpi *mpi, union mt_request *request, int64_t n,
                                int64_t *n_done)
{
    *n_done = 0;
    for (int64_t i = 0; i < n; i += BATCH) {
        MT_TRY(test_batch(request + i, (int)mt_min_i64(n - i, BATCH)));
    }
    const int64_t now_ns = mt_clock_ns();
    for (int64_t i = 0; i < n; ++i) {
        const bool is_there = request[i].mpi.request == MPI_REQUEST_NULL;
        if (is_there && request[i].mpi.ready_ns == NOT_THERE) {
            mpi->port_free_ns = mt_max_i64(mpi->port_free_ns, now_ns) + mpi->alpha_ns;
            request[i].mpi.ready_ns = mpi->port_free_ns;
        }
        if (is_there && request[i].mpi.ready_ns <= now_ns && *n_done == i) {
            *n_done = i + 1;
        }
    }
    return MT_OK;
}

/* One by one up to the first that is not complete: MPI_Testall would want them as one array of
 * MPI_Request, and every unsuccessful MPI_Test makes progress for all. */
static enum mt_status mpi_test(struct mt_transport *transport, union mt_request *request, int64_t n,
                               int64_t *n_done)
{
    struct transport_mpi *mpi = (struct transport_mpi *)transport;
    int is_complete = 1;
    if (mpi->is_far != NULL) {
        return test_late(mpi, request, n, n_done);
    }
    for (*n_done = 0; *n_done < n && is_complete; *n_done += is_complete) {
        MT_TRY(test_one(&request[*n_done].mpi.request, &is_complete));
    }
    return MT_OK;
}

static void mpi_destroy(struct mt_transport *transport)
{
    struct transport_mpi *mpi = (struct transport_mpi *)transport;
    int is_finalized = 0;
    (void)MPI_Finalized(&is_finalized);
    if (!is_finalized && mpi->comm != MPI_COMM_NULL) {
        (void)MPI_Comm_free(&mpi->comm);
    }
    mt_memory_free(mpi->is_far);
    mt_memory_free(mpi);
}

static const struct mt_transport_verbs mpi_verbs = {.group_begin = mpi_group_begin,
                                                    .post_send = mpi_post_send,
                                                    .post_recv = mpi_post_recv,
                                                    .group_end = mpi_group_end,
                                                    .test = mpi_test,
                                                    .destroy = mpi_destroy};

enum mt_status mt_transport_create_mpi(MPI_Comm world, struct mt_transport **out)
{
    enum mt_status status = MT_OK;
    struct transport_mpi *mpi = NULL;
    *out = NULL;
    MT_TRY(mt_topology_agree(world, MT_ALLOCATE(mpi, 1, "transport mpi")));
    mpi->base.verbs = &mpi_verbs;
    mpi->comm = MPI_COMM_NULL;
    MT_TRY_GOTO(
        mt_job_mpi_status(MPI_Comm_dup(world, &mpi->comm), "MPI_Comm_dup", __FILE__, __LINE__));
    MT_TRY_GOTO(mt_job_mpi_status(MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN),
                                  "MPI_Comm_set_errhandler", __FILE__, __LINE__));
    *out = &mpi->base;
    return MT_OK;
cleanup:
    mpi_destroy(&mpi->base);
    return status;
}

enum mt_status mt_transport_mpi_rehearse(struct mt_transport *transport, int n_rank, int rank,
                                         const int *node, int64_t alpha_ns)
{
    struct transport_mpi *mpi = (struct transport_mpi *)transport;
    MT_ASSERT(transport->verbs == &mpi_verbs && mpi->is_far == NULL && alpha_ns > 0);
    MT_TRY(MT_ALLOCATE(mpi->is_far, n_rank, "transport mpi"));
    for (int peer = 0; peer < n_rank; ++peer) {
        mpi->is_far[peer] = node[peer] != node[rank];
    }
    mpi->alpha_ns = alpha_ns;
    return MT_OK;
}
