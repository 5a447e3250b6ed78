/* A trainer whose steps are timed: what benchmarks of it have in common. */
#include "base/job.h"
#include "base/memory.h"
#include "train/internal.h"

enum mt_status mt_bench_open(struct mt_trainer *trainer, struct mt_config *config, int n_gathered)
{
    if (config->moe.routing != MT_ROUTING_REPLAY) {
        config->moe.trace[0] = '\0';
    }
    trainer->config = config;
    MT_TRY(mt_trainer_open(trainer));
    MT_TRY(mt_trainer_start(trainer));
    MT_TRY(mt_job_agree(mt_comm_reserve_small(&trainer->session.comm, n_gathered)));
    return mt_traces_open(trainer);
}

void mt_bench_close(struct mt_trainer *trainer)
{
    if (trainer != NULL) {
        mt_traces_close(trainer);
        mt_trainer_close(trainer);
        mt_memory_free(trainer);
    }
}

enum mt_status mt_bench_begin_step(struct mt_trainer *trainer)
{
    trainer->state.step++;
    MT_TRY(mt_traces_begin_step(trainer));
    mt_span_reset();
    return MT_OK;
}

void mt_bench_train_step(struct mt_trainer *trainer, struct mt_step_result *result)
{
    const enum mt_status status = mt_train_step(trainer, result);
    if (status != MT_OK) {
        mt_job_abort(status); /* this rank's alone: the others wait for it */
    }
}
