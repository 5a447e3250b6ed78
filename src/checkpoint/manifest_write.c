/* The manifest's text. Its last key is the checksum of all bytes before that key. */
#include "checkpoint/manifest.h"
#include "checkpoint/manifest_text.h"

#include "base/memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static json_t *checksum_json(uint64_t checksum)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%016llx", (unsigned long long)checksum);
    return json_string(text);
}

static json_t *files_json(const struct mt_manifest *manifest)
{
    json_t *files = json_array();
    for (int64_t i = 0; i < manifest->n_file; ++i) {
        const struct mt_manifest_file *file = &manifest->file[i];
        json_t *row = json_pack("{s:s, s:I, s:o}", "name", file->name, "bytes",
                                (json_int_t)file->n_byte, "xxh3", checksum_json(file->checksum));
        (void)json_array_append_new(files, row);
    }
    return files;
}

static json_t *pieces_json(const struct mt_manifest *manifest,
                           const struct mt_manifest_tensor *tensor)
{
    json_t *pieces = json_array();
    for (int64_t i = 0; i < tensor->n_piece; ++i) {
        const struct mt_manifest_piece *piece = &manifest->piece[tensor->first_piece + i];
        json_t *row = json_pack("{s:i, s:I, s:I, s:o}", "shard", piece->shard, "first_row",
                                (json_int_t)piece->first_row, "rows", (json_int_t)piece->n_row,
                                "xxh3", checksum_json(piece->checksum));
        if (piece->offset >= 0) {
            (void)json_object_set_new(row, "offset", json_integer((json_int_t)piece->offset));
        }
        (void)json_array_append_new(pieces, row);
    }
    return pieces;
}

static json_t *tensors_json(const struct mt_manifest *manifest)
{
    json_t *tensors = json_array();
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        const struct mt_manifest_tensor *tensor = &manifest->tensor[t];
        json_t *shape = json_array();
        for (int d = 0; d < tensor->n_dim; ++d) {
            (void)json_array_append_new(shape, json_integer(tensor->dim[d]));
        }
        json_t *row = json_pack("{s:s, s:s, s:o, s:o}", "name", tensor->name, "dtype",
                                tensor->is_bfloat16 ? MT_MANIFEST_BFLOAT16 : MT_MANIFEST_FLOAT32,
                                "shape", shape, "pieces", pieces_json(manifest, tensor));
        if (tensor->is_cut) {
            (void)json_object_set_new(row, "row_dims", json_integer(2));
        }
        if (manifest->parts.is_told && tensor->first_part >= 0) {
            (void)json_object_set_new(row, "part_of_expert_0", json_integer(tensor->first_part));
        }
        (void)json_array_append_new(tensors, row);
    }
    return tensors;
}

static json_t *numbers_json(const int64_t *value)
{
    json_t *numbers = json_array();
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        (void)json_array_append_new(numbers, json_integer(value[p]));
    }
    return numbers;
}

/* NULL, which packing leaves out: nothing is to be told of parts. */
static json_t *parts_json(const struct mt_manifest *manifest)
{
    const struct mt_expert_parts *parts = &manifest->parts;
    return parts->is_told
               ? json_pack("{s:i, s:s, s:s, s:b, s:o, s:o, s:o}", "parts", MT_EXPERT_PARTS, "part",
                           "(part_of_expert_0 of the tensor + expert) mod parts", "meaning",
                           "experts are as they were at the step of their part; who goes on from "
                           "here has lost their updates since",
                           "have_files", mt_manifest_n_shard(manifest) > manifest->world_size,
                           "step", numbers_json(parts->step), "n_update",
                           numbers_json(parts->n_update), "n_expert", numbers_json(parts->n_expert))
               : NULL;
}

static json_t *counts_json(const struct mt_run_state *state)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "next_sequence", (json_int_t)state->next_sequence,
                     "n_update", (json_int_t)state->n_update, "n_skipped",
                     (json_int_t)state->n_skipped, "n_skipped_in_row",
                     (json_int_t)state->n_skipped_in_row);
}

static json_t *state_json(const struct mt_run_state *state)
{
    json_t *counts = counts_json(state);
    if (state->n_lost_update > 0) {
        (void)json_object_set_new(counts, "n_lost_update",
                                  json_integer((json_int_t)state->n_lost_update));
    }
    return counts;
}

/* NULL, which packing leaves out: not known. */
static json_t *arrays_json(const struct mt_manifest *manifest)
{
    json_t *arrays = manifest->n_array >= 0 ? json_array() : NULL;
    for (int i = 0; i < manifest->n_array; ++i) {
        const struct mt_manifest_array *array = &manifest->array[i];
        (void)json_array_append_new(arrays, json_pack("{s:s, s:I, s:I}", "name", array->name, "n",
                                                      (json_int_t)array->n, "offset",
                                                      (json_int_t)array->offset));
    }
    return arrays;
}

/* NULL: no memory, or a configuration that is not UTF-8. Packing passes that on. */
static json_t *manifest_json(const struct mt_manifest *manifest)
{
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:i, s:o, s:s, s:s*, s:o, s:o*, s:o*, s:o, s:o}", "format",
        MT_MANIFEST_FORMAT, "format_version", (json_int_t)manifest->format_version, "step",
        (json_int_t)manifest->state.step, "tokens_seen", (json_int_t)manifest->state.tokens_seen,
        "world_size", manifest->world_size, "config_hash", checksum_json(manifest->config_hash),
        "config", manifest->config_text, "versions", manifest->versions, "state",
        state_json(&manifest->state), "arrays", arrays_json(manifest), "experts",
        parts_json(manifest), "files", files_json(manifest), "tensors", tensors_json(manifest));
}

/* body "{...}" without its closing brace, then the last key. */
static enum mt_status append_checksum(const char *body, char **text, int64_t *n_byte)
{
    const size_t n_kept = strlen(body) - 2; /* without "\n}" */
    const size_t n_total = n_kept + 1 + MT_MANIFEST_TAIL_BYTES;
    MT_ASSERT(strcmp(body + n_kept, "\n}") == 0);
    if (n_total > MT_MANIFEST_MAX_BYTES) {
        return MT_FAIL(
            MT_ERR_RESOURCE,
            "the checkpoint's manifest would take %lld bytes; at most %lld were expected; "
            "use fewer ranks",
            (long long)n_total, (long long)MT_MANIFEST_MAX_BYTES);
    }
    MT_TRY(MT_ALLOCATE(*text, (int64_t)n_total + 1, "checkpoint manifest"));
    memcpy(*text, body, n_kept);
    (*text)[n_kept] = ',';
    const uint64_t checksum = XXH3_64bits(*text, n_kept + 1);
    (void)snprintf(*text + n_kept + 1, MT_MANIFEST_TAIL_BYTES + 1, MT_MANIFEST_TAIL_FORMAT,
                   (unsigned long long)checksum);
    *n_byte = (int64_t)n_total;
    return MT_OK;
}

enum mt_status mt_manifest_to_text(const struct mt_manifest *manifest, char **text, int64_t *n_byte)
{
    *text = NULL;
    json_t *json = manifest_json(manifest);
    char *body = json != NULL ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    if (body == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE, "cannot make the checkpoint's manifest; memory for about "
                                        "1 KiB a piece and a configuration in UTF-8 are needed; "
                                        "free memory or mend the configuration");
    }
    const enum mt_status status = append_checksum(body, text, n_byte);
    free(body); /* Jansson's own */
    return status;
}
