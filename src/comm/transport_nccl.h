/* What transport nccl needs of the CUDA module: plans as work of a GPU.
 *
 * The program's half (transport_nccl.c) is a transport of comm/comm.h; it starts NCCL with the help
 * of MPI and has every wait watched. The module's half (transport_nccl.cu and its neighbours) calls
 * NCCL and nothing of the program but base/status.h. docs/decisions/0017-nccl.md says why so.
 *
 * A plan is enqueued whole by begin: each round a launch of NCCL, or several in the background
 * where messages are cut, then kernels for the round's copies and additions, in the plan's order.
 * Nothing waits for the host between rounds. Two communicators with a stream each, one for every
 * urgency; what ranks begin in one order, they launch in one order over both.
 *
 *     main stream   ... writes SEND | begin ............ end | reads RECV ...
 *                                   \ event       event /
 *     stream of the urgency          rounds of the plan
 *
 * Functions return MT_OK or a recorded failure; after the first everything has been aborted, and
 * all return it again. None blocks unless it says so. Used from one thread. */
#ifndef MT_COMM_TRANSPORT_NCCL_H
#define MT_COMM_TRANSPORT_NCCL_H

#include "comm/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mt_cuda; /* kernel/cuda/cuda.h */
struct mt_nccl;

enum {
    MT_NCCL_ID_BYTES = 128,
    MT_NCCL_MAX_ACTIVE = 64,      /* plans between begin and end */
    MT_NCCL_SLICE_BYTES = 1 << 20 /* of a message in the background, a launch */
};
/* What ncclGetUniqueId makes, one for each communicator. */
struct mt_nccl_ids {
    char id[MT_N_URGENCY][MT_NCCL_ID_BYTES];
};

/* Since open. */
struct mt_nccl_counts {
    int64_t n_plan;
    int64_t n_group;    /* launches of NCCL: a round's sends and receives, or a part of them */
    int64_t n_whole;    /* plans that were one collective of NCCL, each a launch too */
    int64_t n_message;  /* sends and receives in groups */
    int64_t sent_bytes; /* by them and by whole collectives */
    int64_t n_kernel;   /* launches of ours: copies and additions */
    int64_t n_settle;   /* launches that NCCL took longer over than the call */
};

struct mt_nccl_table {
    /* 22809: 2.28.9 */
    enum mt_status (*version)(int *version);
    enum mt_status (*create_ids)(struct mt_nccl_ids *ids);
    /* Begins to connect this rank; `cuda` is the context whose stream plans are ordered with, and
     * its GPU is the current one. What is opened must be closed, however poll_open ends. */
    enum mt_status (*open)(struct mt_cuda *cuda, int rank, int n_rank,
                           const struct mt_nccl_ids *ids, struct mt_nccl **out);
    enum mt_status (*poll_open)(struct mt_nccl *nccl, bool *is_open);
    /* Enqueues the plan behind what the main stream has now. Buffers are device memory, offsets and
     * sizes multiples of 4 bytes; plan and `buffer` are read before the call returns. Waits until
     * NCCL has launched, which needs the peers the first time that two ranks meet. `over`: an event
     * to be recorded behind the plan, which is over when the plan's end is; NULL: none. */
    enum mt_status (*begin)(struct mt_nccl *nccl, enum mt_urgency urgency,
                            const struct mt_plan *plan, void *const buffer[MT_N_BUFFER], void *over,
                            int *ticket);
    enum mt_status (*poll)(struct mt_nccl *nccl, int ticket, bool *is_done);
    /* What the main stream gets from now on comes after the plan; gives the ticket back. */
    enum mt_status (*end)(struct mt_nccl *nccl, int ticket);
    /* The same for what is fetched from now on, and not for the main stream. */
    enum mt_status (*end_fetched)(struct mt_nccl *nccl, int ticket);
    /* Whether anything under way has failed, here or at a peer. */
    enum mt_status (*check)(struct mt_nccl *nccl);
    /* Gives up what is under way; streams that wait for it go on. */
    void (*abort)(struct mt_nccl *nccl);
    /* Waits for what is under way, unless it was aborted. NULL allowed. */
    void (*close)(struct mt_nccl *nccl);
    struct mt_nccl_counts (*count)(const struct mt_nccl *nccl);
};

/* The module's. */
extern const struct mt_nccl_table mt_nccl_functions;

/* The program's: of a transport made by mt_transport_create_nccl. */
struct mt_transport;
struct mt_nccl_counts mt_transport_nccl_counts(struct mt_transport *transport);

#ifdef __cplusplus
}
#endif

#endif
