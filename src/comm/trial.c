#include "comm/trial.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"

enum { THERE, BACK };

void mt_trial_fill_even(int n_rank, int64_t pair_bytes, int64_t *bytes)
{
    for (int64_t i = 0; i < (int64_t)n_rank * n_rank; ++i) {
        bytes[i] = pair_bytes;
    }
}

void mt_trial_fill_hot(int n_rank, int64_t pair_bytes, int64_t *bytes)
{
    enum { ITEM_BYTES = 4 };
    const int64_t hot = mt_min_i64(MT_TRIAL_HOT_FACTOR, n_rank) * pair_bytes;
    const int64_t left = n_rank * pair_bytes - hot;
    const int64_t cold = n_rank > 1 ? left / (n_rank - 1) / ITEM_BYTES * ITEM_BYTES : 0;
    for (int64_t i = 0; i < (int64_t)n_rank * n_rank; ++i) {
        bytes[i] = i % n_rank == 0 ? hot : cold;
    }
}

/* ---- plans ---- */

static enum mt_status plan_direct(struct mt_trial *trial, int direction, const int64_t *bytes)
{
    const struct mt_topology *topology = &trial->comm->topology;
    const int64_t n_rank = topology->n_rank;
    const int rank = trial->comm->rank;
    struct mt_plan *plan = &trial->plan[direction][MT_TRIAL_DIRECT];
    /* what it receives is what it sends the other way */
    const int64_t *mirrored = direction == THERE ? trial->back : trial->there;
    MT_TRY(mt_plan_init(plan, mt_plan_alltoallv_direct_max_op(topology->n_rank)));
    mt_plan_alltoallv_direct(plan, topology, rank, bytes + rank * n_rank, mirrored + rank * n_rank);
    return MT_OK;
}

static enum mt_status plan_ways(struct mt_trial *trial, int direction, int64_t *stage_bytes)
{
    const struct mt_topology *topology = &trial->comm->topology;
    const int rank = trial->comm->rank;
    const int64_t *bytes = direction == THERE ? trial->there : trial->back;
    struct mt_plan *two_level = &trial->plan[direction][MT_TRIAL_TWO_LEVEL];
    struct mt_plan *leader = &trial->plan[direction][MT_TRIAL_LEADER];
    MT_TRY(plan_direct(trial, direction, bytes));
    MT_TRY(mt_plan_init(two_level, mt_plan_alltoallv_two_level_max_op(topology, rank)));
    MT_TRY(mt_plan_init(leader, mt_plan_alltoallv_leader_max_op(topology, rank)));
    mt_plan_alltoallv_two_level(two_level, topology, rank, bytes);
    mt_plan_alltoallv_leader(leader, topology, rank, bytes);
    *stage_bytes = mt_max_i64(
        *stage_bytes, mt_max_i64(mt_plan_alltoallv_two_level_stage_bytes(topology, rank, bytes),
                                 mt_plan_alltoallv_leader_stage_bytes(topology, rank, bytes)));
    return MT_OK;
}

enum mt_status mt_trial_init(struct mt_trial *trial, struct mt_comm *comm, const int64_t *bytes)
{
    static const char WHAT[] = "trial of exchanges";
    const int64_t n_rank = comm->topology.n_rank;
    int64_t stage_bytes = 0;
    int64_t max_op = 0;
    *trial = (struct mt_trial){.comm = comm};
    MT_TRY(MT_ALLOCATE(trial->there, n_rank * n_rank, WHAT));
    MT_TRY(MT_ALLOCATE(trial->back, n_rank * n_rank, WHAT));
    for (int64_t i = 0; i < n_rank * n_rank; ++i) {
        trial->there[i] = bytes[i];
        trial->back[i] = bytes[i % n_rank * n_rank + i / n_rank];
    }
    for (int64_t peer = 0; peer < n_rank; ++peer) {
        trial->send_bytes += trial->there[comm->rank * n_rank + peer];
        trial->recv_bytes += trial->back[comm->rank * n_rank + peer];
    }
    for (int direction = THERE; direction <= BACK; ++direction) {
        MT_TRY(plan_ways(trial, direction, &stage_bytes));
        for (int way = 0; way < MT_N_TRIAL_WAY; ++way) {
            max_op = mt_max_i64(max_op, trial->plan[direction][way].n_op);
        }
    }
    MT_TRY(MT_ALLOCATE(trial->send, trial->send_bytes, WHAT));
    MT_TRY(MT_ALLOCATE(trial->recv, trial->recv_bytes, WHAT));
    MT_TRY(MT_ALLOCATE(trial->home, trial->send_bytes, WHAT));
    MT_TRY(MT_ALLOCATE(trial->stage, stage_bytes, WHAT));
    return mt_exec_create(comm, max_op, &trial->exec);
}

void mt_trial_clear(struct mt_trial *trial)
{
    void *const array[] = {trial->there, trial->back, trial->send,
                           trial->recv,  trial->home, trial->stage};
    mt_exec_destroy(trial->exec);
    for (int direction = THERE; direction <= BACK; ++direction) {
        for (int way = 0; way < MT_N_TRIAL_WAY; ++way) {
            mt_plan_clear(&trial->plan[direction][way]);
        }
    }
    for (size_t i = 0; i < sizeof(array) / sizeof(array[0]); ++i) {
        mt_memory_free(array[i]);
    }
    *trial = (struct mt_trial){0};
}

/* ---- running ---- */

enum mt_status mt_trial_run(struct mt_trial *trial, enum mt_trial_way way)
{
    void *const there[MT_N_BUFFER] = {trial->send, trial->recv, trial->stage};
    void *const back[MT_N_BUFFER] = {trial->recv, trial->home, trial->stage};
    MT_TRY(mt_exec_begin(trial->exec, &trial->plan[THERE][way], there));
    MT_TRY(mt_exec_end(trial->exec));
    MT_TRY(mt_exec_begin(trial->exec, &trial->plan[BACK][way], back));
    return mt_exec_end(trial->exec);
}

int mt_trial_n_in_a_row(int64_t pair_bytes)
{
    enum { SMALL_BYTES = 4096, IN_A_ROW = 2 };
    return pair_bytes <= SMALL_BYTES ? IN_A_ROW : 1;
}

enum mt_status mt_trial_time(struct mt_comm *comm, enum mt_status (*run)(void *context),
                             void *context, int n_run, double *time_s,
                             struct mt_trial_sample *sample)
{
    enum { PAUSE_NS = 1000000 };
    int64_t nothing = 0;
    mt_clock_sleep_until_ns(mt_clock_ns() + PAUSE_NS);
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    const int64_t start_ns = mt_clock_ns();
    const int64_t start_cpu_ns = mt_clock_cpu_ns();
    for (int i = 0; i < n_run; ++i) {
        MT_TRY(run(context));
    }
    const double per_run = 1e-9 / (double)n_run;
    const double mine = (double)(mt_clock_ns() - start_ns) * per_run;
    sample->busy_s = (double)(mt_clock_cpu_ns() - start_cpu_ns) * per_run;
    MT_TRY(mt_comm_gather_f64(comm, &mine, 1, time_s));
    MT_TRY(mt_comm_sum_f64(comm, &sample->busy_s, 1));
    sample->slowest_s = 0.0;
    for (int rank = 0; rank < comm->topology.n_rank; ++rank) {
        sample->slowest_s = time_s[rank] > sample->slowest_s ? time_s[rank] : sample->slowest_s;
    }
    return MT_OK;
}

double mt_trial_typical(double *value, int n)
{
    enum { QUARTER = 4 };
    mt_sort_f64(value, n);
    return value[n / QUARTER];
}
