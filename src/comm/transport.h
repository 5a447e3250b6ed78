/* What moves bytes: four verbs and a test. `mpi` between processes, `sim` between R virtual ranks
 * of one process with seeded reordering. `nccl` moves whole plans, between GPUs. */
#ifndef MT_COMM_TRANSPORT_H
#define MT_COMM_TRANSPORT_H

#include "comm/plan.h"

#include <mpi.h>
#include <stdint.h>

struct mt_transport;
struct mt_cuda;
struct mt_nccl_table;

/* A request's slot: filled by post, read by test. */
union mt_request {
    struct {
        MPI_Request request;
        int64_t ready_ns; /* of a message that is late on purpose; 0: of any other */
    } mpi;
    int64_t sim;
};

/* Of a transport that takes plans whole, buffers on a device. None blocks but begin, which is
 * watched (base/job.h). */
struct mt_transport_plan_verbs {
    /* over: a mark of the device's (device/timeline.h), set when the plan is over; NULL: none. */
    enum mt_status (*begin)(struct mt_transport *transport, enum mt_urgency urgency,
                            const struct mt_plan *plan, void *const buffer[MT_N_BUFFER],
                            int64_t number, void *over, int *ticket);
    enum mt_status (*poll)(struct mt_transport *transport, int ticket, bool *is_done);
    /* What the device gets to do from now on comes after the plan. */
    enum mt_status (*end)(struct mt_transport *transport, int ticket);
    /* What is fetched from the device from now on does (device/memory.h), and nothing else. */
    enum mt_status (*end_fetched)(struct mt_transport *transport, int ticket);
    /* Has anything failed that is under way? */
    enum mt_status (*check)(struct mt_transport *transport);
};

struct mt_transport_verbs {
    void (*group_begin)(struct mt_transport *transport);
    /* n_bytes <= MT_TRANSPORT_MAX_BYTES. Messages of one (peer, tag) arrive in the order posted. */
    enum mt_status (*post_send)(struct mt_transport *transport, int peer, int tag, const void *data,
                                int64_t n_bytes, union mt_request *request);
    enum mt_status (*post_recv)(struct mt_transport *transport, int peer, int tag, void *data,
                                int64_t n_bytes, union mt_request *request);
    enum mt_status (*group_end)(struct mt_transport *transport);
    /* *n_done: so many of the first requests have completed; n: all have. Never blocks. */
    enum mt_status (*test)(struct mt_transport *transport, union mt_request *request, int64_t n,
                           int64_t *n_done);
    void (*destroy)(struct mt_transport *transport);
    const struct mt_transport_plan_verbs *plan; /* instead of the five; NULL: not whole */
};

struct mt_transport {
    const struct mt_transport_verbs *verbs;
};

enum { MT_TRANSPORT_MAX_BYTES = 1 << 30 };

enum mt_status mt_transport_create_mpi(MPI_Comm world, struct mt_transport **out);
/* For rehearsals of a cluster on links without latency: from now on transport mpi lets a message
 * from another node than `rank`'s count as arrived only alpha_ns after it is there and the one
 * before it has arrived, one after another, as at a port that takes alpha for each. Whoever waits
 * spends no core on it. Nothing is late inside a node. node [n_rank] is copied. */
enum mt_status mt_transport_mpi_rehearse(struct mt_transport *transport, int n_rank, int rank,
                                         const int *node, int64_t alpha_ns);

/* R virtual ranks: out [n_rank]. Messages become visible in an order drawn from `seed`; each test
 * delivers some. All transports of one world are used from one thread. */
enum mt_status mt_transport_create_sim(int n_rank, uint64_t seed, struct mt_transport **out);

/* Between the GPUs of all ranks of the job, by the module's functions (comm/transport_nccl.h) and
 * on the stream of this rank's context. Collective over `world`, and so is its failure: every rank
 * gets the same. MT_ERR_RESOURCE: NCCL does not start, or ranks have different versions of it. */
enum mt_status mt_transport_create_nccl(MPI_Comm world, const struct mt_nccl_table *table,
                                        struct mt_cuda *cuda, struct mt_transport **out);

void mt_transport_destroy(struct mt_transport *transport); /* NULL allowed */

#endif
