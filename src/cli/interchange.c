/* moetrain import MODEL -o CHECKPOINT, moetrain export CHECKPOINT -o MODEL */
#include "cli/cli.h"

#include "interchange/interchange.h"

#include <string.h>

static const int64_t SHARD_BYTES = 5000000000; /* as transformers writes them */

enum mt_status mt_interchange_read_output(const struct mt_arguments *arguments, const char **path)
{
    *path = mt_argument(arguments, "-o");
    if (*path == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "moetrain %s does not say where to; expected -o and a path",
                       arguments->command->name);
    }
    return MT_OK;
}

/* NULL: not given, or "auto". */
static enum mt_status read_family(const struct mt_arguments *arguments,
                                  const struct mt_family **family)
{
    const char *word = mt_argument(arguments, "--family");
    *family = NULL;
    if (word == NULL || strcmp(word, "auto") == 0) {
        return MT_OK;
    }
    *family = mt_family_of_word(word);
    if (*family == NULL) {
        char list[128];
        mt_family_list(list, sizeof(list));
        return MT_FAIL(MT_ERR_CONFIG, "--family %s: expected auto, %s", word, list);
    }
    return MT_OK;
}

/* type: what no --dtype means. */
static enum mt_status read_type(const struct mt_arguments *arguments, bool has_float16,
                                enum mt_stored_type *type)
{
    const char *name = mt_argument(arguments, "--dtype");
    if (name == NULL) {
        return MT_OK;
    }
    *type = mt_stored_type_of_name(name);
    if (*type == MT_N_STORED_TYPE || (*type == MT_STORED_F16 && !has_float16)) {
        return MT_FAIL(MT_ERR_CONFIG, "--dtype %s: expected float32%s bfloat16%s", name,
                       has_float16 ? "," : " or", has_float16 ? " or float16" : "");
    }
    return MT_OK;
}

static enum mt_status read_layout(const struct mt_arguments *arguments,
                                  enum mt_expert_layout *layout)
{
    const char *word = mt_argument(arguments, "--layout");
    const bool is_grouped = word != NULL && strcmp(word, "grouped") == 0;
    *layout = is_grouped ? MT_LAYOUT_GROUPED : MT_LAYOUT_PER_EXPERT;
    if (word != NULL && !is_grouped && strcmp(word, "per-expert") != 0) {
        return MT_FAIL(MT_ERR_CONFIG, "--layout %s: expected per-expert or grouped", word);
    }
    return MT_OK;
}

/* The line that says what went where. */
static void print_report(const char *to, const char *from,
                         const struct mt_interchange_report *report)
{
    const char *experts = report->family->is_dense              ? "no"
                          : report->layout == MT_LAYOUT_GROUPED ? "grouped"
                                                                : "separate";
    (void)printf("%s: %s of %s: %lld parameters, %lld tensors (%s experts) in %d file%s\n", to,
                 report->family->title, from, (long long)report->n_element,
                 (long long)report->n_stored, experts, report->n_file,
                 report->n_file == 1 ? "" : "s");
    if (report->unread[0] != '\0') {
        (void)printf("not used of config.json: %s\n", report->unread);
    }
}

enum mt_status mt_interchange_name_config(const struct mt_arguments *arguments, const char *to,
                                          char usual[MT_PATH_BYTES], const char **path)
{
    size_t length = strlen(to);
    *path = mt_argument(arguments, "-c");
    if (*path != NULL) {
        return MT_OK;
    }
    *path = usual;
    while (length > 1 && to[length - 1] == '/') {
        --length;
    }
    const int n = snprintf(usual, MT_PATH_BYTES, "%.*s.toml", (int)length, to);
    return n > 0 && n < MT_PATH_BYTES
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG, "the new checkpoint's path is too long; choose another");
}

enum mt_status mt_command_import(const struct mt_arguments *arguments)
{
    char config_path[MT_PATH_BYTES];
    enum mt_stored_type type = MT_STORED_F32;
    struct mt_interchange_report report;
    struct mt_import_options options = {.from = arguments->positional[0]};
    MT_TRY(mt_interchange_read_output(arguments, &options.to));
    MT_TRY(read_family(arguments, &options.family));
    MT_TRY(read_type(arguments, false, &type));
    MT_TRY(mt_interchange_name_config(arguments, options.to, config_path, &options.config_path));
    options.dtype = type == MT_STORED_BF16 ? MT_BFLOAT16 : MT_FLOAT32;
    MT_TRY(mt_interchange_import(&options, &report));
    print_report(options.to, options.from, &report);
    (void)printf("%s: [model] and [moe] of its configuration\n", options.config_path);
    return MT_OK;
}

enum mt_status mt_command_export(const struct mt_arguments *arguments)
{
    struct mt_interchange_report report;
    struct mt_export_options options = {.from = arguments->positional[0],
                                        .tokenizer = mt_argument(arguments, "--tokenizer"),
                                        .type = MT_STORED_F32};
    MT_TRY(mt_interchange_read_output(arguments, &options.to));
    MT_TRY(read_family(arguments, &options.family));
    MT_TRY(read_type(arguments, true, &options.type));
    MT_TRY(read_layout(arguments, &options.layout));
    MT_TRY(mt_argument_integer(arguments, "--shard-size", SHARD_BYTES, 1, &options.shard_bytes));
    MT_TRY(mt_interchange_export(&options, &report));
    print_report(options.to, options.from, &report);
    return MT_OK;
}
