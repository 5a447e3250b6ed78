/* Transport nccl, the program's half: how the ranks start together, and who has the waits watched.
 *
 *     versions compared --> ids from rank 0, then a barrier --> every rank connects --> agreed
 *
 * While a rank connects, NCCL waits for all others. So a rank that cannot must be heard meanwhile:
 *
 *     ranks 1 ..:  poll NCCL ... how it ended  --->  rank 0 --->  verdict: all connected, or the
 *                  first failure, after which those who still wait give up
 *
 * All that is MPI on host memory, and over before NCCL has anything to do on a GPU. */
#include "comm/transport_nccl.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/comm.h"

#include <stdio.h>

_Static_assert(MT_NCCL_MAX_ACTIVE >= (int)MT_MAX_ACTIVE, "every active plan has a ticket");

struct transport_nccl {
    struct mt_transport base; /* first: a transport points to it */
    const struct mt_nccl_table *table;
    struct mt_nccl *nccl;
    MPI_Comm comm; /* of the start; the job's ranks */
    int rank, n_rank;
};

static struct transport_nccl *nccl_of(struct mt_transport *transport)
{
    return (struct transport_nccl *)transport;
}

/* ---- versions ---- */

enum { MAX_TEXT = 1024, MAJOR = 10000, MINOR = 100 };

/* Appends "2, 5-7": the ranks of that version. */
static int print_ranks(char *text, int at, const int *version, int n_rank, int of)
{
    const char *comma = "";
    for (int rank = 0; rank < n_rank && at < MAX_TEXT; ++rank) {
        int last = rank;
        if (version[rank] != of) {
            continue;
        }
        while (last + 1 < n_rank && version[last + 1] == of) {
            ++last;
        }
        at += snprintf(text + at, (size_t)(MAX_TEXT - at), "%s%d", comma, rank);
        if (last > rank && at < MAX_TEXT) {
            at += snprintf(text + at, (size_t)(MAX_TEXT - at), "-%d", last);
        }
        comma = ", ";
        rank = last;
    }
    return at;
}

static bool is_first_of_its_version(const int *version, int rank)
{
    for (int before = 0; before < rank; ++before) {
        if (version[before] == version[rank]) {
            return false;
        }
    }
    return true;
}

static enum mt_status refuse_versions(const int *version, int n_rank)
{
    char text[MAX_TEXT] = "";
    int at = 0;
    for (int rank = 0; rank < n_rank && at < MAX_TEXT; ++rank) {
        const int v = version[rank];
        if (!is_first_of_its_version(version, rank)) {
            continue;
        }
        at += snprintf(text + at, (size_t)(MAX_TEXT - at), "%s%d.%d.%d on ranks ",
                       at > 0 ? ", " : "", v / MAJOR, v / MINOR % MINOR, v % MINOR);
        at = print_ranks(text, at, version, n_rank, v);
    }
    return MT_FAIL(MT_ERR_RESOURCE,
                   "NCCL has different versions: %s; expected one version on all ranks; install "
                   "the same libnccl on all machines, or name one in LD_LIBRARY_PATH",
                   text);
}

/* Every rank sees the same. */
static enum mt_status compare_versions(const struct transport_nccl *t)
{
    enum mt_status status = MT_OK;
    int mine = 0;
    int *version = NULL;
    MT_TRY(mt_topology_agree(t->comm, t->table->version(&mine)));
    MT_TRY(mt_topology_agree(t->comm, MT_ALLOCATE(version, t->n_rank, "transport nccl")));
    MT_TRY_GOTO(mt_job_mpi_status(MPI_Allgather(&mine, 1, MPI_INT, version, 1, MPI_INT, t->comm),
                                  "MPI_Allgather", __FILE__, __LINE__));
    for (int rank = 1; rank < t->n_rank && status == MT_OK; ++rank) {
        if (version[rank] != version[0]) {
            status = refuse_versions(version, t->n_rank);
        }
    }
    MT_TRY_GOTO(mt_topology_agree(t->comm, status));
cleanup:
    mt_memory_free(version);
    return status;
}

/* ---- connecting ---- */

enum { TAG_END = 1, TAG_VERDICT = 2, UNDER_WAY = -1 };

/* How connecting goes: here, and as far as this rank knows. */
struct connection {
    int mine;    /* UNDER_WAY, then a status */
    int verdict; /* the same, of all ranks */
    bool is_told;
    int n_heard; /* rank 0: ranks that have told it, itself included */
};

static void poll_own(const struct transport_nccl *t, struct connection *c)
{
    bool is_open = false;
    if (c->mine == UNDER_WAY) {
        const enum mt_status status = t->table->poll_open(t->nccl, &is_open);
        c->mine = status != MT_OK || is_open ? (int)status : UNDER_WAY;
    }
}

static void hear(const struct transport_nccl *t, struct connection *c, int code)
{
    ++c->n_heard;
    if (code != MT_OK) {
        c->verdict = code;
    } else if (c->n_heard == t->n_rank && c->verdict == UNDER_WAY) {
        c->verdict = MT_OK;
    }
}

/* Once, when it is known. */
static enum mt_status tell(const struct transport_nccl *t, struct connection *c)
{
    if (c->is_told || c->mine == UNDER_WAY) {
        return MT_OK;
    }
    c->is_told = true;
    if (t->rank == 0) {
        hear(t, c, c->mine);
        return MT_OK;
    }
    MT_TRY_MPI(MPI_Send(&c->mine, 1, MPI_INT, 0, TAG_END, t->comm));
    return MT_OK;
}

static enum mt_status listen(const struct transport_nccl *t, struct connection *c, int source,
                             int tag)
{
    int is_there = 0;
    int code = 0;
    MPI_Status from;
    MT_TRY_MPI(MPI_Iprobe(source, tag, t->comm, &is_there, &from));
    if (!is_there) {
        return MT_OK;
    }
    MT_TRY_MPI(MPI_Recv(&code, 1, MPI_INT, from.MPI_SOURCE, tag, t->comm, MPI_STATUS_IGNORE));
    if (tag == TAG_VERDICT) {
        c->verdict = code;
    } else {
        hear(t, c, code);
    }
    return MT_OK;
}

/* Rank 0 tells the verdict, then hears those who had not ended before it. */
static enum mt_status finish_connection(const struct transport_nccl *t, struct connection *c)
{
    for (int rank = 1; rank < t->n_rank && t->rank == 0; ++rank) {
        MT_TRY_MPI(MPI_Send(&c->verdict, 1, MPI_INT, rank, TAG_VERDICT, t->comm));
    }
    if (c->mine == UNDER_WAY) {
        t->table->abort(t->nccl);
        c->mine = MT_OK; /* another rank's failure, and that one's to tell */
    }
    MT_TRY(tell(t, c));
    while (t->rank == 0 && c->n_heard < t->n_rank) {
        MT_TRY(listen(t, c, MPI_ANY_SOURCE, TAG_END));
    }
    return MT_OK;
}

static enum mt_status connect_ranks(const struct transport_nccl *t, enum mt_status opened)
{
    enum { PAUSE_NS = 100000 };
    struct connection c = {.mine = opened == MT_OK ? UNDER_WAY : (int)opened, .verdict = UNDER_WAY};
    const int source = t->rank == 0 ? MPI_ANY_SOURCE : 0;
    const int tag = t->rank == 0 ? TAG_END : TAG_VERDICT;
    while (c.verdict == UNDER_WAY) {
        poll_own(t, &c);
        MT_TRY(tell(t, &c));
        MT_TRY(listen(t, &c, source, tag));
        mt_clock_sleep_until_ns(mt_clock_ns() + PAUSE_NS);
    }
    MT_TRY(finish_connection(t, &c));
    return (enum mt_status)c.mine;
}

/* The barrier keeps MPI's messages apart from NCCL's own first ones, which some networks need. */
static enum mt_status share_ids(const struct transport_nccl *t, struct mt_nccl_ids *ids)
{
    const enum mt_status status = t->rank == 0 ? t->table->create_ids(ids) : MT_OK;
    MT_TRY(mt_topology_agree(t->comm, status));
    MT_TRY_MPI(MPI_Bcast(ids, (int)sizeof(*ids), MPI_BYTE, 0, t->comm));
    return mt_job_mpi_status(MPI_Barrier(t->comm), "MPI_Barrier", __FILE__, __LINE__);
}

static enum mt_status start(struct transport_nccl *t, struct mt_cuda *cuda)
{
    struct mt_nccl_ids ids = {.id = {{0}}};
    MT_TRY(compare_versions(t));
    MT_TRY(share_ids(t, &ids));
    mt_job_watch_begin("the start of NCCL", 0); /* agreements are watched as such */
    const enum mt_status opened = t->table->open(cuda, t->rank, t->n_rank, &ids, &t->nccl);
    const enum mt_status status = connect_ranks(t, opened);
    mt_job_watch_end();
    return mt_topology_agree(t->comm, status);
}

/* ---- the verbs ---- */

static enum mt_status nccl_begin(struct mt_transport *transport, enum mt_urgency urgency,
                                 const struct mt_plan *plan, void *const buffer[MT_N_BUFFER],
                                 int64_t number, void *over, int *ticket)
{
    const struct transport_nccl *t = nccl_of(transport);
    mt_job_watch_begin(plan->name, number);
    const enum mt_status status = t->table->begin(t->nccl, urgency, plan, buffer, over, ticket);
    mt_job_watch_end();
    return status;
}

static enum mt_status nccl_poll(struct mt_transport *transport, int ticket, bool *is_done)
{
    return nccl_of(transport)->table->poll(nccl_of(transport)->nccl, ticket, is_done);
}

static enum mt_status nccl_end(struct mt_transport *transport, int ticket)
{
    return nccl_of(transport)->table->end(nccl_of(transport)->nccl, ticket);
}

static enum mt_status nccl_end_fetched(struct mt_transport *transport, int ticket)
{
    return nccl_of(transport)->table->end_fetched(nccl_of(transport)->nccl, ticket);
}

static enum mt_status nccl_check(struct mt_transport *transport)
{
    return nccl_of(transport)->table->check(nccl_of(transport)->nccl);
}

/* After a failure the peers may never come, so nothing is waited for. */
static void nccl_destroy(struct mt_transport *transport)
{
    struct transport_nccl *t = nccl_of(transport);
    int is_finalized = 0;
    if (t->nccl != NULL) {
        if (mt_error_last()->code != MT_OK) {
            t->table->abort(t->nccl);
        }
        mt_job_watch_begin("the end of NCCL", 0);
        t->table->close(t->nccl);
        mt_job_watch_end();
    }
    (void)MPI_Finalized(&is_finalized);
    if (!is_finalized && t->comm != MPI_COMM_NULL) {
        (void)MPI_Comm_free(&t->comm);
    }
    mt_memory_free(t);
}

static const struct mt_transport_plan_verbs plan_verbs = {.begin = nccl_begin,
                                                          .poll = nccl_poll,
                                                          .end = nccl_end,
                                                          .end_fetched = nccl_end_fetched,
                                                          .check = nccl_check};
static const struct mt_transport_verbs nccl_verbs = {.destroy = nccl_destroy, .plan = &plan_verbs};

struct mt_nccl_counts mt_transport_nccl_counts(struct mt_transport *transport)
{
    MT_ASSERT(transport->verbs == &nccl_verbs);
    return nccl_of(transport)->table->count(nccl_of(transport)->nccl);
}

enum mt_status mt_transport_create_nccl(MPI_Comm world, const struct mt_nccl_table *table,
                                        struct mt_cuda *cuda, struct mt_transport **out)
{
    enum mt_status status = MT_OK;
    struct transport_nccl *t = NULL;
    *out = NULL;
    MT_TRY(mt_topology_agree(world, MT_ALLOCATE(t, 1, "transport nccl")));
    t->base.verbs = &nccl_verbs;
    t->table = table;
    t->comm = MPI_COMM_NULL;
    MT_TRY_GOTO(
        mt_job_mpi_status(MPI_Comm_dup(world, &t->comm), "MPI_Comm_dup", __FILE__, __LINE__));
    MT_TRY_GOTO(mt_job_mpi_status(MPI_Comm_set_errhandler(t->comm, MPI_ERRORS_RETURN),
                                  "MPI_Comm_set_errhandler", __FILE__, __LINE__));
    MT_TRY_GOTO(
        mt_job_mpi_status(MPI_Comm_rank(t->comm, &t->rank), "MPI_Comm_rank", __FILE__, __LINE__));
    MT_TRY_GOTO(
        mt_job_mpi_status(MPI_Comm_size(t->comm, &t->n_rank), "MPI_Comm_size", __FILE__, __LINE__));
    MT_TRY_GOTO(start(t, cuda));
    *out = &t->base;
    return MT_OK;
cleanup:
    nccl_destroy(&t->base);
    return status;
}
