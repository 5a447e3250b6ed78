/* The command line: one table of commands, each with its options and one short file.
 *
 * Usage lines, --help, the man page and the parser come from the table (commands.c). */
#ifndef MT_CLI_CLI_H
#define MT_CLI_CLI_H

#include "base/status.h"
#include "config/config.h"

#include <stdio.h>

enum { MT_MAX_OPTION = 24, MT_MAX_POSITIONAL = 64, MT_MAX_OVERRIDE = 256, MT_MAX_REPEATED = 64 };

struct mt_option {
    const char *name;       /* "--run-dir" */
    const char *value_name; /* "DIR"; NULL: a switch */
    const char *help;       /* NULL: not in this version */
    bool is_repeatable;     /* read by mt_argument_next */
};

struct mt_command;

/* A parsed command line. Strings are argv's. */
struct mt_arguments {
    const struct mt_command *command;
    int n_positional;
    const char *positional[MT_MAX_POSITIONAL];
    const char
        *value[MT_MAX_OPTION]; /* by index in the command's table; NULL: not given; "": a switch */
    int n_override;
    const char *override[MT_MAX_OVERRIDE]; /* of --set */
    int n_repeated;                        /* of options that may be given several times */
    int repeated_option[MT_MAX_REPEATED];
    const char *repeated_value[MT_MAX_REPEATED];
};

struct mt_command {
    const char *name;     /* one word or two: "data inspect" */
    const char *synopsis; /* "train CONFIG" */
    const char *summary;
    int min_positional, max_positional;
    bool is_job;            /* computes with MPI; others start it only below mpirun */
    const char *job_option; /* NULL, or the option with which the command is a job, too */
    bool ends_when_asked;   /* SIGUSR1 and SIGTERM: what it has is kept, code 75 */
    bool takes_config;      /* common options of a configuration; help lists the keys */
    struct mt_option option[MT_MAX_OPTION]; /* ends with name = NULL */
    enum mt_status (*run)(const struct mt_arguments *arguments);
};

extern const struct mt_command mt_commands[];
extern const int mt_n_command;

/* True: `word` is the first of the command's name, or all of it. */
bool mt_command_begins_with(const struct mt_command *command, const char *word);

/* Value of an option of this command, NULL when not given. The name must be in its table. */
const char *mt_argument(const struct mt_arguments *arguments, const char *name);
/* The next value of an option that may be given several times; *at starts at 0. NULL: no more. */
const char *mt_argument_next(const struct mt_arguments *arguments, const char *name, int *at);
/* All ranks of mpirun work on it together. */
bool mt_is_job(const struct mt_arguments *arguments);
/* The same as numbers, `fallback` when not given. MT_ERR_CONFIG when it is none, or out of range.
 */
enum mt_status mt_argument_integer(const struct mt_arguments *arguments, const char *name,
                                   int64_t fallback, int64_t least, int64_t *value);
enum mt_status mt_argument_real(const struct mt_arguments *arguments, const char *name,
                                double fallback, double least, double *value);

/* argv after the program's name; with no command word `train` is meant. */
enum mt_status mt_arguments_parse(int argc, char **argv, struct mt_arguments *arguments);

/* Of what ranks must have alike before they work together: the command and its options, without the
 * configuration, which is compared once it is resolved. */
uint64_t mt_arguments_hash(const struct mt_arguments *arguments);

void mt_help_program(FILE *out);
void mt_help_command(const struct mt_command *command, FILE *out);
void mt_help_man(FILE *out); /* roff */
void mt_help_version(FILE *out);
/* moetrain, MPI, oneDNN, HDF5, hwloc, as they are loaded. */
enum { MT_N_VERSION = 5, MT_VERSION_BYTES = 48 };
void mt_help_versions(char version[MT_N_VERSION][MT_VERSION_BYTES]);
/* The same with their names, in one line. */
enum { MT_VERSIONS_LINE_BYTES = MT_N_VERSION * (MT_VERSION_BYTES + 16) };
void mt_help_versions_line(char line[MT_VERSIONS_LINE_BYTES]);

/* MT_ERR_INPUT for a run directory, which is often named where one of its checkpoints is meant. */
enum mt_status mt_check_is_no_run(const char *path);

/* Collective for commands that are jobs: loads the configuration, agrees on it, handles
 * --check-config (then *config stays NULL). Free with mt_memory_free. */
enum mt_status mt_load_config(const struct mt_arguments *arguments, struct mt_config **config);
/* The same from TOML text, for commands that can do without a CONFIG. */
enum mt_status mt_load_config_text(const struct mt_arguments *arguments, const char *text,
                                   struct mt_config **config);

/* The whole program; returns the exit code. */
int mt_cli_main(int argc, char **argv);

enum mt_status mt_command_train(const struct mt_arguments *arguments);
enum mt_status mt_command_eval(const struct mt_arguments *arguments);
enum mt_status mt_command_generate(const struct mt_arguments *arguments);
enum mt_status mt_command_inspect(const struct mt_arguments *arguments);
enum mt_status mt_command_checkpoint_convert(const struct mt_arguments *arguments);
/* interchange.c */
enum mt_status mt_command_import(const struct mt_arguments *arguments);
enum mt_status mt_command_export(const struct mt_arguments *arguments);
enum mt_status mt_command_upcycle(const struct mt_arguments *arguments);
/* interchange.c: -o, which must be there; -c, or CHECKPOINT.toml beside the checkpoint `to`. */
enum mt_status mt_interchange_read_output(const struct mt_arguments *arguments, const char **path);
enum mt_status mt_interchange_name_config(const struct mt_arguments *arguments, const char *to,
                                          char usual[MT_PATH_BYTES], const char **path);
enum mt_status mt_command_verify(const struct mt_arguments *arguments);
enum mt_status mt_command_plan(const struct mt_arguments *arguments);
enum mt_status mt_command_bench(const struct mt_arguments *arguments);
enum mt_status mt_command_data_inspect(const struct mt_arguments *arguments);
enum mt_status mt_command_data_prepare(const struct mt_arguments *arguments);
enum mt_status mt_command_doctor(const struct mt_arguments *arguments);
enum mt_status mt_command_report(const struct mt_arguments *arguments);
/* bench_step.c */
enum mt_status mt_command_bench_checkpoint(const struct mt_arguments *arguments);
enum mt_status mt_command_bench_step(const struct mt_arguments *arguments);
/* configs/bench-cpu.toml, for commands without a CONFIG. */
extern const char mt_bench_config[];
/* bench_collectives.c */
enum mt_status mt_command_bench_collectives(const struct mt_arguments *arguments);
/* plan_topology.c: nodes, ranks and this machine, instead of a plan. Collective below mpirun. */
enum mt_status mt_plan_print_topology(const struct mt_arguments *arguments);

#endif
