/* Running plans: one executor over a transport, in begin / end pairs so that overlap is visible.
 *
 * All ranks begin the same collectives in the same order, whatever their counts are; the order
 * gives the message tags. Between begin and end the caller computes and may poll. */
#ifndef MT_COMM_COMM_H
#define MT_COMM_COMM_H

#include "comm/collectives.h"
#include "comm/transport.h"

enum { MT_MAX_ACTIVE = 64, MT_MAX_TRAFFIC = 32 };

/* Bytes sent per collective's name, this rank, since the last reset. */
struct mt_traffic {
    const char *name;
    int64_t sent_bytes;
};

struct mt_device;
struct mt_exec;

/* Stays in its place between init and clear: executors point to it. */
struct mt_comm {
    int rank;
    struct mt_topology topology;
    struct mt_transport *transport;
    struct mt_transport *device; /* between devices; NULL: everything is in host memory */
    struct mt_device *timed;     /* whose plans are timed (device/timeline.h); NULL: none are */
    int64_t sequence;            /* collectives begun so far */
    int64_t slice_bytes; /* larger messages are cut, the same on every rank: a transport's limit */
    int n_active;
    struct mt_exec *active[MT_MAX_ACTIVE]; /* begun, not ended: what poll advances */
    int n_traffic;
    struct mt_traffic traffic[MT_MAX_TRAFFIC];
    void *small_stage; /* for the small blocking collectives below */
    int64_t small_stage_bytes;
    struct mt_plan small_plan;
    struct mt_exec *small_exec;
    enum mt_status failure; /* of mt_comm_progress */
    bool has_own_cores;     /* set by who knows: a wait need not leave its core to another rank */
};

/* Takes over transport and topology (cleared by mt_comm_clear). */
enum mt_status mt_comm_init(struct mt_comm *comm, int rank, struct mt_topology *topology,
                            struct mt_transport *transport);
/* Topology discovered, transport mpi. Collective. */
enum mt_status mt_comm_init_mpi(struct mt_comm *comm, MPI_Comm world, int ranks_per_node);
/* Once, after init_mpi: messages between nodes are late (mt_transport_mpi_rehearse); 0: not. */
enum mt_status mt_comm_rehearse(struct mt_comm *comm, int64_t alpha_us);
/* From here on executors of device memory run over this transport, which takes plans whole. Takes
 * it over. MPI sees host memory alone. */
void mt_comm_set_device(struct mt_comm *comm, struct mt_transport *device);
/* Their arrivals and ends are recorded by this device's clock, which has a timeline. */
void mt_comm_time_by(struct mt_comm *comm, struct mt_device *device);
void mt_comm_clear(struct mt_comm *comm);

/* One running plan. Created once, with room for plans of up to max_op ops; used again and again. */
enum mt_status mt_exec_create(struct mt_comm *comm, int64_t max_op, struct mt_exec **out);
/* The same for buffers that are in the device's memory where the device has its own. There begin
 * and end wait for nothing: work of the device behind end comes after the plan, and the buffers are
 * free for such work. poll says when the host may read them. */
enum mt_status mt_exec_create_device(struct mt_comm *comm, enum mt_urgency urgency, int64_t max_op,
                                     struct mt_exec **out);
void mt_exec_destroy(struct mt_exec *exec); /* NULL allowed */
bool mt_exec_is_active(const struct mt_exec *exec);

/* Starts the plan; plan and buffers [MT_N_BUFFER] (unused: NULL) stay untouched until end. */
enum mt_status mt_exec_begin(struct mt_exec *exec, const struct mt_plan *plan,
                             void *const buffer[MT_N_BUFFER]);
/* Advances without blocking. */
enum mt_status mt_exec_poll(struct mt_exec *exec, bool *done);
/* Returns when the plan is complete. Waiting counts as exposed communication (base/clock.h) and is
 * watched (base/job.h). Ending what was not begun is a no-op. */
enum mt_status mt_exec_end(struct mt_exec *exec);
/* The same on behalf of the host alone: what is fetched from the device from now on comes after the
 * plan (device/memory.h), its other work does not. The buffers are free when that has been waited
 * for. */
enum mt_status mt_exec_end_fetched(struct mt_exec *exec);
/* Advances everything that is begun: called between kernels. */
enum mt_status mt_comm_poll(struct mt_comm *comm);
/* The same for those who cannot fail, a struct mt_comm behind the pointer: the idle function of a
 * device. A failure is kept for the next poll, also that of an end that has to wait. True:
 * something is incomplete. Whoever waits for a GPU calls it meanwhile: a failure of NCCL ends what
 * the GPU waits for. */
bool mt_comm_progress(void *comm);

/* Small and blocking; n_item items of 8 bytes. In place: values [n_item] becomes the sum in the
 * fixed order of mt_plan_allreduce. */
enum mt_status mt_comm_sum_f64(struct mt_comm *comm, double *values, int64_t n_item);
enum mt_status mt_comm_sum_i64(struct mt_comm *comm, int64_t *values, int64_t n_item);
/* mine [n_item] -> all [R, n_item] */
enum mt_status mt_comm_gather_f64(struct mt_comm *comm, const double *mine, int64_t n_item,
                                  double *all);
enum mt_status mt_comm_gather_i64(struct mt_comm *comm, const int64_t *mine, int64_t n_item,
                                  int64_t *all);
/* Capacity of the four calls above, in items of this rank's block; default 4096. */
enum mt_status mt_comm_reserve_small(struct mt_comm *comm, int64_t n_item);

void mt_comm_reset_traffic(struct mt_comm *comm);

#endif
