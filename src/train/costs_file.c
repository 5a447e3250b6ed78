/* costs.json: eight numbers in picoseconds, percents, and a line for people. Specified in
 * docs/costs.md. */
#include "base/input_file.h"
#include "base/memory.h"
#include "checkpoint/disk.h"
#include "placement/exchange.h"
#include "train/costs.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT "moetrain-costs"
enum { FORMAT_VERSION = 1, MAX_FILE_BYTES = 1 << 16 };

/* A second for what is multiplied by rows or bytes, so that sums of plans stay inside 63 bits. */
#define SECOND_PS INT64_C(1000000000000)
#define LEVEL_FIELDS(name, level)                                                     \
    {name, "alpha_ps", offsetof(struct mt_costs, alpha_ps[level]), SECOND_PS, false}, \
    {                                                                                 \
        name, "kib_ps", offsetof(struct mt_costs, kib_ps[level]), SECOND_PS, false    \
    }

const struct mt_costs_field mt_costs_fields[MT_N_COSTS_FIELD] = {
    {NULL, "row_ps", offsetof(struct mt_costs, row_ps), SECOND_PS, false},
    {NULL, "instance_ps", offsetof(struct mt_costs, instance_ps), SECOND_PS, false},
    {NULL, "attention_ps", offsetof(struct mt_costs, attention_ps), 1000 * SECOND_PS, false},
    LEVEL_FIELDS("node", MT_LEVEL_NODE),
    LEVEL_FIELDS("network", MT_LEVEL_NETWORK),
    {"network", "alone_kib_ps", offsetof(struct mt_costs, alone_kib_ps), SECOND_PS, true},
};

/* Percents of exchanges: an object of loads, of ways, of sizes. */
#define PERCENTS "exchange_percent"

/* ---- reading ---- */

static enum mt_status fail_key(const char *path, const char *key, const char *expected)
{
    return MT_FAIL(
        MT_ERR_INPUT,
        "%s: the value of \"%s\" is missing or wrong; %s was expected; mend the file, or "
        "set placement.costs = \"measured\"",
        path, key, expected);
}

static bool is_key_of(const char *key, const char *level)
{
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        const struct mt_costs_field *field = &mt_costs_fields[i];
        const bool same_level = level == NULL
                                    ? field->level == NULL
                                    : field->level != NULL && strcmp(field->level, level) == 0;
        if (same_level && strcmp(field->name, key) == 0) {
            return true;
        }
    }
    if (level != NULL) {
        return false;
    }
    return strcmp(key, "format") == 0 || strcmp(key, "format_version") == 0 ||
           strcmp(key, "origin") == 0 || strcmp(key, "node") == 0 || strcmp(key, "network") == 0 ||
           strcmp(key, PERCENTS) == 0;
}

/* No key that this program would overlook. level NULL: the root. */
static enum mt_status check_keys(const char *path, json_t *object, const char *level)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object)) {
        return fail_key(path, level != NULL ? level : "(the file)", "an object");
    }
    json_object_foreach(object, key, value)
    {
        if (!is_key_of(key, level)) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: unknown key \"%.64s\"%s%s; a costs.json as this program writes it "
                           "was expected (docs/costs.md); take the key out",
                           path, key, level != NULL ? " in " : "", level != NULL ? level : "");
        }
    }
    return MT_OK;
}

static enum mt_status read_field(const char *path, const json_t *root,
                                 const struct mt_costs_field *field, struct mt_costs *costs)
{
    const json_t *object = field->level != NULL ? json_object_get(root, field->level) : root;
    const json_t *value = json_object_get(object, field->name);
    if (value == NULL && object != NULL && field->is_optional) {
        return MT_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > field->most) {
        char key[64];
        char expected[96];
        (void)snprintf(key, sizeof(key), "%s%s%s", field->level != NULL ? field->level : "",
                       field->level != NULL ? "." : "", field->name);
        (void)snprintf(expected, sizeof(expected),
                       "a whole number of picoseconds from 0 to %" PRId64, field->most);
        return fail_key(path, key, expected);
    }
    *mt_costs_value(costs, field) = json_integer_value(value);
    return MT_OK;
}

/* value: of one way, a list with a percent for every size. */
static bool take_percents(const json_t *value, int64_t *percent)
{
    bool is_good = json_is_array(value) && json_array_size(value) == MT_N_EXCHANGE_SIZE;
    for (size_t size = 0; size < MT_N_EXCHANGE_SIZE && is_good; size++) {
        const json_t *item = json_array_get(value, size);
        percent[size] = json_integer_value(item);
        is_good =
            json_is_integer(item) && percent[size] >= 1 && percent[size] <= MT_COSTS_MOST_PERCENT;
    }
    return is_good;
}

/* All of them, and no others; or the key is not there. */
static enum mt_status read_percents(const char *path, const json_t *root, struct mt_costs *costs)
{
    const json_t *all = json_object_get(root, PERCENTS);
    char expected[128];
    (void)snprintf(expected, sizeof(expected),
                   "a list of %d whole numbers from 1 to %d for each way of \"even\" and \"hot\"",
                   MT_N_EXCHANGE_SIZE, MT_COSTS_MOST_PERCENT);
    if (all == NULL) {
        return MT_OK;
    }
    bool is_good = json_object_size(all) == MT_N_EXCHANGE_LOAD;
    for (int load = 0; load < MT_N_EXCHANGE_LOAD && is_good; load++) {
        const json_t *ways =
            json_object_get(all, mt_exchange_load_name((enum mt_exchange_load)load));
        is_good = json_object_size(ways) == MT_N_EXCHANGE_TIMED;
        for (int way = 0; way < MT_N_EXCHANGE_TIMED && is_good; way++) {
            const char *name = mt_exchange_name((enum mt_exchange_kind)way);
            is_good =
                take_percents(json_object_get(ways, name), costs->exchange_percent[load][way]);
        }
    }
    return is_good ? MT_OK : fail_key(path, PERCENTS, expected);
}

static enum mt_status check_format(const char *path, const json_t *root)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *version = json_object_get(root, "format_version");
    const json_t *origin = json_object_get(root, "origin");
    if (format == NULL || strcmp(format, FORMAT) != 0) {
        return fail_key(path, "format", "\"" FORMAT "\"");
    }
    if (!json_is_integer(version) || json_integer_value(version) != FORMAT_VERSION) {
        return fail_key(path, "format_version", "1");
    }
    if (origin != NULL && !json_is_string(origin)) {
        return fail_key(path, "origin", "a text, or nothing,");
    }
    return MT_OK;
}

static enum mt_status read_root(const char *path, json_t *root, struct mt_costs *costs)
{
    MT_TRY(check_keys(path, root, NULL));
    MT_TRY(check_format(path, root));
    MT_TRY(check_keys(path, json_object_get(root, "node"), "node"));
    MT_TRY(check_keys(path, json_object_get(root, "network"), "network"));
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        MT_TRY(read_field(path, root, &mt_costs_fields[i], costs));
    }
    return read_percents(path, root, costs);
}

static enum mt_status fail_file(const char *path, const char *problem)
{
    return MT_FAIL(
        MT_ERR_INPUT,
        "cannot read %s: %s; a costs.json of at most %d bytes was expected; name another "
        "file, or set placement.costs = \"measured\"",
        path, problem, MAX_FILE_BYTES);
}

/* text [MAX_FILE_BYTES + 1] */
static enum mt_status read_text(const char *path, char *text, size_t *n_byte)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        return fail_file(path, strerror(errno));
    }
    FILE *file = S_ISREG(about.st_mode) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        return fail_file(path, S_ISREG(about.st_mode) ? strerror(errno) : "it is no regular file");
    }
    *n_byte = fread(text, 1, MAX_FILE_BYTES + 1, file);
    const bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed || *n_byte > MAX_FILE_BYTES) {
        return fail_file(path, failed ? "reading fails" : "it is too large");
    }
    return MT_OK;
}

static enum mt_status parse(const char *path, const char *text, size_t n_byte,
                            struct mt_costs *costs)
{
    json_error_t error;
    json_t *root = json_loadb(text, n_byte, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s:%d:%d: %s; a costs.json as this program writes it was expected "
                       "(docs/costs.md); mend it, or set placement.costs = \"measured\"",
                       path, error.line, error.column, mt_input_quote(error.text));
    }
    const enum mt_status status = read_root(path, root, costs);
    json_decref(root);
    return status;
}

enum mt_status mt_costs_read(const char *path, struct mt_costs *costs)
{
    char *text = NULL;
    size_t n_byte = 0;
    *costs = (struct mt_costs){0};
    MT_TRY(MT_ALLOCATE(text, MAX_FILE_BYTES + 1, "costs.json"));
    enum mt_status status = read_text(path, text, &n_byte);
    if (status == MT_OK) {
        status = parse(path, text, n_byte, costs);
    }
    mt_memory_free(text);
    return status;
}

/* ---- writing ---- */

static json_t *percents_json(const struct mt_costs *costs)
{
    json_t *all = json_object();
    for (int load = 0; load < MT_N_EXCHANGE_LOAD; load++) {
        json_t *ways = json_object();
        (void)json_object_set_new(all, mt_exchange_load_name((enum mt_exchange_load)load), ways);
        for (int way = 0; way < MT_N_EXCHANGE_TIMED; way++) {
            json_t *list = json_array();
            (void)json_object_set_new(ways, mt_exchange_name((enum mt_exchange_kind)way), list);
            for (int size = 0; size < MT_N_EXCHANGE_SIZE; size++) {
                (void)json_array_append_new(list,
                                            json_integer(costs->exchange_percent[load][way][size]));
            }
        }
    }
    return all;
}

static json_t *costs_json(const struct mt_costs *costs, const char *origin)
{
    struct mt_costs copy = *costs;
    json_t *root = json_pack("{s:s, s:i, s:s}", "format", FORMAT, "format_version", FORMAT_VERSION,
                             "origin", origin);
    for (int i = 0; i < MT_N_COSTS_FIELD; i++) {
        const struct mt_costs_field *field = &mt_costs_fields[i];
        json_t *object = root;
        if (field->level != NULL) {
            object = json_object_get(root, field->level);
            if (object == NULL) {
                (void)json_object_set_new(root, field->level, json_object());
                object = json_object_get(root, field->level);
            }
        }
        (void)json_object_set_new(object, field->name, json_integer(*mt_costs_value(&copy, field)));
    }
    if (mt_exchange_is_measured(costs)) {
        (void)json_object_set_new(root, PERCENTS, percents_json(costs));
    }
    return root;
}

enum mt_status mt_costs_write(const char *folder, const struct mt_costs *costs, const char *origin)
{
    char path[MT_PATH_BYTES];
    json_t *root = costs_json(costs, origin);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (text == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot make %s/costs.json: a text in UTF-8 and memory for "
                       "it were expected; choose another --run-dir or free memory",
                       folder);
    }
    enum mt_status status = mt_disk_join(path, folder, "costs.json.new");
    if (status == MT_OK) {
        status = mt_disk_remove(path); /* of a start that was cut off */
    }
    if (status == MT_OK) {
        status = mt_disk_write_file(path, text, (int64_t)strlen(text));
    }
    free(text); /* Jansson's own */
    MT_TRY(status);
    return mt_disk_rename(folder, "costs.json.new", "costs.json");
}
