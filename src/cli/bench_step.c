/* moetrain bench step [CONFIG] */
#include "cli/cli.h"

#include "base/job.h"
#include "base/memory.h"
#include "train/bench_step.h"

/* configs/bench-cpu.toml, for who has the program alone; a test compares the two. */
const char mt_bench_config[] = "[run]\n"
                               "name = \"bench-cpu\"\n"
                               "seed = 1\n"
                               "[model]\n"
                               "vocab_size = 256\n"
                               "hidden_size = 256\n"
                               "num_layers = 4\n"
                               "num_attention_heads = 4\n"
                               "max_seq_len = 256\n"
                               "[moe]\n"
                               "num_experts = 8\n"
                               "top_k = 2\n"
                               "expert_intermediate_size = 512\n"
                               "[optimizer]\n"
                               "name = \"adamw\"\n"
                               "lr = 1e-3\n"
                               "[data]\n"
                               "format = \"random\"\n"
                               "[train]\n"
                               "steps = 20\n"
                               "global_batch_size = 8\n"
                               "micro_batch_size = 8\n";

/* Times of every step are kept until the end. */
enum { MAX_STEPS = 100000 };

static enum mt_status read_counts(const struct mt_arguments *arguments, struct mt_bench_step *bench)
{
    MT_TRY(mt_argument_integer(arguments, "--warm-up", 3, 0, &bench->n_warm));
    MT_TRY(mt_argument_integer(arguments, "--steps", 10, 1, &bench->n_step));
    if (bench->n_warm > MAX_STEPS || bench->n_step > MAX_STEPS) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--warm-up %lld --steps %lld: expected at most %d of each; ten are enough",
                       (long long)bench->n_warm, (long long)bench->n_step, (int)MAX_STEPS);
    }
    return MT_OK;
}

enum mt_status mt_command_bench_step(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    struct mt_bench_step bench = {.as_json = mt_argument(arguments, "--json") != NULL};
    MT_TRY(mt_job_agree(read_counts(arguments, &bench)));
    MT_TRY(mt_load_config_text(arguments, arguments->n_positional < 2 ? mt_bench_config : NULL,
                               &config));
    if (config == NULL) {
        return MT_OK;
    }
    bench.config = config;
    enum mt_status status = mt_job_agree(mt_job_watchdog_start(config->comm.watchdog_seconds));
    if (status == MT_OK) {
        status = mt_bench_step(&bench, stdout);
        mt_job_watchdog_stop();
    }
    mt_memory_free(config);
    return status;
}
