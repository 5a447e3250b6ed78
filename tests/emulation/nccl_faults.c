/* A short job over the double of NCCL, as the program runs one: start, a few rounds of a ring, end.
 * $MT_EMULATED_NCCL has NCCL fail on the way (nccl_double.h); nccl_faults.sh says what must come of
 * it. argv[1]: the watchdog's deadline in seconds. */
#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "comm/transport_nccl.h"
#include "emulation/gpu.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_ROUND = 5, N_BYTES = 4096 };

struct job {
    struct mt_cuda *cuda;
    struct mt_comm comm;
    struct mt_plan plan;
    struct mt_exec *exec[MT_N_URGENCY];
    void *memory[MT_N_BUFFER];
};

static enum mt_status open_job(struct job *job)
{
    struct mt_transport *device = NULL;
    MT_TRY(mt_comm_init_mpi(&job->comm, mt_job_world(), 0));
    job->cuda = emu_gpu_open();
    MT_TRY(mt_transport_create_nccl(mt_job_world(), &mt_nccl_functions, job->cuda, &device));
    mt_comm_set_device(&job->comm, device);
    const int n_rank = mt_job_size();
    MT_TRY(mt_plan_init(&job->plan, 2));
    mt_plan_reset(&job->plan, "ring", MT_ELEMENT_BYTE);
    const int64_t n_bytes = n_rank > 1 ? N_BYTES : 0; /* nobody sends to itself */
    mt_plan_recv(&job->plan, 0, (mt_job_rank() + n_rank - 1) % n_rank, MT_BUFFER_RECV, 0, n_bytes);
    mt_plan_send(&job->plan, 0, (mt_job_rank() + 1) % n_rank, MT_BUFFER_SEND, 0, n_bytes);
    for (int i = 0; i < MT_N_URGENCY; ++i) {
        MT_TRY(mt_exec_create_device(&job->comm, (enum mt_urgency)i, 2, &job->exec[i]));
    }
    static const char zeros[N_BYTES] = {0};
    job->memory[MT_BUFFER_SEND] = emu_gpu_allocate(N_BYTES);
    job->memory[MT_BUFFER_RECV] = emu_gpu_allocate(N_BYTES);
    emu_gpu_put(job->memory[MT_BUFFER_SEND], zeros, N_BYTES);
    return MT_OK;
}

/* As the program waits for a GPU: watched, and NCCL is asked meanwhile. */
static enum mt_status wait_for_device(struct job *job, int round)
{
    enum { PAUSE_NS = 100000 };
    mt_job_watch_begin("the GPU's work", round);
    while (!emu_gpu_is_idle(job->cuda)) {
        (void)mt_comm_progress(&job->comm);
        mt_clock_sleep_until_ns(mt_clock_ns() + PAUSE_NS);
    }
    mt_job_watch_end();
    return mt_comm_poll(&job->comm);
}

static enum mt_status run_job(struct job *job)
{
    for (int round = 1; round <= N_ROUND; ++round) {
        mt_job_set_step(round);
        struct mt_exec *exec = job->exec[round % MT_N_URGENCY];
        MT_TRY(mt_exec_begin(exec, &job->plan, job->memory));
        MT_TRY(mt_exec_end(exec));
        MT_TRY(wait_for_device(job, round));
    }
    return MT_OK;
}

static void close_job(struct job *job)
{
    for (int i = 0; i < MT_N_URGENCY; ++i) {
        mt_exec_destroy(job->exec[i]);
    }
    mt_plan_clear(&job->plan);
    mt_comm_clear(&job->comm);
    emu_gpu_free(job->memory[MT_BUFFER_SEND]);
    emu_gpu_free(job->memory[MT_BUFFER_RECV]);
    emu_gpu_close(job->cuda);
}

int main(int argc, char **argv)
{
    static struct job job;
    enum mt_status status = mt_job_init(&argc, &argv);
    if (status == MT_OK) {
        status = mt_job_watchdog_start(argc > 1 ? strtol(argv[1], NULL, 10) : 0);
    }
    if (status == MT_OK) {
        status = open_job(&job);
    }
    if (status == MT_OK) {
        status = run_job(&job);
    }
    close_job(&job);
    mt_job_watchdog_stop();
    return mt_job_finish(status);
}
