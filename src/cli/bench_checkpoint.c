/* moetrain bench checkpoint CONFIG */
#include "cli/cli.h"

#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/bench_checkpoint.h"

static enum mt_status read_counts(const struct mt_arguments *arguments,
                                  struct mt_bench_checkpoint *bench)
{
    enum { MOST = 100000 };
    MT_TRY(mt_argument_integer(arguments, "--saves", 20, 1, &bench->n_save));
    MT_TRY(mt_argument_integer(arguments, "--steps", 50, 1, &bench->n_step));
    if (bench->n_save > MOST || bench->n_step > MOST) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "--saves %lld --steps %lld: expected at most %d of each; 20 saves are enough",
            (long long)bench->n_save, (long long)bench->n_step, (int)MOST);
    }
    return MT_OK;
}

enum mt_status mt_command_bench_checkpoint(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    struct mt_bench_checkpoint bench;
    MT_TRY(mt_job_agree(read_counts(arguments, &bench)));
    MT_TRY(mt_load_config_text(arguments, arguments->n_positional < 2 ? mt_bench_config : NULL,
                               &config));
    if (config == NULL) {
        return MT_OK;
    }
    bench.config = config;
    mt_log_init(mt_job_rank() == 0, true);
    enum mt_status status = mt_job_agree(mt_job_watchdog_start(config->comm.watchdog_seconds));
    if (status == MT_OK) {
        status = mt_bench_checkpoint(&bench, stdout);
        mt_job_watchdog_stop();
    }
    mt_memory_free(config);
    return status;
}
