/* moetrain bench WHAT */
#include "cli/cli.h"

#include "base/job.h"
#include "comm/bench.h"
#include "kernel/bench.h"
#include "placement/bench.h"

#include <string.h>

static enum mt_status bench_collectives(void)
{
    struct mt_comm comm;
    MT_TRY(mt_job_agree(mt_comm_init_mpi(&comm, mt_job_world(), 0)));
    const enum mt_status status = mt_bench_collectives(&comm, stdout);
    mt_comm_clear(&comm);
    return status;
}

enum mt_status mt_command_bench(const struct mt_arguments *arguments)
{
    const char *what = arguments->positional[0];
    if (strcmp(what, "collectives") == 0) {
        return bench_collectives();
    }
    if (strcmp(what, "kernels") == 0) {
        struct mt_device device;
        mt_device_init_plain(&device);
        return mt_job_agree(mt_job_rank() == 0 ? mt_bench_kernels(&device, stdout) : MT_OK);
    }
    if (strcmp(what, "planner") == 0) {
        return mt_job_agree(mt_job_rank() == 0 ? mt_bench_planner(stdout) : MT_OK);
    }
    const bool is_later = strcmp(what, "step") == 0 || strcmp(what, "policies") == 0 ||
                          strcmp(what, "checkpoint") == 0;
    return mt_job_agree(MT_FAIL(MT_ERR_CONFIG,
                                "%s is %s; expected moetrain bench kernels, moetrain bench "
                                "collectives or moetrain bench planner",
                                what, is_later ? "not in this version" : "no benchmark"));
}
