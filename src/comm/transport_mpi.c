/* Transport mpi: messages between processes, on a communicator of their own, so that tags meet
 * nothing else. MPI makes progress when it is called: the executor's tests are what drives it. */
#include "comm/transport.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"

struct transport_mpi {
    struct mt_transport base; /* first: a transport points to it */
    MPI_Comm comm;
};

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
    MT_TRY_MPI(MPI_Isend(data, n, MPI_BYTE, peer, tag, comm_of(transport), &request->mpi));
    return MT_OK;
}

static enum mt_status mpi_post_recv(struct mt_transport *transport, int peer, int tag, void *data,
                                    int64_t n_bytes, union mt_request *request)
{
    const int n = mt_size_to_int(n_bytes);
    MT_TRY_MPI(MPI_Irecv(data, n, MPI_BYTE, peer, tag, comm_of(transport), &request->mpi));
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

/* One by one up to the first that is not complete: MPI_Testall would want them as one array of
 * MPI_Request, and every unsuccessful MPI_Test makes progress for all. */
static enum mt_status mpi_test(struct mt_transport *transport, union mt_request *request, int64_t n,
                               bool *done)
{
    MT_UNUSED(transport);
    int is_complete = 1;
    for (int64_t i = 0; i < n && is_complete; ++i) {
        MT_TRY(test_one(&request[i].mpi, &is_complete));
    }
    *done = is_complete != 0;
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
    MT_TRY(MT_ALLOCATE(mpi, 1, "transport mpi"));
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
