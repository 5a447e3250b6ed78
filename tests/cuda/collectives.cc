/* collectives [small]: every collective of training between the GPUs of one machine, one a rank,
 * against what the links between them do in the same run. Prints a part of tests/gpu.sh's report on
 * rank 0. Results are compared before anything is timed. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <mpi.h>

extern "C" {
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/sort.h"
#include "comm/bench_internal.h"
#include "comm/cases.h"
#include "comm/comm.h"

#include <cmocka.h>
}
#include "comm/transport_nccl.h"
#include "kernel/cuda/cuda.h"

namespace
{
/* A block of the collectives, and a message that is all bandwidth. */
struct sizes {
    int64_t block_bytes[2];
    int64_t long_bytes;
    int n_repeat;
};
const struct sizes large = {{64 << 10, 8 << 20}, 64 << 20, MT_BENCH_REPEAT};
const struct sizes small = {{240, 4000}, 4096, 1};

struct measured {
    enum test_kind kind;
    enum mt_urgency urgency; /* of its use in training */
};
/* Chains are for experts that several nodes want. */
const struct measured collectives[] = {
    {TEST_ALLTOALLV, MT_AWAITED},
    {TEST_TWO_LEVEL, MT_AWAITED},
    {TEST_LEADER, MT_AWAITED},
    {TEST_ALLGATHERV, MT_AWAITED},
    {TEST_REDUCE_SCATTER, MT_AWAITED},
    {TEST_SPARSE_ALLGATHER, MT_BACKGROUND},
    {TEST_SPARSE_ALLGATHER_RELAY, MT_BACKGROUND},
    {TEST_SPARSE_REDUCE_SCATTER, MT_BACKGROUND},
    {TEST_SPARSE_REDUCE_RELAY, MT_BACKGROUND},
};

struct job {
    struct mt_cuda cuda;
    struct mt_comm comm;
    double *time_s; /* [R] */
    int n_repeat;
    double latency_s, bytes_per_s;
};

/* A plan with its buffers in the GPU's memory. */
struct running {
    struct job *job;
    const struct mt_plan *plan;
    struct mt_exec *exec;
    void *memory[MT_N_BUFFER];
};

enum mt_status check(enum cudaError error)
{
    return error == cudaSuccess ? MT_OK
                                : MT_FAIL(MT_ERR_RESOURCE,
                                          "the GPU failed: %s; expected success; "
                                          "look at what else runs on it",
                                          cudaGetErrorString(error));
}

/* NCCL is asked meanwhile: a failure would leave the stream waiting for ever. */
enum mt_status wait_for(struct job *job)
{
    while (cudaStreamQuery(job->cuda.stream) == cudaErrorNotReady) {
        (void)mt_comm_progress(&job->comm);
    }
    MT_TRY(mt_cuda_wait(&job->cuda));
    return job->comm.failure;
}

enum mt_status run(void *context)
{
    struct running *r = static_cast<struct running *>(context);
    MT_TRY(mt_exec_begin(r->exec, r->plan, r->memory));
    MT_TRY(mt_exec_end(r->exec));
    return wait_for(r->job);
}

/* Lower quartile over repetitions of the slowest rank's seconds; the first connects the ranks. */
enum mt_status time_plan(struct running *r, double *seconds)
{
    double all[MT_BENCH_REPEAT];
    struct mt_trial_sample sample;
    MT_TRY(run(r));
    for (int i = 0; i < r->job->n_repeat; i++) {
        MT_TRY(mt_trial_time(&r->job->comm, run, r, 1, r->job->time_s, &sample));
        all[i] = sample.slowest_s;
    }
    *seconds = mt_trial_typical(all, r->job->n_repeat);
    return MT_OK;
}

enum mt_status allocate(struct running *r, const int64_t *bytes)
{
    for (int i = 0; i < MT_N_BUFFER; i++) {
        if (bytes[i] > 0) {
            MT_TRY(check(cudaMalloc(&r->memory[i], (size_t)bytes[i])));
            MT_TRY(check(cudaMemsetAsync(r->memory[i], 0, (size_t)bytes[i], r->job->cuda.stream)));
        }
    }
    return wait_for(r->job);
}

void clear(struct running *r)
{
    mt_exec_destroy(r->exec);
    for (void *memory : r->memory) {
        (void)cudaFree(memory);
    }
}

/* ---- the links ---- */

/* Every rank sends to the next at once. */
enum mt_status time_ring(struct job *job, int64_t n_bytes, double *seconds)
{
    const int rank = job->comm.rank;
    const int n_rank = job->comm.topology.n_rank;
    const int64_t bytes[MT_N_BUFFER] = {n_bytes, n_bytes, 0};
    struct mt_plan plan = {};
    struct running r = {job, &plan, NULL, {}};
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(mt_plan_init(&plan, 2));
    mt_plan_reset(&plan, "ring", MT_ELEMENT_F32);
    mt_plan_recv(&plan, 0, (rank + n_rank - 1) % n_rank, MT_BUFFER_RECV, 0, n_bytes);
    mt_plan_send(&plan, 0, (rank + 1) % n_rank, MT_BUFFER_SEND, 0, n_bytes);
    MT_TRY_GOTO(allocate(&r, bytes));
    MT_TRY_GOTO(mt_exec_create_device(&job->comm, MT_AWAITED, plan.n_op, &r.exec));
    MT_TRY_GOTO(time_plan(&r, seconds));
cleanup:
    clear(&r);
    mt_plan_clear(&plan);
    return status;
}

enum mt_status measure_links(struct job *job, const struct sizes *sizes)
{
    enum { WORD = 4 };
    double seconds = 0.0;
    job->n_repeat = sizes->n_repeat;
    MT_TRY(time_ring(job, WORD, &job->latency_s));
    MT_TRY(time_ring(job, sizes->long_bytes, &seconds));
    job->bytes_per_s = (double)sizes->long_bytes / seconds;
    if (job->comm.rank == 0) {
        std::printf("Links between %d GPUs, all at once to the next: %.1f GB/s each way with "
                    "messages of %lld bytes; %.1f us for a word, begin to host.\n\n",
                    job->comm.topology.n_rank, job->bytes_per_s * 1e-9,
                    (long long)sizes->long_bytes, job->latency_s * 1e6);
    }
    return MT_OK;
}

/* ---- the collectives ---- */

/* What it gives, against what the case says. */
enum mt_status verify(struct running *r, struct test_case *test)
{
    for (int i = 0; i < MT_N_BUFFER; i++) {
        const bool is_put = i != MT_BUFFER_STAGE && test->buffer_bytes[i] > 0;
        MT_TRY(is_put ? check(cudaMemcpy(r->memory[i], test->buffer[i],
                                         (size_t)test->buffer_bytes[i], cudaMemcpyHostToDevice))
                      : MT_OK);
    }
    MT_TRY(run(r));
    for (int i = MT_BUFFER_SEND; i <= MT_BUFFER_RECV; i++) {
        MT_TRY(test->buffer_bytes[i] > 0
                   ? check(cudaMemcpy(test->buffer[i], r->memory[i], (size_t)test->buffer_bytes[i],
                                      cudaMemcpyDeviceToHost))
                   : MT_OK);
    }
    test_case_verify(test);
    return MT_OK;
}

/* Of the busiest rank, in the direction of which it has more. */
enum mt_status busiest_bytes(struct job *job, const struct mt_plan *plan, int64_t *most)
{
    int64_t received = 0;
    int64_t sum = 0;
    for (int64_t i = 0; i < plan->n_op; i++) {
        received += plan->op[i].kind == MT_OP_RECV ? plan->op[i].n_bytes : 0;
    }
    const int64_t sent = mt_plan_sent_bytes(plan);
    return mt_bench_most(&job->comm, sent > received ? sent : received, job->time_s, most, &sum);
}

enum mt_status measure(struct job *job, const struct measured *what, int64_t block_bytes)
{
    const int64_t words = block_bytes / 4;
    struct test_spec spec = {};
    struct test_case test;
    struct running r = {job, &test.plan, NULL, {}};
    enum mt_status status = MT_OK;
    double seconds = 0.0;
    int64_t most = 0;
    spec.kind = what->kind;
    spec.shape = TEST_EVEN;
    spec.seed = 1;
    spec.scale = words + 1;
    spec.element = what->kind == TEST_SPARSE_REDUCE_RELAY ? MT_ELEMENT_BYTE : MT_ELEMENT_F32;
    test_case_create(&test, spec, &job->comm.topology, job->comm.rank);
    MT_TRY_GOTO(allocate(&r, test.buffer_bytes));
    MT_TRY_GOTO(mt_exec_create_device(&job->comm, what->urgency, test.plan.n_op, &r.exec));
    MT_TRY_GOTO(verify(&r, &test));
    MT_TRY_GOTO(busiest_bytes(job, &test.plan, &most));
    MT_TRY_GOTO(time_plan(&r, &seconds));
    if (job->comm.rank == 0) {
        const double bound = job->latency_s + (double)most / job->bytes_per_s;
        std::printf("| %s | %s | %lld | %.1f | %.2f |\n", test_kind_name(what->kind),
                    what->urgency == MT_AWAITED ? "awaited" : "in the background", (long long)most,
                    seconds * 1e6, bound / seconds);
    }
cleanup:
    clear(&r);
    test_case_clear(&test);
    return status;
}

enum mt_status measure_all(struct job *job, const struct sizes *sizes)
{
    MT_TRY(measure_links(job, sizes));
    if (job->comm.rank == 0) {
        std::printf("| collective | urgency | bytes of the busiest rank | us | of the bound "
                    "|\n|---|---|---|---|---|\n");
    }
    for (const int64_t block_bytes : sizes->block_bytes) {
        for (const struct measured &what : collectives) {
            MT_TRY(measure(job, &what, block_bytes));
        }
    }
    return MT_OK;
}

/* ---- the job ---- */

enum mt_status open_job(struct job *job)
{
    const int64_t scratch_bytes = 1 << 20;
    struct mt_transport *device = NULL;
    MT_TRY(mt_comm_init_mpi(&job->comm, mt_job_world(), 0));
    if (job->comm.topology.n_rank < 2 || job->comm.topology.n_node > 1) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%d ranks on %d machines; expected 2 or more on one machine, a GPU each",
                       job->comm.topology.n_rank, job->comm.topology.n_node);
    }
    MT_TRY(check(cudaSetDevice(job->comm.rank)));
    MT_TRY(mt_cuda_init(&job->cuda, MT_FLOAT32, scratch_bytes));
    MT_TRY(mt_transport_create_nccl(mt_job_world(), &mt_nccl_functions, &job->cuda, &device));
    mt_comm_set_device(&job->comm, device);
    return MT_ALLOCATE(job->time_s, job->comm.topology.n_rank, "collectives");
}

void close_job(struct job *job)
{
    mt_memory_free(job->time_s);
    mt_comm_clear(&job->comm);
    mt_cuda_clear(&job->cuda);
}
}  // namespace

int main(int argc, char **argv)
{
    enum { DEADLINE_S = 120 };
    static struct job job;
    const bool is_small = argc > 1 && std::strcmp(argv[1], "small") == 0;
    enum mt_status status = mt_job_init(&argc, &argv);
    status = status == MT_OK ? mt_job_watchdog_start(DEADLINE_S) : status;
    status = status == MT_OK ? open_job(&job) : status;
    status = status == MT_OK ? measure_all(&job, is_small ? &small : &large) : status;
    close_job(&job);
    mt_job_watchdog_stop();
    return mt_job_finish(status);
}
