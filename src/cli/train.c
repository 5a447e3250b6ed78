/* moetrain train CONFIG */
#include "cli/cli.h"

#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/trainer.h"

#include <string.h>

enum mt_status mt_command_train(const struct mt_arguments *arguments)
{
    struct mt_config *config = NULL;
    MT_TRY(mt_load_config(arguments, &config));
    if (config == NULL) {
        return MT_OK;
    }
    const char *resume = mt_argument(arguments, "--resume");
    struct mt_train_options options = {.config = config,
                                       .resume = MT_RESUME_AUTO,
                                       .init_from = mt_argument(arguments, "--init-from")};
    if (resume != NULL && strcmp(resume, "never") == 0) {
        options.resume = MT_RESUME_NEVER;
    } else if (resume != NULL && strcmp(resume, "auto") != 0) {
        options.resume = MT_RESUME_PATH;
        options.resume_path = resume;
    }
    if (options.resume == MT_RESUME_PATH && options.init_from != NULL) {
        mt_memory_free(config);
        return mt_job_agree(MT_FAIL(MT_ERR_CONFIG,
                                    "--resume PATH and --init-from both say where the run starts; "
                                    "expected one of them; leave the other out"));
    }
    char versions[MT_VERSIONS_LINE_BYTES];
    mt_help_versions_line(versions);
    options.versions = versions;
    mt_log_init(mt_job_rank() == 0, mt_argument(arguments, "--quiet") != NULL);
    enum mt_status status = mt_job_agree(mt_job_watchdog_start(config->comm.watchdog_seconds));
    if (status == MT_OK) {
        status = mt_train(&options);
        mt_job_watchdog_stop();
    }
    mt_memory_free(config);
    return status;
}
