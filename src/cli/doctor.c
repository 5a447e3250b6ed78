/* moetrain doctor [CONFIG] */
#include "cli/cli.h"

#include "base/job.h"
#include "base/memory.h"
#include "train/doctor.h"

/* --write-costs needs shapes: costs are of a configuration's model. */
static enum mt_status check_costs(const struct mt_arguments *arguments)
{
    if (mt_argument(arguments, "--write-costs") == NULL || arguments->n_positional > 0) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG, "--write-costs needs a configuration, whose rows and layers are "
                                  "timed; none is given; e.g. moetrain doctor configs/x.toml "
                                  "--write-costs .");
}

enum mt_status mt_command_doctor(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    struct mt_doctor_options options = {
        .has_config = arguments->n_positional > 0,
        .as_json = mt_argument(arguments, "--json") != NULL,
        .costs_folder = mt_argument(arguments, "--write-costs"),
    };
    MT_TRY(mt_job_agree(check_costs(arguments)));
    MT_TRY(mt_load_config_text(arguments, options.has_config ? NULL : mt_bench_config, &config));
    if (config == NULL) {
        return MT_OK;
    }
    options.config = config;
    mt_help_versions(options.version);
    enum mt_status status = mt_job_agree(mt_job_watchdog_start(config->comm.watchdog_seconds));
    if (status == MT_OK) {
        status = mt_doctor(&options, stdout);
        mt_job_watchdog_stop();
    }
    mt_memory_free(config);
    return status;
}
