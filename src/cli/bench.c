/* moetrain bench WHAT */
#include "cli/cli.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/isa.h"
#include "kernel/bench.h"
#include "placement/bench.h"
#include "train/bench_policies.h"

#include <stdlib.h>
#include <string.h>

/* "1.1,2,3" */
static enum mt_status read_skews(const char *text, struct mt_bench_policies *bench)
{
    const char *at = text;
    do {
        char *end = NULL;
        const double skew = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0') || !(skew >= 1.0 && skew <= 1e6) ||
            bench->n_skew == MT_BENCH_MAX_SKEWS) {
            return MT_FAIL(
                MT_ERR_CONFIG,
                "--skews %s: expected up to %d numbers of at least 1 with commas between "
                "them, e.g. 1.1,2,4",
                text, (int)MT_BENCH_MAX_SKEWS);
        }
        bench->skew[bench->n_skew++] = skew;
        at = *end == ',' ? end + 1 : end;
    } while (*at != '\0');
    return MT_OK;
}

static enum mt_status bench_policies(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    struct mt_bench_policies bench = {.policies = mt_argument(arguments, "--policies"),
                                      .ablation = mt_argument(arguments, "--ablation") != NULL};
    const char *skews = mt_argument(arguments, "--skews");
    if (arguments->n_positional < 2) {
        return mt_job_agree(MT_FAIL(MT_ERR_CONFIG,
                                    "bench policies needs a configuration; none is given; e.g. "
                                    "moetrain bench policies configs/bench-policies.toml"));
    }
    MT_TRY(mt_job_agree(read_skews(skews != NULL ? skews : "1,1.1,1.3,2,3,4", &bench)));
    MT_TRY(mt_load_config(arguments, &config));
    if (config == NULL) {
        return MT_OK;
    }
    bench.config = config;
    const enum mt_status status = mt_bench_policies(&bench, stdout);
    mt_memory_free(config);
    return status;
}

/* Of the configuration: the type, and threads where it says how many. */
static enum mt_status bench_kernels(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    MT_TRY(mt_isa_check());
    MT_TRY(mt_load_config_text(arguments, arguments->n_positional < 2 ? mt_bench_config : NULL,
                               &config));
    if (config == NULL) {
        return MT_OK;
    }
    struct mt_device device;
    mt_device_init_plain(&device);
    device.dtype = config->device.dtype;
    device.n_thread = mt_size_to_int(mt_max_i64(config->device.threads, 1));
    mt_memory_free(config);
    return mt_job_agree(mt_job_rank() == 0
                            ? mt_bench_kernels(&device, mt_argument(arguments, "--only"), stdout)
                            : MT_OK);
}

enum mt_status mt_command_bench(const struct mt_arguments *arguments)
{
    const char *what = arguments->positional[0];
    if (strcmp(what, "collectives") == 0) {
        return mt_command_bench_collectives(arguments);
    }
    if (strcmp(what, "kernels") == 0) {
        return bench_kernels(arguments);
    }
    if (strcmp(what, "step") == 0) {
        return mt_command_bench_step(arguments);
    }
    if (strcmp(what, "planner") == 0) {
        return mt_job_agree(mt_job_rank() == 0 ? mt_bench_planner(stdout) : MT_OK);
    }
    if (strcmp(what, "policies") == 0) {
        return bench_policies(arguments);
    }
    if (strcmp(what, "checkpoint") == 0) {
        return mt_command_bench_checkpoint(arguments);
    }
    return mt_job_agree(MT_FAIL(MT_ERR_CONFIG,
                                "%s is no benchmark; expected moetrain bench kernels, step, "
                                "collectives, planner, policies or checkpoint",
                                what));
}
