/* The manifest from text that may be damaged or hostile. Every function reads one kind of thing and
 * leaves it checked; what is wrong is named by its key. */
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/manifest_text.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "base/size.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_WORLD_SIZE = 1 << 20 }; /* times the shards of a rank it is an int */

static enum mt_status fail_key(const char *path, const char *key, const char *expected)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: the value of \"%s\" is wrong; %s was expected; use another checkpoint",
                   path, key, expected);
}

static enum mt_status get_integer(const char *path, const json_t *object, const char *key,
                                  int64_t least, int64_t most, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > most) {
        char expected[96];
        (void)snprintf(expected, sizeof(expected), "a whole number from %lld to %lld",
                       (long long)least, (long long)most);
        return fail_key(path, key, expected);
    }
    *out = json_integer_value(value);
    return MT_OK;
}

static enum mt_status get_checksum(const char *path, const json_t *object, const char *key,
                                   uint64_t *out)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || strlen(text) != MT_MANIFEST_HEX_DIGITS ||
        strspn(text, "0123456789abcdef") != MT_MANIFEST_HEX_DIGITS) {
        return fail_key(path, key, "16 hexadecimal digits");
    }
    *out = strtoull(text, NULL, 16);
    return MT_OK;
}

static enum mt_status get_array(const char *path, const json_t *object, const char *key,
                                int64_t least, int64_t most, const json_t **array, int64_t *n)
{
    *array = json_object_get(object, key);
    *n = (int64_t)json_array_size(*array);
    if (!json_is_array(*array) || *n < least || *n > most) {
        char expected[96];
        (void)snprintf(expected, sizeof(expected), "an array of %lld to %lld entries",
                       (long long)least, (long long)most);
        return fail_key(path, key, expected);
    }
    return MT_OK;
}

static enum mt_status read_files(const char *path, const json_t *root, struct mt_manifest *manifest)
{
    const json_t *files = NULL;
    int64_t n = 0;
    MT_TRY(get_array(path, root, "files", manifest->n_file, manifest->n_file, &files, &n));
    for (int64_t i = 0; i < n; ++i) {
        struct mt_manifest_file *file = &manifest->file[i];
        const json_t *row = json_array_get(files, (size_t)i);
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name == NULL || strcmp(name, file->name) != 0) {
            return fail_key(path, "files", file->name);
        }
        MT_TRY(get_integer(path, row, "bytes", 0, INT64_MAX, &file->n_byte));
        MT_TRY(get_checksum(path, row, "xxh3", &file->checksum));
    }
    return MT_OK;
}

/* Names are paths of datasets: no dots, nothing empty, below /model/ or /optimizer/. */
static bool is_tensor_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/";
    if (name == NULL) {
        return false;
    }
    const size_t length = strlen(name);
    return (strncmp(name, "/model/", 7) == 0 || strncmp(name, "/optimizer/", 11) == 0) &&
           length < MT_CHECKPOINT_NAME_BYTES && strspn(name, allowed) == length &&
           strstr(name, "//") == NULL && name[length - 1] != '/';
}

static enum mt_status read_shape(const char *path, const json_t *row,
                                 struct mt_manifest_tensor *tensor)
{
    const json_t *shape = NULL;
    int64_t n = 0;
    int64_t n_byte = (int64_t)sizeof(float);
    MT_TRY(get_array(path, row, "shape", 1, 3, &shape, &n));
    tensor->n_dim = (int)n;
    for (int d = 0; d < tensor->n_dim; ++d) {
        const json_t *value = json_array_get(shape, (size_t)d);
        tensor->dim[d] = json_integer_value(value); /* 0 when it is no integer */
        if (tensor->dim[d] < 1 || !mt_size_multiply(n_byte, tensor->dim[d], &n_byte)) {
            return fail_key(path, "shape", "positive sizes whose product fits 63 bits");
        }
    }
    int64_t row_dims = 1; /* unless it says otherwise */
    if (json_object_get(row, "row_dims") != NULL) {
        MT_TRY(get_integer(path, row, "row_dims", 1, n == 3 ? 2 : 1, &row_dims));
    }
    tensor->is_cut = row_dims == 2;
    return MT_OK;
}

/* Optional; only where parts are told. */
static enum mt_status read_first_part(const char *path, const json_t *row,
                                      const struct mt_manifest *manifest,
                                      struct mt_manifest_tensor *tensor)
{
    int64_t part = -1;
    if (json_object_get(row, "part_of_expert_0") != NULL) {
        MT_TRY(get_integer(path, row, "part_of_expert_0", 0, MT_EXPERT_PARTS - 1, &part));
        if (!manifest->parts.is_told) {
            return fail_key(path, "part_of_expert_0", "\"experts\" beside it");
        }
    }
    tensor->first_part = (int)part;
    return MT_OK;
}

/* Optional: -1 where it is not given. */
static enum mt_status read_offset(const char *path, const json_t *value, int64_t *offset)
{
    *offset = -1;
    return json_object_get(value, "offset") == NULL
               ? MT_OK
               : get_integer(path, value, "offset", 0, INT64_MAX, offset);
}

/* Pieces must follow each other without gap or overlap, which also bounds every later read. Those
 * of a cut tensor end where the first dimension goes on. */
static enum mt_status read_pieces(const char *path, const json_t *row, struct mt_manifest *manifest,
                                  struct mt_manifest_tensor *tensor)
{
    const json_t *pieces = NULL;
    int64_t next_row = 0;
    const int64_t n_row = mt_manifest_n_row(tensor);
    MT_TRY(get_array(path, row, "pieces", 1, n_row, &pieces, &tensor->n_piece));
    for (int64_t i = 0; i < tensor->n_piece; ++i) {
        struct mt_manifest_piece *piece = &manifest->piece[tensor->first_piece + i];
        const json_t *value = json_array_get(pieces, (size_t)i);
        const int64_t rows_left = mt_min_i64(
            n_row - next_row, tensor->is_cut ? tensor->dim[1] - next_row % tensor->dim[1] : n_row);
        int64_t shard = 0;
        MT_TRY(get_integer(path, value, "shard", 0, mt_manifest_n_shard(manifest) - 1, &shard));
        MT_TRY(get_integer(path, value, "first_row", next_row, next_row, &piece->first_row));
        MT_TRY(get_integer(path, value, "rows", 1, rows_left, &piece->n_row));
        MT_TRY(get_checksum(path, value, "xxh3", &piece->checksum));
        MT_TRY(read_offset(path, value, &piece->offset));
        piece->shard = (int)shard;
        next_row += piece->n_row;
    }
    if (next_row != n_row) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: the pieces of %s end at row %lld; %lld rows were expected; use another "
                       "checkpoint",
                       path, tensor->name, (long long)next_row, (long long)n_row);
    }
    return MT_OK;
}

static enum mt_status read_tensor(const char *path, const json_t *row, struct mt_manifest *manifest,
                                  struct mt_manifest_tensor *tensor)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *dtype = json_string_value(json_object_get(row, "dtype"));
    if (!is_tensor_name(name)) {
        return fail_key(path, "name", "a path below /model/ or /optimizer/");
    }
    (void)snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    tensor->is_bfloat16 = dtype != NULL && strcmp(dtype, MT_MANIFEST_BFLOAT16) == 0;
    if (dtype == NULL || (!tensor->is_bfloat16 && strcmp(dtype, MT_MANIFEST_FLOAT32) != 0)) {
        return fail_key(path, "dtype", MT_MANIFEST_FLOAT32 " or " MT_MANIFEST_BFLOAT16);
    }
    MT_TRY(read_shape(path, row, tensor));
    MT_TRY(read_first_part(path, row, manifest, tensor));
    return read_pieces(path, row, manifest, tensor);
}

static enum mt_status check_names_differ(const char *path, const struct mt_manifest *manifest)
{
    const struct mt_manifest_tensor **by_name = NULL;
    enum mt_status status = MT_OK;
    MT_TRY(mt_manifest_sort(manifest, &by_name));
    for (int64_t t = 1; t < manifest->n_tensor && status == MT_OK; ++t) {
        if (strcmp(by_name[t - 1]->name, by_name[t]->name) == 0) {
            status = fail_key(path, by_name[t]->name, "one entry for a tensor");
        }
    }
    mt_memory_free(by_name);
    return status;
}

/* The shards are at least as large as what they are said to hold. */
static enum mt_status check_sizes(const char *path, const struct mt_manifest *manifest)
{
    int64_t have = 0;
    int64_t need = 0;
    for (int64_t i = 1; i < manifest->n_file; ++i) {
        if (!mt_size_add(have, manifest->file[i].n_byte, &have)) {
            return fail_key(path, "bytes", "a sum that fits 63 bits");
        }
    }
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        const int64_t n_byte = mt_manifest_n_row(tensor) * mt_manifest_row_bytes(tensor);
        if (!mt_size_add(need, n_byte, &need) || need > have) {
            return fail_key(path, tensor->name, "a tensor that fits its shards");
        }
    }
    return MT_OK;
}

static enum mt_status count_pieces(const char *path, const json_t *tensors, int64_t *n_piece)
{
    *n_piece = 0;
    for (size_t t = 0; t < json_array_size(tensors); ++t) {
        const json_t *pieces = NULL;
        int64_t n = 0;
        MT_TRY(get_array(path, json_array_get(tensors, t), "pieces", 1, INT_MAX, &pieces, &n));
        *n_piece += n;
    }
    return MT_OK;
}

static enum mt_status read_state(const char *path, const json_t *root, struct mt_run_state *state)
{
    const json_t *object = json_object_get(root, "state");
    MT_TRY(get_integer(path, root, "step", 0, INT64_MAX, &state->step));
    MT_TRY(get_integer(path, root, "tokens_seen", 0, INT64_MAX, &state->tokens_seen));
    MT_TRY(get_integer(path, object, "next_sequence", 0, INT64_MAX, &state->next_sequence));
    MT_TRY(get_integer(path, object, "n_update", 0, INT64_MAX, &state->n_update));
    MT_TRY(get_integer(path, object, "n_skipped", 0, INT64_MAX, &state->n_skipped));
    state->n_lost_update = 0;
    if (json_object_get(object, "n_lost_update") != NULL) {
        MT_TRY(get_integer(path, object, "n_lost_update", 0, INT64_MAX, &state->n_lost_update));
    }
    return get_integer(path, object, "n_skipped_in_row", 0, INT64_MAX, &state->n_skipped_in_row);
}

/* One number a part, each at most `most`. */
static enum mt_status read_numbers(const char *path, const json_t *object, const char *key,
                                   int64_t most, int64_t *value)
{
    const json_t *array = NULL;
    int64_t n = 0;
    MT_TRY(get_array(path, object, key, MT_EXPERT_PARTS, MT_EXPERT_PARTS, &array, &n));
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        const json_t *number = json_array_get(array, (size_t)p);
        value[p] = json_integer_value(number);
        if (!json_is_integer(number) || value[p] < 0 || value[p] > most) {
            return fail_key(path, key, "whole numbers up to that of the checkpoint itself");
        }
    }
    return MT_OK;
}

/* Optional. *shards_a_rank follows from it. */
static enum mt_status read_parts(const char *path, const json_t *root,
                                 const struct mt_run_state *state, struct mt_expert_parts *parts,
                                 int *shards_a_rank)
{
    int64_t n_part = 0;
    const json_t *object = json_object_get(root, "experts");
    *shards_a_rank = 1;
    memset(parts, 0, sizeof(*parts));
    if (object == NULL) {
        return MT_OK;
    }
    const json_t *have_files = json_object_get(object, "have_files");
    if (!json_is_boolean(have_files)) {
        return fail_key(path, "have_files", "true or false");
    }
    MT_TRY(get_integer(path, object, "parts", MT_EXPERT_PARTS, MT_EXPERT_PARTS, &n_part));
    MT_TRY(read_numbers(path, object, "step", state->step, parts->step));
    MT_TRY(read_numbers(path, object, "n_update", state->n_update, parts->n_update));
    MT_TRY(read_numbers(path, object, "n_expert", INT_MAX, parts->n_expert));
    parts->is_told = true;
    *shards_a_rank = json_is_true(have_files) ? 1 + MT_EXPERT_PARTS : 1;
    return MT_OK;
}

static bool is_array_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    const size_t length = name != NULL ? strlen(name) : 0;
    return length > 0 && length < MT_MANIFEST_ARRAY_NAME_BYTES && strspn(name, allowed) == length;
}

/* One of them, of the n_left numbers that index.h5 has room for. */
static enum mt_status read_array(const char *path, const json_t *row, int64_t *n_left,
                                 struct mt_manifest_array *array)
{
    const int64_t item_bytes = (int64_t)sizeof(int64_t);
    const char *name = json_string_value(json_object_get(row, "name"));
    if (!is_array_name(name)) {
        return fail_key(path, "arrays", "names of letters, digits and underscores");
    }
    (void)snprintf(array->name, sizeof(array->name), "%s", name);
    MT_TRY(get_integer(path, row, "n", 0, *n_left, &array->n));
    *n_left -= array->n;
    return get_integer(path, row, "offset", 0, INT64_MAX - array->n * item_bytes, &array->offset);
}

/* Optional, after the files. */
static enum mt_status read_arrays(const char *path, const json_t *root,
                                  struct mt_manifest *manifest)
{
    const json_t *arrays = NULL;
    int64_t n = 0;
    int64_t n_left = manifest->file[0].n_byte / (int64_t)sizeof(int64_t);
    if (json_object_get(root, "arrays") == NULL) {
        return MT_OK;
    }
    MT_TRY(get_array(path, root, "arrays", 0, MT_MANIFEST_MAX_ARRAYS, &arrays, &n));
    MT_TRY(MT_ALLOCATE(manifest->array, n, "checkpoint manifest"));
    for (int64_t i = 0; i < n; ++i) {
        MT_TRY(read_array(path, json_array_get(arrays, (size_t)i), &n_left, &manifest->array[i]));
        for (int64_t j = 0; j < i; ++j) {
            if (strcmp(manifest->array[j].name, manifest->array[i].name) == 0) {
                return fail_key(path, manifest->array[i].name, "one entry for an array");
            }
        }
    }
    manifest->n_array = (int)n;
    return MT_OK;
}

static enum mt_status check_version(const char *path, const json_t *root)
{
    int64_t version = 0;
    const char *format = json_string_value(json_object_get(root, "format"));
    if (format == NULL || strcmp(format, MT_MANIFEST_FORMAT) != 0) {
        return fail_key(path, "format", MT_MANIFEST_FORMAT);
    }
    MT_TRY(get_integer(path, root, "format_version", 1, INT64_MAX, &version));
    if (version > MT_CHECKPOINT_FORMAT_VERSION) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: format version %lld is newer than this program; up to %d was expected; "
                       "use a newer moetrain",
                       path, (long long)version, MT_CHECKPOINT_FORMAT_VERSION);
    }
    return MT_OK;
}

static enum mt_status read_root(const char *path, const json_t *root, struct mt_manifest *manifest)
{
    const json_t *tensors = NULL;
    int64_t world_size = 0;
    int64_t n_tensor = 0;
    int64_t n_piece = 0;
    int shards_a_rank = 1;
    struct mt_run_state state = {0};
    struct mt_expert_parts parts;
    MT_TRY(check_version(path, root));
    MT_TRY(read_state(path, root, &state));
    MT_TRY(read_parts(path, root, &state, &parts, &shards_a_rank));
    MT_TRY(get_integer(path, root, "world_size", 1, MAX_WORLD_SIZE, &world_size));
    MT_TRY(get_array(path, root, "tensors", 1, INT_MAX, &tensors, &n_tensor));
    MT_TRY(count_pieces(path, tensors, &n_piece));
    const char *config = json_string_value(json_object_get(root, "config"));
    if (config == NULL) {
        return fail_key(path, "config", "the text of a configuration");
    }
    MT_TRY(mt_manifest_init(manifest, (int)world_size, shards_a_rank, n_tensor, n_piece, config));
    manifest->state = state;
    manifest->parts = parts;
    MT_TRY(
        mt_manifest_set_versions(manifest, json_string_value(json_object_get(root, "versions"))));
    MT_TRY(get_integer(path, root, "format_version", 1, MT_CHECKPOINT_FORMAT_VERSION,
                       &manifest->format_version));
    MT_TRY(get_checksum(path, root, "config_hash", &manifest->config_hash));
    MT_TRY(read_files(path, root, manifest));
    MT_TRY(read_arrays(path, root, manifest));
    int64_t first_piece = 0;
    for (int64_t t = 0; t < n_tensor; ++t) {
        struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        tensor->first_piece = first_piece;
        MT_TRY(read_tensor(path, json_array_get(tensors, (size_t)t), manifest, tensor));
        first_piece += tensor->n_piece;
    }
    MT_TRY(check_names_differ(path, manifest));
    MT_TRY(check_sizes(path, manifest));
    return mt_manifest_number_rows(manifest);
}

static enum mt_status check_own_checksum(const char *path, const char *text, int64_t n_byte)
{
    char want[MT_MANIFEST_TAIL_BYTES + 1] = "";
    const int64_t n_summed = n_byte - MT_MANIFEST_TAIL_BYTES;
    if (n_summed > 0) {
        (void)snprintf(want, sizeof(want), MT_MANIFEST_TAIL_FORMAT,
                       (unsigned long long)XXH3_64bits(text, (size_t)n_summed));
    }
    if (n_summed <= 0 || memcmp(text + n_summed, want, MT_MANIFEST_TAIL_BYTES) != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is damaged: it does not end in the checksum of its own bytes; a whole "
                       "manifest was expected; use another checkpoint",
                       path);
    }
    return MT_OK;
}

enum mt_status mt_manifest_parse(const char *path, const char *text, int64_t n_byte,
                                 struct mt_manifest *manifest)
{
    memset(manifest, 0, sizeof(*manifest));
    MT_TRY(check_own_checksum(path, text, n_byte));
    json_error_t error;
    json_t *root = json_loadb(text, (size_t)n_byte, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s:%d:%d: %s; JSON as this program writes it was expected; use another "
                       "checkpoint",
                       path, error.line, error.column, mt_input_quote(error.text));
    }
    const enum mt_status status = read_root(path, root, manifest);
    json_decref(root);
    if (status != MT_OK) {
        mt_manifest_clear(manifest);
    }
    return status;
}

enum mt_status mt_manifest_read(const char *folder, struct mt_manifest *manifest)
{
    char path[MT_PATH_BYTES];
    char *text = NULL;
    int64_t n_byte = 0;
    memset(manifest, 0, sizeof(*manifest));
    MT_TRY(mt_disk_join(path, folder, "manifest.json"));
    MT_TRY(mt_disk_read_file(path, MT_MANIFEST_MAX_BYTES, &text, &n_byte));
    const enum mt_status status = mt_manifest_parse(path, text, n_byte, manifest);
    mt_memory_free(text);
    return status;
}
