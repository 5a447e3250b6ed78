/* Help, version and man page, all from the table of commands and the table of keys. */
#include "cli/cli.h"

#include "config/load.h"
#include "device/isa.h"

#include <hdf5.h>
#include <hwloc.h>
#include <jansson.h>
#include <mpi.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>
#include <xxhash.h>

static const char *const EXIT_CODES =
    "  0    done\n"
    "  1    internal failure: a bug, please report it\n"
    "  2    bad command line or configuration; run directory in use\n"
    "  3    input data or checkpoint missing, unreadable or corrupt\n"
    "  4    out of memory, disk or device\n"
    "  5    training diverged\n"
    "  75   stopped on request (SIGUSR1, SIGTERM, Ctrl-C, time limit); training saved: start "
    "again\n"
    "  124  a collective did not complete within comm.watchdog_seconds\n";

enum { OPTION_COLUMNS = 26 };

void mt_help_program(FILE *out)
{
    (void)fprintf(out,
                  "moetrain %s: distributed training of Mixture-of-Experts language models\n\n"
                  "usage: [mpirun -np R] moetrain [COMMAND] ARGUMENTS\n\n"
                  "  moetrain configs/quickstart.toml            trains on one rank\n"
                  "  mpirun -np 64 moetrain configs/x.toml       trains on 64\n\ncommands:\n",
                  MT_VERSION);
    for (int i = 0; i < mt_n_command; i++) {
        const int column = fprintf(out, "  %-18s ", mt_commands[i].name);
        mt_write_wrapped(out, mt_commands[i].summary, column, column);
    }
    (void)fprintf(out,
                  "\nmoetrain COMMAND --help explains a command; moetrain train --help lists all "
                  "configuration keys.\nmoetrain --version prints versions, --man the manual page, "
                  "--keys the configuration keys as Markdown."
                  "\n\nexit codes:\n%s",
                  EXIT_CODES);
}

void mt_help_command(const struct mt_command *command, FILE *out)
{
    (void)fprintf(out, "usage: moetrain %s [OPTIONS]\n\n", command->synopsis);
    mt_write_wrapped(out, command->summary, 0, 0);
    (void)fprintf(out, "\noptions:\n");
    for (int i = 0; i < MT_MAX_OPTION && command->option[i].name != NULL; i++) {
        char left[64];
        const struct mt_option *option = &command->option[i];
        (void)snprintf(left, sizeof(left), "%s%s%s", option->name,
                       option->value_name != NULL ? " " : "",
                       option->value_name != NULL ? option->value_name : "");
        const int column = fprintf(out, "  %-*s ", OPTION_COLUMNS, left);
        mt_write_wrapped(out, option->help, column, OPTION_COLUMNS + 3);
    }
    (void)fprintf(out, "  %-*s %s\n", OPTION_COLUMNS, "--help", "this text");
    if (command->takes_config) {
        (void)fprintf(out, "\nkeys of CONFIG (TOML; defaults in brackets):\n");
        mt_config_write_help(MT_CONFIG_PLAIN, out);
    }
}

/* A plain "-" in roff is a hyphen that cannot be searched for or copied. */
static void print_man_option(const struct mt_option *option, FILE *out)
{
    (void)fputs(".TP\n.B ", out);
    for (const char *c = option->name; *c != '\0'; c++) {
        (void)fputs(*c == '-' ? "\\-" : (const char[]){*c, '\0'}, out);
    }
    (void)fprintf(out, "%s%s\n%s\n", option->value_name != NULL ? " " : "",
                  option->value_name != NULL ? option->value_name : "", option->help);
}

void mt_help_man(FILE *out)
{
    (void)fprintf(out,
                  ".TH MOETRAIN 1 \"\" \"moetrain %s\" \"User Commands\"\n.SH NAME\nmoetrain \\- "
                  "distributed training of Mixture-of-Experts language models\n.SH SYNOPSIS\n"
                  ".B mpirun \\-np\n.I R\n.B moetrain\n.I CONFIG\n.br\n.B moetrain\n.I COMMAND "
                  "ARGUMENTS\n.SH COMMANDS\n",
                  MT_VERSION);
    for (int i = 0; i < mt_n_command; i++) {
        const struct mt_command *command = &mt_commands[i];
        (void)fprintf(out, ".SS %s\n%s.\n", command->synopsis, command->summary);
        for (int o = 0; o < MT_MAX_OPTION && command->option[o].name != NULL; o++) {
            print_man_option(&command->option[o], out);
        }
    }
    (void)fprintf(out, ".SH CONFIGURATION\n");
    mt_config_write_help(MT_CONFIG_ROFF, out);
    (void)fprintf(out, ".SH EXIT STATUS\n.nf\n%s.fi\n", EXIT_CODES);
}

void mt_help_versions(char version[MT_N_VERSION][MT_VERSION_BYTES])
{
    unsigned major = 0;
    unsigned minor = 0;
    unsigned release = 0;
    int length = 0;
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    const dnnl_version_t *dnnl = dnnl_version();
    const unsigned hwloc = hwloc_get_api_version();
    (void)H5get_libversion(&major, &minor, &release);
    (void)MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = '\0';
    (void)snprintf(version[0], MT_VERSION_BYTES, "%s (%.30s)", MT_VERSION, MT_REVISION);
    (void)snprintf(version[1], MT_VERSION_BYTES, "%.*s", MT_VERSION_BYTES - 1, mpi);
    (void)snprintf(version[2], MT_VERSION_BYTES, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    (void)snprintf(version[3], MT_VERSION_BYTES, "%u.%u.%u", major, minor, release);
    (void)snprintf(version[4], MT_VERSION_BYTES, "%u.%u.%u", hwloc >> 16, hwloc >> 8 & 255,
                   hwloc & 255);
}

void mt_help_version(FILE *out)
{
    char version[MT_N_VERSION][MT_VERSION_BYTES];
    mt_help_versions(version);
    (void)fprintf(out, "moetrain %s\n", version[0]);
    (void)fprintf(out, "built with %s, backends: cpu (%s)\n", __VERSION__,
                  mt_isa_name(mt_isa_detect()));
    (void)fprintf(out, "%s, HDF5 %s, oneDNN %s, Jansson %s, xxHash %u.%u.%u\n", version[1],
                  version[3], version[2], jansson_version_str(), XXH_versionNumber() / 10000,
                  XXH_versionNumber() / 100 % 100, XXH_versionNumber() % 100);
}

void mt_help_versions_line(char line[MT_VERSIONS_LINE_BYTES])
{
    char version[MT_N_VERSION][MT_VERSION_BYTES];
    mt_help_versions(version);
    (void)snprintf(line, MT_VERSIONS_LINE_BYTES, "moetrain %s, %s, oneDNN %s, HDF5 %s, hwloc %s",
                   version[0], version[1], version[2], version[3], version[4]);
}
