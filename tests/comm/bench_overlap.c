/* Who makes communication advance while a rank computes or sleeps? A sparse all-gather of experts
 * is begun, then a rank works, then it is ended; the candidates differ in who polls meanwhile.
 * docs/decisions/0006-progress.md has the results and the command; not a test, for it measures.
 *
 *   mpirun -np R bench_overlap [WORK_MS [N_REPEAT]]
 *
 * Every rank owns two experts, lends one to the next rank and one to the rank after that. Times are
 * of the slowest rank, and the lower quartile of the repetitions, which go through all candidates
 * in turn: a machine that others use as well disturbs all alike. `hidden` = how much of what
 * blocking costs is gone. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "kernel/kernel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of the work, of the work on its thread's processor, from begin to end. */
enum { TIME_WORK, TIME_PROCESSOR, TIME_ALL, N_TIME };
enum {
    MAX_REPEAT = 101,
    MAX_CASE = 32,
    MAX_RANK = 64,
    CHUNKS_A_RANK = 2,
    MAX_CHUNK = CHUNKS_A_RANK * MAX_RANK,
    LENGTH = 256,
    WIDTH = 256,
    N_HEAD = 4,
    N_SEQUENCE = 4
};

/* One communication thread, between start and stop the only one that calls MPI. */
struct helper {
    pthread_t thread;
    struct mt_comm *comm;
    _Atomic(bool) is_wanted, is_busy, is_over;
};

struct bench {
    struct mt_comm comm;
    struct mt_device device;
    int n_rank, rank;
    int64_t chunk_bytes;
    struct mt_sparse sparse;
    int64_t chunk_long[4 * MAX_CHUNK + 1];
    int chunk_int[2 * MAX_CHUNK];
    char *home, *copy;
    struct mt_plan plan;
    struct mt_exec *exec;
    struct mt_weight weight;
    float *x, *q, *k, *v, *o, *lse;
    void *pack, *scratch;
    int64_t n_round; /* rounds of kernels that last about as long as wanted */
    int64_t work_ns;
    int64_t slice_ns; /* of a sleep that polls n_poll times between slices */
    int n_poll;
    struct helper helper;
    double time_ns[MAX_CASE][N_TIME][MAX_REPEAT];
};

/* ---- work ---- */

/* Projections and causal attention of four sequences of configs/bench-cpu.toml. */
static void run_kernels(struct bench *bench, bool polls_between)
{
    const int64_t n = (int64_t)N_SEQUENCE * LENGTH;
    const struct mt_attention shape = {N_SEQUENCE, LENGTH, N_HEAD, N_HEAD, WIDTH / N_HEAD, 0};
    const struct mt_attention_forward attention = {bench->o, bench->lse,     bench->q, bench->k,
                                                   bench->v, bench->scratch, NULL,     NULL};
    float *const y[] = {bench->q, bench->k, bench->v};
    for (int64_t round = 0; round < bench->n_round; ++round) {
        for (int i = 0; i < 3; ++i) {
            mt_linear_forward(&bench->device, y[i], bench->x, &bench->weight, n);
        }
        if (polls_between) {
            (void)mt_comm_progress(&bench->comm);
        }
        mt_attention_forward(&bench->device, &attention, &shape);
        if (polls_between) {
            (void)mt_comm_progress(&bench->comm);
        }
        mt_linear_forward(&bench->device, bench->x, bench->o, &bench->weight, n);
    }
}

static void work_kernels(struct bench *bench)
{
    run_kernels(bench, false);
}

static void work_kernels_between(struct bench *bench)
{
    run_kernels(bench, true);
}

static void work_kernels_inside(struct bench *bench)
{
    mt_device_set_idle(&bench->device, mt_comm_progress, &bench->comm);
    run_kernels(bench, true);
    mt_device_set_idle(&bench->device, NULL, NULL);
}

static void work_sleep(struct bench *bench)
{
    mt_clock_sleep_until_ns(mt_clock_ns() + bench->work_ns);
}

static void work_sleep_slices(struct bench *bench)
{
    const int64_t end_ns = mt_clock_ns() + bench->work_ns;
    bool is_under_way = true;
    for (int64_t now = mt_clock_ns(); now < end_ns && is_under_way; now = mt_clock_ns()) {
        is_under_way = mt_comm_progress(&bench->comm);
        for (int i = 1; i < bench->n_poll && is_under_way; ++i) {
            (void)sched_yield();
            is_under_way = mt_comm_progress(&bench->comm);
        }
        const int64_t slice_end_ns = mt_clock_ns() + bench->slice_ns;
        mt_clock_sleep_until_ns(slice_end_ns < end_ns ? slice_end_ns : end_ns);
    }
    mt_clock_sleep_until_ns(end_ns);
}

/* The device as the trainer uses it: one paced operation. */
static void work_sleep_device(struct bench *bench)
{
    mt_device_set_idle(&bench->device, mt_comm_progress, &bench->comm);
    bench->device.pace_debt_ns = bench->work_ns;
    mt_device_settle(&bench->device);
    bench->device.pace_debt_ns = 0;
    mt_device_set_idle(&bench->device, NULL, NULL);
}

/* ---- the thread ---- */

static void *help(void *context)
{
    struct helper *helper = context;
    while (!atomic_load(&helper->is_over)) {
        if (!atomic_load(&helper->is_wanted)) {
            mt_clock_sleep_until_ns(mt_clock_ns() + 20000);
            continue;
        }
        atomic_store(&helper->is_busy, true);
        const bool is_under_way = atomic_load(&helper->is_wanted) && mt_comm_progress(helper->comm);
        atomic_store(&helper->is_busy, false);
        if (is_under_way) {
            (void)sched_yield();
        } else {
            mt_clock_sleep_until_ns(mt_clock_ns() + 20000);
        }
    }
    return NULL;
}

static void with_thread(struct bench *bench, void (*work)(struct bench *))
{
    atomic_store(&bench->helper.is_wanted, true);
    work(bench);
    atomic_store(&bench->helper.is_wanted, false);
    while (atomic_load(&bench->helper.is_busy)) {
        (void)sched_yield();
    }
}

static void work_kernels_thread(struct bench *bench)
{
    with_thread(bench, work_kernels);
}

static void work_sleep_thread(struct bench *bench)
{
    with_thread(bench, work_sleep);
}

/* ---- cases ---- */

enum gather { GATHER_NONE, GATHER_BEFORE, GATHER_UNDER };

static const struct bench_case {
    const char *name;
    enum gather gather;
    void (*work)(struct bench *bench);
    int n_poll;
    int64_t slice_ns;
} bench_cases[] = {
    {"kernels alone", GATHER_NONE, work_kernels, 0, 0},
    {"kernels, blocking", GATHER_BEFORE, work_kernels, 0, 0},
    {"kernels, nobody", GATHER_UNDER, work_kernels, 0, 0},
    {"kernels, between", GATHER_UNDER, work_kernels_between, 0, 0},
    {"kernels, inside", GATHER_UNDER, work_kernels_inside, 0, 0},
    {"kernels, thread", GATHER_UNDER, work_kernels_thread, 0, 0},
    {"sleep alone", GATHER_NONE, work_sleep, 0, 0},
    {"sleep, blocking", GATHER_BEFORE, work_sleep, 0, 0},
    {"sleep, nobody", GATHER_UNDER, work_sleep, 0, 0},
    {"sleep, 1 poll, 20 us", GATHER_UNDER, work_sleep_slices, 1, 20000},
    {"sleep, 1 poll, 50 us", GATHER_UNDER, work_sleep_slices, 1, 50000},
    {"sleep, 1 poll, 100 us", GATHER_UNDER, work_sleep_slices, 1, 100000},
    {"sleep, 1 poll, 200 us", GATHER_UNDER, work_sleep_slices, 1, 200000},
    {"sleep, 4 polls, 20 us", GATHER_UNDER, work_sleep_slices, 4, 20000},
    {"sleep, 4 polls, 50 us", GATHER_UNDER, work_sleep_slices, 4, 50000},
    {"sleep, 16 polls, 20 us", GATHER_UNDER, work_sleep_slices, 16, 20000},
    {"sleep, 16 polls, 50 us", GATHER_UNDER, work_sleep_slices, 16, 50000},
    {"sleep, device", GATHER_UNDER, work_sleep_device, 0, 0},
    {"sleep, thread", GATHER_UNDER, work_sleep_thread, 0, 0},
};
enum { N_BENCH_CASE = sizeof(bench_cases) / sizeof(bench_cases[0]) };
_Static_assert((int)N_BENCH_CASE <= (int)MAX_CASE, "times are kept for all cases");

static enum mt_status gather_begin(struct bench *bench)
{
    void *const buffer[MT_N_BUFFER] = {bench->home, bench->copy, NULL};
    return mt_exec_begin(bench->exec, &bench->plan, buffer);
}

/* Processor time of the calling thread. */
static int64_t processor_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* time_ns [N_TIME], the slowest rank's, on every rank. */
static enum mt_status run_once(struct bench *bench, const struct bench_case *which, double *time_ns)
{
    int64_t nothing = 0;
    double all[N_TIME * MAX_RANK];
    MT_TRY(mt_comm_sum_i64(&bench->comm, &nothing, 1));
    const int64_t start_ns = mt_clock_ns();
    if (which->gather != GATHER_NONE) {
        MT_TRY(gather_begin(bench));
    }
    if (which->gather == GATHER_BEFORE) {
        MT_TRY(mt_exec_end(bench->exec));
    }
    const int64_t work_start_ns = mt_clock_ns();
    const int64_t processor_start_ns = processor_ns();
    which->work(bench);
    const int64_t processor_end_ns = processor_ns();
    const int64_t work_end_ns = mt_clock_ns();
    MT_TRY(mt_exec_end(bench->exec));
    const double mine[N_TIME] = {[TIME_WORK] = (double)(work_end_ns - work_start_ns),
                                 [TIME_PROCESSOR] = (double)(processor_end_ns - processor_start_ns),
                                 [TIME_ALL] = (double)(mt_clock_ns() - start_ns)};
    MT_TRY(mt_comm_gather_f64(&bench->comm, mine, N_TIME, all));
    for (int t = 0; t < N_TIME; ++t) {
        time_ns[t] = 0.0;
        for (int rank = 0; rank < bench->n_rank; ++rank) {
            const double its = all[rank * N_TIME + t];
            time_ns[t] = its > time_ns[t] ? its : time_ns[t];
        }
    }
    return MT_OK;
}

static int compare_double(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return (a > b) - (a < b);
}

static double lower_quartile(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), compare_double);
    return values[n / 4];
}

static enum mt_status repeat_cases(struct bench *bench, int n_repeat)
{
    double time_ns[N_TIME];
    for (int i = -1; i < n_repeat; ++i) { /* the first time does not count */
        for (int c = 0; c < N_BENCH_CASE; ++c) {
            bench->n_poll = bench_cases[c].n_poll;
            bench->slice_ns = bench_cases[c].slice_ns;
            MT_TRY(run_once(bench, &bench_cases[c], time_ns));
            for (int t = 0; t < N_TIME && i >= 0; ++t) {
                bench->time_ns[c][t][i] = time_ns[t];
            }
        }
    }
    return MT_OK;
}

static void print_cases(struct bench *bench, int n_repeat)
{
    double alone_ms = 0.0;
    double blocking_ms = 0.0;
    for (int c = 0; c < N_BENCH_CASE; ++c) {
        const struct bench_case *which = &bench_cases[c];
        double time_ms[N_TIME];
        for (int t = 0; t < N_TIME; ++t) {
            time_ms[t] = lower_quartile(bench->time_ns[c][t], n_repeat) * 1e-6;
        }
        const double all_ms = time_ms[TIME_ALL];
        alone_ms = which->gather == GATHER_NONE ? all_ms : alone_ms;
        blocking_ms = which->gather == GATHER_BEFORE ? all_ms : blocking_ms;
        printf("%5.2f MB  %-22s work %7.2f ms  processor %7.2f ms  all %7.2f ms",
               (double)bench->chunk_bytes * 1e-6, which->name, time_ms[TIME_WORK],
               time_ms[TIME_PROCESSOR], time_ms[TIME_ALL]);
        if (which->gather == GATHER_UNDER) {
            printf("  hidden %4.0f %%",
                   100.0 - 100.0 * (all_ms - alone_ms) / (blocking_ms - alone_ms));
        }
        printf("\n");
    }
    (void)fflush(stdout);
}

static enum mt_status run_cases(struct bench *bench, int n_repeat)
{
    MT_TRY(repeat_cases(bench, n_repeat));
    if (bench->rank == 0) {
        print_cases(bench, n_repeat);
    }
    return MT_OK;
}

/* ---- making and ending ---- */

static void describe(struct bench *bench, int64_t chunk_bytes)
{
    const int n_chunk = CHUNKS_A_RANK * bench->n_rank;
    int64_t *bytes = bench->chunk_long;
    int64_t *home = bytes + MAX_CHUNK;
    int64_t *copy = home + MAX_CHUNK;
    int *owner = bench->chunk_int;
    int *holder = owner + MAX_CHUNK;
    bench->chunk_bytes = chunk_bytes;
    int64_t *holder_start = copy + MAX_CHUNK;
    holder_start[0] = 0;
    for (int c = 0; c < n_chunk; ++c) {
        bytes[c] = chunk_bytes;
        home[c] = copy[c] = c % CHUNKS_A_RANK * chunk_bytes;
        owner[c] = c / CHUNKS_A_RANK;
        const int wanted = (owner[c] + 1 + c % CHUNKS_A_RANK) % bench->n_rank;
        holder[c] = wanted != owner[c] ? wanted : (owner[c] + 1) % bench->n_rank;
        holder_start[c + 1] = c + 1;
    }
    bench->sparse = (struct mt_sparse){.n_chunk = n_chunk,
                                       .chunk_bytes = bytes,
                                       .owner = owner,
                                       .holder_start = holder_start,
                                       .holder = holder};
    mt_plan_sparse_allgather(&bench->plan, bench->rank, &bench->sparse, home, copy);
}

static enum mt_status allocate(struct bench *bench, int64_t max_bytes)
{
    const int64_t n = (int64_t)N_SEQUENCE * LENGTH;
    const struct mt_attention shape = {N_SEQUENCE, LENGTH, N_HEAD, N_HEAD, WIDTH / N_HEAD, 0};
    float **const rows[] = {&bench->x, &bench->q, &bench->k, &bench->v, &bench->o, &bench->lse};
    float *values = NULL;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        MT_TRY(MT_ALLOCATE(*rows[i], n * WIDTH, "bench"));
    }
    MT_TRY(MT_ALLOCATE(bench->home, CHUNKS_A_RANK * max_bytes, "bench"));
    MT_TRY(MT_ALLOCATE(bench->copy, CHUNKS_A_RANK * max_bytes, "bench"));
    MT_TRY(mt_memory_allocate(mt_attention_scratch_bytes(&bench->device, &shape), "bench",
                              &bench->scratch));
    MT_TRY(mt_memory_allocate(mt_weight_bytes(&bench->device, WIDTH, WIDTH, false), "bench",
                              &bench->pack));
    MT_TRY(mt_linear_prepare(&bench->device, WIDTH, WIDTH));
    MT_TRY(MT_ALLOCATE(values, WIDTH * WIDTH, "bench"));
    mt_weight_init(&bench->device, &bench->weight, WIDTH, WIDTH, false, bench->pack);
    mt_weight_pack(&bench->device, &bench->weight, values);
    mt_memory_free(values);
    memset(bench->home, 1, (size_t)(CHUNKS_A_RANK * max_bytes));
    memset(bench->copy, 1, (size_t)(CHUNKS_A_RANK * max_bytes));
    MT_TRY(mt_plan_init(&bench->plan, 4 * MAX_CHUNK));
    return mt_exec_create(&bench->comm, 4 * MAX_CHUNK, &bench->exec);
}

/* Rounds of kernels that last about as long as the sleep, with all ranks at work. */
static enum mt_status choose_rounds(struct bench *bench)
{
    double time_ns[N_TIME];
    const struct bench_case alone = {"", GATHER_NONE, work_kernels, 0, 0};
    bench->n_round = 4;
    MT_TRY(run_once(bench, &alone, time_ns));
    MT_TRY(run_once(bench, &alone, time_ns));
    const double wanted = 4.0 * (double)bench->work_ns / time_ns[TIME_WORK];
    bench->n_round = wanted < 1.0 ? 1 : (int64_t)(wanted + 0.5);
    return MT_OK;
}

static enum mt_status run(struct bench *bench, int n_repeat)
{
    static const int64_t size[] = {400000, 1500000, 6000000};
    enum { N_SIZE = sizeof(size) / sizeof(size[0]) };
    mt_device_init_plain(&bench->device);
    MT_TRY(mt_comm_init_mpi(&bench->comm, MPI_COMM_WORLD, 0));
    bench->n_rank = bench->comm.topology.n_rank;
    bench->rank = bench->comm.rank;
    MT_ASSERT(bench->n_rank >= 2 && bench->n_rank <= MAX_RANK);
    MT_TRY(allocate(bench, size[N_SIZE - 1]));
    MT_TRY(choose_rounds(bench));
    bench->helper.comm = &bench->comm;
    MT_ASSERT(pthread_create(&bench->helper.thread, NULL, help, &bench->helper) == 0);
    if (bench->rank == 0) {
        printf("%d ranks, %lld rounds of kernels, %.1f ms of sleep, lower quartile of %d\n",
               bench->n_rank, (long long)bench->n_round, (double)bench->work_ns * 1e-6, n_repeat);
    }
    for (int i = 0; i < N_SIZE; ++i) {
        describe(bench, size[i]);
        MT_TRY(run_cases(bench, n_repeat));
    }
    atomic_store(&bench->helper.is_over, true);
    (void)pthread_join(bench->helper.thread, NULL);
    return MT_OK;
}

/* A job of its own: the thread needs a level that the trainer does not ask for. */
int main(int argc, char **argv)
{
    static struct bench bench;
    int provided = 0;
    const long work_ms = argc > 1 ? strtol(argv[1], NULL, 10) : 10;
    const long n_repeat = argc > 2 ? strtol(argv[2], NULL, 10) : 11;
    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
    MT_ASSERT(provided >= MPI_THREAD_SERIALIZED);
    MT_ASSERT(work_ms >= 1 && n_repeat >= 1 && n_repeat <= MAX_REPEAT);
    bench.work_ns = (int64_t)work_ms * 1000000;
    const enum mt_status status = run(&bench, (int)n_repeat);
    if (status != MT_OK) {
        (void)fprintf(stderr, "%s\n", mt_error_last()->text);
        (void)MPI_Abort(MPI_COMM_WORLD, 1);
    }
    (void)MPI_Finalize();
    return 0;
}
