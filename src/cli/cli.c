/* From argv to a command and an exit code. */
#include "cli/cli.h"

#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/load.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Ranks that exit before MPI_Init can hang mpirun (Open MPI 4.1), so below mpirun every command
 * starts MPI, also those that do not need it. */
static bool is_below_mpirun(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_RANK") != NULL ||
           getenv("PMI_RANK") != NULL;
}

bool mt_is_job(const struct mt_arguments *arguments)
{
    const struct mt_command *command = arguments->command;
    return command->is_job ||
           (command->job_option != NULL && mt_argument(arguments, command->job_option) != NULL);
}

static bool is_first_rank(void)
{
    return !mt_job_is_started() || mt_job_rank() == 0;
}

static bool has_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], word) == 0) {
            return true;
        }
    }
    return false;
}

/* --help, --version and --man answer whatever else is on the line. */
static bool asks_question(int argc, char **argv)
{
    return argc == 1 || has_word(argc, argv, "--help") || has_word(argc, argv, "-h") ||
           has_word(argc, argv, "--version") || has_word(argc, argv, "--man") ||
           has_word(argc, argv, "--keys");
}

/* Of two words the first asks for all that begin with it, unless the second is there. */
static bool explain_command(int argc, char **argv)
{
    int n_explained = 0;
    for (int i = 0; i < mt_n_command; i++) {
        const char *second = strchr(mt_commands[i].name, ' ');
        const bool is_other =
            second != NULL && argc > 2 && argv[2][0] != '-' && strcmp(second + 1, argv[2]) != 0;
        if (argc > 1 && mt_command_begins_with(&mt_commands[i], argv[1]) && !is_other) {
            (void)fputs(n_explained > 0 ? "\n" : "", stdout);
            mt_help_command(&mt_commands[i], stdout);
            ++n_explained;
        }
    }
    return n_explained > 0;
}

static void answer_question(int argc, char **argv)
{
    if (has_word(argc, argv, "--version")) {
        mt_help_version(stdout);
        return;
    }
    if (has_word(argc, argv, "--man")) {
        mt_help_man(stdout);
        return;
    }
    if (has_word(argc, argv, "--keys")) {
        mt_config_write_help(MT_CONFIG_MARKDOWN, stdout);
        return;
    }
    if (!explain_command(argc, argv)) {
        mt_help_program(stdout);
    }
}

/* The configuration's own hash leaves run.dir out, as a run may be moved; ranks of one run write
 * their shards to one place. */
static uint64_t config_and_dir_hash(const struct mt_config *config)
{
    return XXH3_64bits_withSeed(config->run.dir, strlen(config->run.dir), mt_config_hash(config));
}

/* CONFIG is a command's last word, unless there is text. */
static enum mt_status read_config(const struct mt_arguments *arguments, const char *text,
                                  struct mt_config *config)
{
    const char *run_dir = mt_argument(arguments, "--run-dir");
    if (text != NULL) {
        return mt_config_parse(text, "the default configuration", ".", arguments->n_override,
                               arguments->override, run_dir, config);
    }
    return mt_config_load(arguments->positional[arguments->n_positional - 1], arguments->n_override,
                          arguments->override, run_dir, config);
}

enum mt_status mt_load_config(const struct mt_arguments *arguments, struct mt_config **config)
{
    return mt_load_config_text(arguments, NULL, config);
}

enum mt_status mt_load_config_text(const struct mt_arguments *arguments, const char *text,
                                   struct mt_config **config)
{
    struct mt_config *loaded = NULL;
    enum mt_status status = MT_ALLOCATE(loaded, 1, "configuration");
    *config = NULL;
    if (status == MT_OK) {
        status = read_config(arguments, text, loaded);
    }
    /* A one-process command runs on rank 0 alone: nobody is there to agree with. */
    if (mt_job_is_started() && mt_is_job(arguments)) {
        status = mt_job_agree(status);
        if (status == MT_OK) {
            status = mt_job_agree(
                mt_job_check_same(config_and_dir_hash(loaded), "the resolved configuration"));
        }
    }
    if (status == MT_OK && mt_argument(arguments, "--check-config") != NULL) {
        if (is_first_rank()) {
            mt_config_write(loaded, stdout);
        }
        mt_memory_free(loaded);
        return MT_OK;
    }
    if (status != MT_OK) {
        mt_memory_free(loaded);
        return status;
    }
    *config = loaded;
    return MT_OK;
}

/* Standard output is a pipe whose reader has seen enough, as in `| head`. */
static bool has_lost_reader(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return ferror(stdout) != 0 && poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

/* Results that nobody gets are no success: a full disk behind standard output. A reader that goes
 * away is no failure. */
static enum mt_status check_output(void)
{
    if ((fflush(stdout) == 0 && ferror(stdout) == 0) || has_lost_reader()) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot write the results to standard output: %s; a file, pipe or terminal that "
                   "takes them was expected; free space, or send them elsewhere",
                   strerror(errno));
}

static enum mt_status run_command(const struct mt_arguments *arguments)
{
    if (mt_is_job(arguments)) {
        MT_TRY(arguments->command->run(arguments));
        return mt_job_agree(check_output());
    }
    if (is_first_rank()) {
        MT_TRY(arguments->command->run(arguments));
        return check_output();
    }
    return MT_OK; /* a one-process command below mpirun: rank 0 does it */
}

/* Stop signals must find their handler from the start: a cluster may send one while MPI starts. */
static enum mt_status start_job(const struct mt_arguments *arguments, enum mt_status parsed,
                                int *argc, char ***argv)
{
    const bool is_wanted = parsed == MT_OK && mt_is_job(arguments);
    if (!is_wanted && !is_below_mpirun()) {
        return parsed;
    }
    if (is_wanted && arguments->command->ends_when_asked) {
        MT_TRY(mt_job_signals_install());
    }
    MT_TRY(mt_job_init(argc, argv));
    MT_TRY(mt_job_agree(parsed));
    return mt_job_agree(mt_job_check_same(mt_arguments_hash(arguments), "the command line"));
}

int mt_cli_main(int argc, char **argv)
{
    static struct mt_arguments arguments;
    mt_job_crashes_install();
    if (asks_question(argc, argv)) {
        if (is_below_mpirun() && mt_job_init(&argc, &argv) != MT_OK) {
            return mt_job_finish(MT_ERR_INTERNAL);
        }
        if (is_first_rank()) {
            answer_question(argc, argv);
        }
        return mt_job_finish(MT_OK);
    }
    enum mt_status status = mt_arguments_parse(argc - 1, argv + 1, &arguments);
    status = start_job(&arguments, status, &argc, &argv);
    if (status == MT_OK) {
        mt_log_init(is_first_rank(), false);
        status = run_command(&arguments);
        if (mt_job_is_started() && !mt_is_job(&arguments)) {
            status = mt_job_agree(status);
        }
    }
    const int code = mt_job_finish(status);
    if (code == MT_OK && has_lost_reader()) {
        /* As every tool ends that does not ignore the signal; stop signals do (job_signals.c). */
        (void)signal(SIGPIPE, SIG_DFL);
        (void)raise(SIGPIPE);
    }
    return code;
}
