/* moetrain upcycle DENSE... -o CHECKPOINT --experts E --top-k K */
#include "cli/cli.h"

#include "interchange/upcycle.h"

#include <string.h>

/* Each belongs to one method; elsewhere it would say nothing. */
static enum mt_status check_option(const struct mt_arguments *arguments, const char *name,
                                   enum mt_upcycle_method owner, enum mt_upcycle_method method)
{
    if (mt_argument(arguments, name) == NULL || method == owner) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG, "%s belongs to --method %s, and the method is %s; leave it out",
                   name, mt_upcycle_method_name(owner), mt_upcycle_method_name(method));
}

static enum mt_status read_method(const struct mt_arguments *arguments,
                                  struct mt_upcycle_options *options)
{
    const char *word = mt_argument(arguments, "--method");
    options->method = mt_upcycle_method_of(word != NULL ? word : "copy");
    if (options->method == MT_N_UPCYCLE) {
        return MT_FAIL(MT_ERR_CONFIG, "--method %s: expected copy, noise, drop or split", word);
    }
    MT_TRY(check_option(arguments, "--granularity", MT_UPCYCLE_SPLIT, options->method));
    MT_TRY(check_option(arguments, "--noise", MT_UPCYCLE_NOISE, options->method));
    MT_TRY(check_option(arguments, "--drop-ratio", MT_UPCYCLE_DROP, options->method));
    const int64_t usual = options->method == MT_UPCYCLE_SPLIT ? 2 : 1;
    MT_TRY(mt_argument_integer(arguments, "--granularity", usual, 1, &options->granularity));
    MT_TRY(mt_argument_real(arguments, "--noise", 0.05, 0, &options->noise));
    MT_TRY(mt_argument_real(arguments, "--drop-ratio", 0.5, 0, &options->drop_ratio));
    return options->drop_ratio <= 1.0
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG, "--drop-ratio %g is out of range; 0 to 1 was expected",
                         options->drop_ratio);
}

static enum mt_status read_experts(const struct mt_arguments *arguments,
                                   struct mt_upcycle_options *options)
{
    int64_t seed = 0;
    if (mt_argument(arguments, "--experts") == NULL || mt_argument(arguments, "--top-k") == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "--experts E and --top-k K are both needed: how many experts "
                                      "a layer gets, and how many a token is sent to");
    }
    MT_TRY(mt_argument_integer(arguments, "--experts", 0, 1, &options->n_expert));
    MT_TRY(mt_argument_integer(arguments, "--top-k", 0, 1, &options->top_k));
    MT_TRY(mt_argument_integer(arguments, "--seed", 1, 0, &seed));
    options->seed = (uint64_t)seed;
    return options->n_expert <= MT_UPCYCLE_MAX_EXPERT
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG, "--experts %lld is too many; at most %d were expected",
                         (long long)options->n_expert, MT_UPCYCLE_MAX_EXPERT);
}

enum mt_status mt_command_upcycle(const struct mt_arguments *arguments)
{
    char config_path[MT_PATH_BYTES];
    struct mt_upcycle_options options = {.n_dense = arguments->n_positional,
                                         .dense = arguments->positional};
    struct mt_upcycle_report report;
    MT_TRY(mt_interchange_read_output(arguments, &options.to));
    MT_TRY(read_experts(arguments, &options));
    MT_TRY(read_method(arguments, &options));
    MT_TRY(mt_interchange_name_config(arguments, options.to, config_path, &options.config_path));
    MT_TRY(mt_interchange_upcycle(&options, &report));
    (void)printf("%s: %lld expert%s of width %lld, %lld a token, by %s from %d dense model%s: %lld "
                 "parameters\n%s: its configuration\n",
                 options.to, (long long)report.n_expert, report.n_expert == 1 ? "" : "s",
                 (long long)report.inner, (long long)report.top_k,
                 mt_upcycle_method_name(options.method), options.n_dense,
                 options.n_dense == 1 ? "" : "s", (long long)report.n_element, options.config_path);
    return MT_OK;
}
