/* What would copying straight out of a peer's memory gain over messages between ranks of a machine?
 * An all-to-all of equal blocks (of two ranks: both ways at once), three times:
 *
 *   messages   the executor over transport mpi, as the trainer does it
 *   window     senders' buffers lie in a window that all map (MPI_Win_allocate_shared): flags say
 *              when a block may be read and was read, the receiver copies it once
 *   staged     the same for buffers that lie elsewhere: one more copy, into the window
 *
 * docs/decisions/0011-node-memory.md has the results and the command; not a test, for it measures.
 *
 *   mpirun -np R bench_node [N_REPEAT]
 *
 * Times are of the slowest rank: the least and the lower quartile of the repetitions, which go
 * through all ways in turn, and processor time, which others on the machine disturb less. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/comm.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RANK = 64, MAX_REPEAT = 1001, LINE = 64 };
enum way { WAY_MESSAGES, WAY_WINDOW, WAY_STAGED, N_WAY };
enum { TIME_WALL, TIME_PROCESSOR, N_TIME };
static const char *const way_name[N_WAY] = {"messages", "window", "staged"};

/* In front of a rank's blocks in the window, each flag on a cache line of its own: exchanges whose
 * blocks are there to be read, and that each peer has read. */
struct flags {
    _Alignas(LINE) _Atomic(int64_t) n_ready;
    struct {
        _Alignas(LINE) _Atomic(int64_t) n_read;
    } peer[MAX_RANK];
};

struct bench {
    struct mt_comm comm;
    int rank, n_rank;
    int64_t block_bytes, max_bytes; /* of one peer; largest */
    char *send, *recv;              /* [R, block] */
    struct flags *window[MAX_RANK]; /* flags, then blocks [R, block] */
    int64_t n_exchange;
    int64_t bytes[MAX_RANK];
    struct mt_plan plan;
    struct mt_exec *exec;
    double time_ns[N_WAY][N_TIME][MAX_REPEAT];
};

static char *block_in(const struct bench *bench, int owner, int target)
{
    return (char *)(bench->window[owner] + 1) + target * bench->block_bytes;
}

/* As the executor waits: ranks may outnumber cores. */
static void await(_Atomic(int64_t) *flag, int64_t value)
{
    enum { SPINS = 64 };
    for (int64_t n = 0; atomic_load_explicit(flag, memory_order_acquire) < value; ++n) {
        if (n >= SPINS) {
            (void)sched_yield();
        }
    }
}

static void exchange_window(struct bench *bench, bool is_staged)
{
    const int64_t number = ++bench->n_exchange;
    struct flags *mine = bench->window[bench->rank];
    if (is_staged) {
        for (int i = 1; i < bench->n_rank; ++i) {
            const int peer = (bench->rank + i) % bench->n_rank;
            await(&mine->peer[peer].n_read, number - 1);
            memcpy(block_in(bench, bench->rank, peer), bench->send + peer * bench->block_bytes,
                   (size_t)bench->block_bytes);
        }
    }
    atomic_store_explicit(&mine->n_ready, number, memory_order_release);
    for (int i = 0; i < bench->n_rank; ++i) {
        const int peer = (bench->rank + i) % bench->n_rank;
        await(&bench->window[peer]->n_ready, number);
        memcpy(bench->recv + peer * bench->block_bytes, block_in(bench, peer, bench->rank),
               (size_t)bench->block_bytes);
        atomic_store_explicit(&bench->window[peer]->peer[bench->rank].n_read, number,
                              memory_order_release);
    }
    for (int peer = 0; peer < bench->n_rank && !is_staged; ++peer) {
        await(&mine->peer[peer].n_read, number); /* the buffer may be written again */
    }
}

static enum mt_status exchange(struct bench *bench, enum way way)
{
    if (way != WAY_MESSAGES) {
        exchange_window(bench, way == WAY_STAGED);
        return MT_OK;
    }
    void *const buffer[MT_N_BUFFER] = {bench->send, bench->recv, NULL};
    MT_TRY(mt_exec_begin(bench->exec, &bench->plan, buffer));
    return mt_exec_end(bench->exec);
}

static double processor_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static enum mt_status run_once(struct bench *bench, enum way way, int repeat)
{
    int64_t nothing = 0;
    double all[N_TIME * MAX_RANK];
    MT_TRY(mt_comm_sum_i64(&bench->comm, &nothing, 1));
    const double start_ns = (double)mt_clock_ns();
    const double start_processor_ns = processor_ns();
    MT_TRY(exchange(bench, way));
    const double mine[N_TIME] = {(double)mt_clock_ns() - start_ns,
                                 processor_ns() - start_processor_ns};
    MT_TRY(mt_comm_gather_f64(&bench->comm, mine, N_TIME, all));
    for (int t = 0; t < N_TIME && repeat >= 0; ++t) {
        double slowest = 0.0;
        for (int rank = 0; rank < bench->n_rank; ++rank) {
            const double its = all[rank * N_TIME + t];
            slowest = its > slowest ? its : slowest;
        }
        bench->time_ns[way][t][repeat] = slowest;
    }
    return MT_OK;
}

static int compare_double(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return (a > b) - (a < b);
}

static void print(struct bench *bench, int n_repeat)
{
    for (int way = 0; way < N_WAY; ++way) {
        double *wall = bench->time_ns[way][TIME_WALL];
        double *processor = bench->time_ns[way][TIME_PROCESSOR];
        qsort(wall, (size_t)n_repeat, sizeof(*wall), compare_double);
        qsort(processor, (size_t)n_repeat, sizeof(*processor), compare_double);
        const double bytes = (double)bench->block_bytes * (double)(bench->n_rank - 1);
        printf("%2d ranks %9lld B to each  %-8s  least %9.1f us  quartile %9.1f us  processor "
               "%9.1f us  %6.2f GB/s a rank\n",
               bench->n_rank, (long long)bench->block_bytes, way_name[way], wall[0] * 1e-3,
               wall[n_repeat / 4] * 1e-3, processor[n_repeat / 4] * 1e-3, bytes / wall[0]);
    }
    (void)fflush(stdout);
}

static enum mt_status run_size(struct bench *bench, int64_t block_bytes, int n_repeat)
{
    bench->block_bytes = block_bytes;
    for (int rank = 0; rank < bench->n_rank; ++rank) {
        bench->bytes[rank] = block_bytes;
    }
    mt_plan_alltoallv_direct(&bench->plan, &bench->comm.topology, bench->rank, bench->bytes,
                             bench->bytes);
    for (int repeat = -2; repeat < n_repeat; ++repeat) { /* the first do not count */
        for (int way = 0; way < N_WAY; ++way) {
            MT_TRY(run_once(bench, (enum way)way, repeat));
        }
    }
    if (bench->rank == 0) {
        print(bench, n_repeat);
    }
    return MT_OK;
}

static enum mt_status open_window(struct bench *bench, MPI_Win *window)
{
    const MPI_Aint bytes =
        (MPI_Aint)sizeof(struct flags) + (MPI_Aint)(bench->n_rank * bench->max_bytes);
    void *mine = NULL;
    MT_TRY_MPI(
        MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, (void *)&mine, window));
    memset(mine, 0, (size_t)bytes);
    for (int rank = 0; rank < bench->n_rank; ++rank) {
        MPI_Aint its_bytes = 0;
        int unit = 0;
        MT_TRY_MPI(
            MPI_Win_shared_query(*window, rank, &its_bytes, &unit, (void *)&bench->window[rank]));
    }
    MT_TRY_MPI(MPI_Barrier(MPI_COMM_WORLD));
    return MT_OK;
}

static enum mt_status run(struct bench *bench, MPI_Win *window, int n_repeat)
{
    static const int64_t size[] = {1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24};
    enum { N_SIZE = sizeof(size) / sizeof(size[0]) };
    const int64_t most_bytes = INT64_C(1) << 26; /* of a rank */
    MT_TRY(mt_comm_init_mpi(&bench->comm, MPI_COMM_WORLD, 0));
    bench->n_rank = bench->comm.topology.n_rank;
    bench->rank = bench->comm.rank;
    bench->max_bytes = most_bytes / bench->n_rank;
    MT_ASSERT(bench->n_rank >= 2 && bench->n_rank <= MAX_RANK);
    const int64_t max_op = mt_plan_alltoallv_direct_max_op(bench->n_rank);
    MT_TRY(MT_ALLOCATE(bench->send, most_bytes, "bench"));
    MT_TRY(MT_ALLOCATE(bench->recv, most_bytes, "bench"));
    memset(bench->send, 1, (size_t)most_bytes);
    memset(bench->recv, 1, (size_t)most_bytes);
    MT_TRY(mt_plan_init(&bench->plan, max_op));
    MT_TRY(mt_exec_create(&bench->comm, max_op, &bench->exec));
    MT_TRY(open_window(bench, window));
    for (int i = 0; i < N_SIZE && size[i] <= bench->max_bytes; ++i) {
        MT_TRY(run_size(bench, size[i], n_repeat));
    }
    return MT_OK;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    MPI_Win window = MPI_WIN_NULL;
    const long n_repeat = argc > 1 ? strtol(argv[1], NULL, 10) : 101;
    (void)MPI_Init(&argc, &argv);
    MT_ASSERT(n_repeat >= 1 && n_repeat <= MAX_REPEAT);
    if (run(&bench, &window, (int)n_repeat) != MT_OK) {
        (void)fprintf(stderr, "%s\n", mt_error_last()->text);
        (void)MPI_Abort(MPI_COMM_WORLD, 1);
    }
    (void)MPI_Win_free(&window);
    (void)MPI_Finalize();
    return 0;
}
