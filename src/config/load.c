#include "config/load.h"

#include "base/memory.h"
#include "base/size.h"
#include "config/rules.h"
#include "config/suggest.h"
#include "config/value.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* A configuration is a page or two; 1 MiB leaves room for anything sensible and bounds the work. */
enum { MAX_FILE_BYTES = 1 << 20, DEFAULTS_BYTES = 8192, NEAREST_BYTES = 160 };

/* ---- entries to keys ---- */

/* The longest section that `path` lies in, into section [bytes]; what follows it is returned. NULL:
 * in none. */
static const char *split_path(const char *path, char *section, size_t bytes)
{
    const char *rest = NULL;
    for (int i = 0; i < mt_table_n_key(); i++) {
        const char *candidate = mt_table_key(i)->section;
        const size_t n = strlen(candidate);
        const bool longer = rest == NULL || path + n + 1 > rest;
        if (longer && strncmp(path, candidate, n) == 0 && path[n] == '.') {
            (void)snprintf(section, bytes, "%s", candidate);
            rest = path + n + 1;
        }
    }
    return rest;
}

/* Where the first place of a section is kept: at its first row. */
static void note_section(struct mt_load *load, const char *section, struct mt_text_place place)
{
    for (int i = 0; i < mt_table_n_key(); i++) {
        if (strcmp(mt_table_key(i)->section, section) == 0) {
            if (load->section[i].line == 0 && place.layer == 0) {
                load->section[i] = place;
            }
            return;
        }
    }
}

static void refuse_table(struct mt_load *load, const char *path, struct mt_text_place place)
{
    mt_report_add(&load->report, place, "unknown table [%.200s]; nearest valid table is [%s]", path,
                  mt_suggest_section(path));
}

static void refuse_top_level(struct mt_load *load, const char *path, struct mt_text_place place)
{
    char nearest[NEAREST_BYTES];
    mt_suggest_key("", path, nearest, sizeof(nearest));
    mt_report_add(&load->report, place,
                  "unknown key \"%.200s\" outside of all tables; nearest valid key is %s", path,
                  nearest);
}

/* What one entry means. False: its members mean nothing and are to be passed over. */
static bool apply_entry(struct mt_load *load, const struct mt_toml_entry *entry,
                        struct mt_text_place place)
{
    char section[64];
    const bool is_table = entry->value.type == MT_TOML_TABLE;
    const bool is_tables = entry->value.type == MT_TOML_ARRAY && entry->n_item > 0 &&
                           entry->item[0].type == MT_TOML_TABLE;
    if (mt_table_has_section(entry->path)) {
        if (!is_table) {
            mt_report_add(&load->report, place, "\"%s\" is a table; expected its keys below [%s]",
                          entry->path, entry->path);
        }
        note_section(load, entry->path, place);
        return is_table;
    }
    const char *name = split_path(entry->path, section, sizeof(section));
    const int index = name == NULL ? -1 : mt_table_find(section, name);
    if (index >= 0) {
        mt_value_assign(load, index, entry, place);
        const enum mt_key_type type = mt_table_key(index)->type;
        return type == MT_KEY_FACTORS || type == MT_KEY_PATH_SETS;
    }
    static const char slowdown[] = "device.slowdown.";
    if (strncmp(entry->path, slowdown, strlen(slowdown)) == 0) {
        mt_value_assign_factor(load, entry->path + strlen(slowdown), entry, place);
        return false;
    }
    static const char sets[] = "data.validation_sets.";
    if (strncmp(entry->path, sets, strlen(sets)) == 0) {
        mt_value_assign_set(load, entry->path + strlen(sets), entry, place);
        return false;
    }
    if (is_table || is_tables) {
        refuse_table(load, entry->path, place);
    } else if (name == NULL) {
        refuse_top_level(load, entry->path, place);
    } else {
        char nearest[NEAREST_BYTES];
        mt_suggest_key(section, name, nearest, sizeof(nearest));
        mt_report_add(&load->report, place,
                      "unknown key \"%.200s\" in [%s]; nearest valid key is %s", name, section,
                      nearest);
    }
    return false;
}

static void apply_document(struct mt_load *load, const struct mt_toml_document *document, int layer)
{
    const char *passed_over = NULL;
    for (int64_t i = 0; i < document->n_entry; i++) {
        const struct mt_toml_entry *entry = &document->entry[i];
        const size_t n = passed_over == NULL ? 0 : strlen(passed_over);
        if (n > 0 && strncmp(entry->path, passed_over, n) == 0 && entry->path[n] == '.') {
            continue;
        }
        const struct mt_text_place place = {layer, entry->line, entry->column};
        passed_over = apply_entry(load, entry, place) ? NULL : entry->path;
    }
}

static void apply_defaults(struct mt_load *load)
{
    char text[DEFAULTS_BYTES];
    size_t used = 0;
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        if (key->value != NULL && key->offset != MT_NO_FIELD) {
            const int n = snprintf(text + used, sizeof(text) - used, "%s.%s = %s\n", key->section,
                                   key->name, key->value);
            MT_ASSERT(n > 0 && (size_t)n < sizeof(text) - used);
            used += (size_t)n;
        }
    }
    struct mt_toml_document document;
    const bool is_toml = mt_toml_open(text, (int64_t)used, &document);
    MT_ASSERT(is_toml);
    apply_document(load, &document, 0);
    mt_toml_close(&document);
    MT_ASSERT(load->report.n_found == 0);
    memset(load->status, 0, sizeof(load->status));
    memset(load->place, 0, sizeof(load->place));
    memset(load->section, 0, sizeof(load->section));
}

/* ---- layers: defaults, file, overrides ---- */

static void apply_file(struct mt_load *load, const char *text, int64_t text_bytes)
{
    struct mt_toml_document document;
    if (mt_toml_open(text, text_bytes, &document)) {
        apply_document(load, &document, 0);
    } else {
        load->has_syntax_error = true;
        const struct mt_text_place place = {0, document.error_line, document.error_column};
        mt_report_add(&load->report, place, "%s", document.error);
    }
    mt_toml_close(&document);
}

/* A word that was meant as a string: letters or a path, but neither a number nor a truth value nor
 * anything that TOML gives a meaning. */
static bool is_unquoted_text(const char *value)
{
    return value[0] != '\0' && strchr("+-0123456789\"'[{#", value[0]) == NULL &&
           strpbrk(value, "\"'[]{}=#\n") == NULL && strcasecmp(value, "true") != 0 &&
           strcasecmp(value, "false") != 0;
}

/* The key of `section.name = ..`, `length` bytes before the sign; NULL: there is none. */
static const struct mt_key *key_of_override(const char *text, size_t length)
{
    char path[64];
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    (void)snprintf(path, sizeof(path), "%.*s", (int)mt_min_i64((int64_t)length, 63), text);
    char *dot = strrchr(path, '.');
    if (dot == NULL) {
        return NULL;
    }
    *dot = '\0';
    const int index = mt_table_find(path, dot + 1);
    return index >= 0 ? mt_table_key(index) : NULL;
}

/* Keys that take words, in quotation marks. */
static bool takes_words(const struct mt_key *key)
{
    return key == NULL || key->type == MT_KEY_TEXT || key->type == MT_KEY_CHOICE ||
           key->type == MT_KEY_AUTO_INTEGER;
}

static void refuse_override(struct mt_load *load, const char *text, struct mt_text_place place,
                            const struct mt_toml_document *document)
{
    const char *equals = strchr(text, '=');
    const char *value = equals == NULL ? "" : equals + 1;
    while (isspace((unsigned char)*value)) {
        value++;
    }
    const struct mt_key *key =
        equals == NULL ? NULL : key_of_override(text, (size_t)(equals - text));
    if (!takes_words(key) && is_unquoted_text(value)) {
        char values[256];
        mt_key_describe_values(key, values, sizeof(values));
        const char *example = key->example != NULL ? key->example : key->value;
        mt_report_add(&load->report, place, "%.80s is no TOML value; %s.%s takes: %s%s%s", value,
                      key->section, key->name, values, example != NULL ? "; e.g. " : "",
                      example != NULL ? example : "");
    } else if (equals != NULL && is_unquoted_text(value)) {
        mt_report_add(&load->report, place,
                      "%.80s is no TOML value; a string stands in quotation marks; write --set "
                      "'%.*s=\"%.80s\"'",
                      value, (int)mt_min_i64(equals - text, 80), text, value);
    } else {
        mt_report_add(&load->report, place, "%s", document->error);
    }
}

static void apply_override(struct mt_load *load, const char *text, int layer)
{
    const struct mt_text_place place = {layer, 0, 0};
    const size_t n = strlen(text);
    const size_t start = strspn(text, " \t");
    if (n > MAX_FILE_BYTES || strpbrk(text, "\n\r") != NULL || strchr(text, '=') == NULL ||
        text[start] == '[' || text[start] == '#') {
        mt_report_add(&load->report, place,
                      "expected one section.key=value in TOML syntax, e.g. --set train.steps=100");
        return;
    }
    struct mt_toml_document document;
    if (mt_toml_open(text, (int64_t)n, &document)) {
        apply_document(load, &document, layer);
    } else {
        load->has_syntax_error = true;
        refuse_override(load, text, place, &document);
    }
    mt_toml_close(&document);
}

/* What there is to read. */
struct source {
    const char *text; /* [text_bytes] */
    int64_t text_bytes;
    const char *origin, *base_dir;
    const char *run_dir; /* NULL = as the text says */
    int n_override;
    const char *const *overrides; /* [n_override] */
};

static enum mt_status resolve(const struct source *source, struct mt_config *config)
{
    struct mt_load *load = NULL;
    MT_TRY(MT_ALLOCATE(load, 1, "configuration"));
    memset(config, 0, sizeof(*config));
    load->config = config;
    load->base_dir = source->base_dir == NULL ? "" : source->base_dir;
    load->report.origin = source->origin;
    load->report.overrides = source->overrides;
    apply_defaults(load);
    apply_file(load, source->text, source->text_bytes);
    for (int i = 0; i < source->n_override; i++) {
        apply_override(load, source->overrides[i], i + 1);
    }
    if (!load->has_syntax_error) {
        mt_rules_apply(load, source->origin, source->run_dir);
    }
    const enum mt_status status = mt_report_status(&load->report);
    mt_memory_free(load);
    return status;
}

enum mt_status mt_config_parse(const char *text, const char *origin, const char *base_dir,
                               int n_override, const char *const *overrides, const char *run_dir,
                               struct mt_config *config)
{
    const struct source source = {.text = text,
                                  .text_bytes = (int64_t)strlen(text),
                                  .origin = origin,
                                  .base_dir = base_dir,
                                  .run_dir = run_dir,
                                  .n_override = n_override,
                                  .overrides = overrides};
    return resolve(&source, config);
}

/* ---- the file ---- */

/* text [MAX_FILE_BYTES + 1] */
static enum mt_status read_file(const char *path, char *text, int64_t *text_bytes)
{
    /* Not blocking: a pipe would wait for somebody to write into it. */
    const int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "rb") : NULL;
    struct stat about;
    size_t n = 0;
    int problem = errno;
    if (file != NULL && fstat(descriptor, &about) == 0 && S_ISFIFO(about.st_mode)) {
        (void)fclose(file);
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s: is a pipe; a configuration file was expected, which every rank reads; "
                       "save it to a file",
                       path);
    }
    if (file != NULL) {
        n = fread(text, 1, MAX_FILE_BYTES + 1, file);
        problem = ferror(file) != 0 ? errno : 0;
        (void)fclose(file);
    }
    if (file == NULL || problem != 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s: %s; a readable configuration file was expected; check the path", path,
                       strerror(problem));
    }
    if (n > MAX_FILE_BYTES) {
        return MT_FAIL(
            MT_ERR_CONFIG,
            "%s: larger than %d bytes; a configuration file was expected; check the path", path,
            (int)MAX_FILE_BYTES);
    }
    *text_bytes = (int64_t)n;
    return MT_OK;
}

/* The folder of `path` as an absolute path, so that the resolved configuration means the same from
 * any working directory. folder [MT_PATH_BYTES] */
static enum mt_status find_folder(const char *path, char *folder)
{
    char working[MT_PATH_BYTES] = "";
    if (path[0] != '/' && getcwd(working, sizeof(working)) == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "%s: the working directory cannot be read: %s; change to one",
                       path, strerror(errno));
    }
    const char *slash = strrchr(path, '/');
    const int n_folder = slash == NULL ? 0 : (int)mt_min_i64(slash - path, MT_PATH_BYTES);
    const int n = snprintf(folder, MT_PATH_BYTES, "%s%s%.*s", working,
                           working[0] != '\0' && n_folder > 0 ? "/" : "", n_folder, path);
    if (n < 0 || n >= MT_PATH_BYTES) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%.200s...: the path has more than %d bytes; use a shorter one", path,
                       (int)MT_PATH_BYTES - 1);
    }
    return MT_OK;
}

/* Paths become text of checkpoints and metrics, which are UTF-8. */
static enum mt_status check_paths(const char *const path[], int n_path)
{
    for (int i = 0; i < n_path; i++) {
        if (path[i] != NULL && !mt_toml_is_utf8(path[i])) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "%s: this path is not UTF-8; checkpoints and metrics keep it as UTF-8 "
                           "text; rename it",
                           path[i]);
        }
    }
    return MT_OK;
}

enum mt_status mt_config_load(const char *path, int n_override, const char *const *overrides,
                              const char *run_dir, struct mt_config *config)
{
    char folder[MT_PATH_BYTES];
    char *text = NULL;
    enum mt_status status = MT_OK;
    struct source source = {.origin = path,
                            .base_dir = folder,
                            .run_dir = run_dir,
                            .n_override = n_override,
                            .overrides = overrides};
    MT_TRY(MT_ALLOCATE(text, MAX_FILE_BYTES + 1, "configuration file"));
    MT_TRY_GOTO(read_file(path, text, &source.text_bytes));
    MT_TRY_GOTO(find_folder(path, folder));
    MT_TRY_GOTO(check_paths((const char *const[]){path, folder, run_dir}, 3));
    source.text = text;
    MT_TRY_GOTO(resolve(&source, config));
cleanup:
    mt_memory_free(text);
    return status;
}
