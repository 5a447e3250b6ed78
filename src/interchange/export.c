#include "interchange/interchange.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/new_folder.h"
#include "interchange/safetensors.h"
#include "interchange/weights.h"
#include "interchange/wire.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_ELEMENTS = 1 << 18, LENGTH_BYTES = 8 };

struct export
{
    const struct mt_export_options *options;
    const struct mt_family *family;
    struct mt_weights weights;
    struct mt_wires wires;
    int64_t *first_wire; /* [n_file + 1] of each file */
    int n_file;
    struct mt_new_folder made;
    float *value; /* [BUFFER_ELEMENTS] */
};

static int64_t wire_bytes(const struct export *export, int64_t wire)
{
    return export->wires.wire[wire].n_element * mt_stored_type_bytes(export->options->type);
}

/* The first family that has such models; what each misses is said when none has. */
static enum mt_status choose_family(struct export *export)
{
    export->family = export->options->family;
    if (export->family != NULL) {
        return mt_config_json_check(export->weights.config, export->family);
    }
    char reasons[2048] = "";
    for (int i = 0; i < mt_n_family && export->family == NULL; ++i) {
        if (mt_config_json_check(export->weights.config, &mt_families[i]) == MT_OK) {
            export->family = &mt_families[i];
            return MT_OK;
        }
        const size_t used = strlen(reasons);
        const char *end = strchr(mt_error_last()->text, ';');
        (void)snprintf(reasons + used, sizeof(reasons) - used, "%s%.*s", used > 0 ? "; " : "",
                       end != NULL ? (int)(end - mt_error_last()->text) : 0, mt_error_last()->text);
        mt_error_clear();
    }
    return MT_FAIL(
        MT_ERR_CONFIG,
        "no family has models like that of %s: %s; its tensors can be read from index.h5",
        export->options->from, reasons);
}

/* Tensors in order, a new file whenever the next one would not fit. */
static enum mt_status plan_files(struct export *export)
{
    int64_t n_byte = 0;
    MT_TRY(MT_ALLOCATE(export->first_wire, export->wires.n + 1, "files"));
    export->n_file = 1;
    for (int64_t w = 0; w < export->wires.n; ++w) {
        if (n_byte > 0 && n_byte + wire_bytes(export, w) > export->options->shard_bytes) {
            export->first_wire[export->n_file++] = w;
            n_byte = 0;
        }
        n_byte += wire_bytes(export, w);
    }
    export->first_wire[export->n_file] = export->wires.n;
    return MT_OK;
}

static void file_name(const struct export *export, int file, char name[64])
{
    if (export->n_file == 1) {
        (void)snprintf(name, 64, MT_SAFETENSORS_ONE);
    } else {
        (void)snprintf(name, 64, "model-%05d-of-%05d.safetensors", file + 1, export->n_file);
    }
}

/* The object, which is given away, as text; freed by free. */
static enum mt_status dump(json_t *object, size_t flags, char **text)
{
    *text = object != NULL ? json_dumps(object, flags) : NULL;
    json_decref(object);
    if (*text == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "no memory for the JSON of a file; free memory on this machine");
    }
    return MT_OK;
}

static json_t *header_json(const struct export *export, int file)
{
    int64_t offset = 0;
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (int64_t w = export->first_wire[file]; w < export->first_wire[file + 1]; ++w) {
        const struct mt_wire *wire = &export->wires.wire[w];
        json_t *shape = json_array();
        for (int d = 0; d < wire->n_dim; ++d) {
            (void)json_array_append_new(shape, json_integer(wire->dim[d]));
        }
        const int64_t end = offset + wire_bytes(export, w);
        (void)json_object_set_new(
            header, wire->name,
            json_pack("{s:s, s:o, s:[I,I]}", "dtype", mt_stored_type_word(export->options->type),
                      "shape", shape, "data_offsets", (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    return header;
}

/* Length, JSON, and spaces up to a multiple of 8 bytes, where data begin. */
static enum mt_status write_header(struct export *export, int file, int descriptor,
                                   const char *path, int64_t *offset)
{
    static const char spaces[LENGTH_BYTES] = "        ";
    unsigned char length[LENGTH_BYTES];
    char *text = NULL;
    MT_TRY(dump(header_json(export, file), JSON_COMPACT, &text));
    const int64_t n_text = (int64_t)strlen(text);
    const int64_t n_header = mt_round_up(n_text, LENGTH_BYTES);
    enum mt_status status = MT_OK;
    for (int i = 0; i < LENGTH_BYTES; ++i) {
        length[i] = (unsigned char)((uint64_t)n_header >> (8 * i));
    }
    MT_TRY_GOTO(mt_disk_write(descriptor, path, 0, length, LENGTH_BYTES));
    MT_TRY_GOTO(mt_disk_write(descriptor, path, LENGTH_BYTES, text, n_text));
    MT_TRY_GOTO(mt_disk_write(descriptor, path, LENGTH_BYTES + n_text, spaces, n_header - n_text));
    *offset = LENGTH_BYTES + n_header;
cleanup:
    free(text);
    return status;
}

static enum mt_status write_run(struct export *export, const struct mt_wire *wire,
                                const struct mt_wire_run *run, int descriptor, const char *path,
                                int64_t *offset)
{
    const enum mt_stored_type type = export->options->type;
    for (int64_t done = 0; done < run->n_element; done += BUFFER_ELEMENTS) {
        const int64_t n = mt_min_i64(BUFFER_ELEMENTS, run->n_element - done);
        const int64_t n_byte = n * mt_stored_type_bytes(type);
        MT_TRY(mt_weights_read(&export->weights, run->tensor, run->first + done, n, export->value));
        if (!mt_stored_type_narrow(type, export->value, n)) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s has numbers too large for %s; smaller ones were expected; choose "
                           "another --dtype",
                           wire->name, mt_stored_type_name(type));
        }
        MT_TRY(mt_disk_write(descriptor, path, *offset, export->value, n_byte));
        *offset += n_byte;
    }
    return MT_OK;
}

static enum mt_status write_file(struct export *export, int file)
{
    char name[64];
    char path[MT_PATH_BYTES];
    int descriptor = -1;
    int64_t offset = 0;
    file_name(export, file, name);
    MT_TRY(mt_disk_join(path, export->made.temporary, name));
    MT_TRY(mt_disk_open_to_write(path, true, &descriptor));
    enum mt_status status = write_header(export, file, descriptor, path, &offset);
    for (int64_t w = export->first_wire[file]; w < export->first_wire[file + 1] && status == MT_OK;
         ++w) {
        const struct mt_wire *wire = &export->wires.wire[w];
        for (int64_t r = 0; r < mt_wire_n_run(wire) && status == MT_OK; ++r) {
            const struct mt_wire_run run = mt_wire_run(wire, r);
            status = write_run(export, wire, &run, descriptor, path, &offset);
        }
    }
    return mt_disk_finish(descriptor, path, status);
}

/* Digits of reals: the fewest of 15 to 17 with which `object` reads back the same. */
static size_t shortest(const json_t *object)
{
    size_t digits = 15;
    for (bool is_same = false; digits < 17 && !is_same; digits += !is_same) {
        char *text = json_dumps(object, JSON_REAL_PRECISION(digits));
        json_t *again = text != NULL ? json_loads(text, 0, NULL) : NULL;
        is_same = json_equal(object, again) == 1;
        json_decref(again);
        free(text);
    }
    return digits;
}

static enum mt_status write_json(const struct export *export, const char *name, json_t *object)
{
    char path[MT_PATH_BYTES];
    char *text = NULL;
    MT_TRY(mt_disk_join(path, export->made.temporary, name));
    MT_TRY(dump(object, JSON_INDENT(2) | JSON_REAL_PRECISION(shortest(object)), &text));
    MT_ASSERT(text != NULL);
    const enum mt_status status = mt_disk_write_file(path, text, (int64_t)strlen(text));
    free(text);
    return status;
}

static enum mt_status write_index(const struct export *export)
{
    int64_t n_byte = 0;
    json_t *map = json_object();
    for (int file = 0; file < export->n_file; ++file) {
        char name[64];
        file_name(export, file, name);
        for (int64_t w = export->first_wire[file]; w < export->first_wire[file + 1]; ++w) {
            (void)json_object_set_new(map, export->wires.wire[w].name, json_string(name));
            n_byte += wire_bytes(export, w);
        }
    }
    return write_json(export, MT_SAFETENSORS_INDEX,
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)n_byte,
                                "weight_map", map));
}

/* Under the name by which transformers knows its kind. */
static enum mt_status copy_tokenizer(const struct export *export)
{
    char path[MT_PATH_BYTES];
    const char *from = export->options->tokenizer;
    int source = -1;
    int target = -1;
    int64_t n_byte = 0;
    enum mt_status status = mt_foreign_open(from, &source, &n_byte);
    const int64_t most = BUFFER_ELEMENTS * (int64_t)sizeof(float);
    const size_t length = strlen(from);
    const bool is_model = length > 6 && strcmp(from + length - 6, ".model") == 0;
    MT_TRY_GOTO(status);
    MT_TRY_GOTO(mt_disk_join(path, export->made.temporary,
                             is_model ? "tokenizer.model" : "tokenizer.json"));
    MT_TRY_GOTO(mt_disk_open_to_write(path, true, &target));
    for (int64_t done = 0; done < n_byte && status == MT_OK; done += most) {
        const int64_t n = mt_min_i64(most, n_byte - done);
        status = mt_foreign_read(source, from, done, export->value, n);
        if (status == MT_OK) {
            status = mt_disk_write(target, path, done, export->value, n);
        }
    }
    status = mt_disk_finish(target, path, status);
cleanup:
    if (source >= 0) {
        (void)close(source);
    }
    return status;
}

static enum mt_status write_all(struct export *export)
{
    json_t *config = NULL;
    MT_TRY(mt_new_folder_begin(&export->made));
    MT_TRY(mt_config_json_make(export->weights.config, export->family, export->options->type,
                               &config));
    MT_TRY(write_json(export, "config.json", config));
    if (export->options->tokenizer != NULL) {
        MT_TRY(copy_tokenizer(export));
    }
    for (int file = 0; file < export->n_file; ++file) {
        MT_TRY(write_file(export, file));
    }
    if (export->n_file > 1) {
        MT_TRY(write_index(export));
    }
    return mt_new_folder_commit(&export->made);
}

/* It is one, and of this model: no id is beyond vocab_size, as generate asks of it, too. */
static enum mt_status check_tokenizer(const struct mt_export_options *options, int64_t vocab_size)
{
    struct mt_tokenizer *tokenizer = NULL;
    if (options->tokenizer == NULL) {
        return MT_OK;
    }
    MT_TRY(mt_tokenizer_open(options->tokenizer, &tokenizer));
    const int64_t n_id = mt_tokenizer_vocab_size(tokenizer);
    mt_tokenizer_close(tokenizer);
    if (strcmp(options->tokenizer, "bytes") == 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--tokenizer bytes is no file that could be given to others; a "
                       "tokenizer.json or a SentencePiece .model was expected; leave it out");
    }
    return n_id <= vocab_size
               ? MT_OK
               : MT_FAIL(MT_ERR_CONFIG,
                         "%s has ids up to %lld, the model's vocab_size is %lld; the tokenizer of "
                         "the model's data was expected",
                         options->tokenizer, (long long)n_id - 1, (long long)vocab_size);
}

static enum mt_status export_all(struct export *export)
{
    const struct mt_export_options *options = export->options;
    MT_TRY(mt_new_folder_init(&export->made, options->to, "the model's folder"));
    MT_TRY(check_tokenizer(options, INT64_MAX)); /* before the checkpoint is read through */
    MT_TRY(mt_weights_open(&export->weights, options->from));
    MT_TRY(check_tokenizer(options, export->weights.config->model.vocab_size));
    MT_TRY(choose_family(export));
    MT_TRY(mt_wires_plan(&export->weights.tensors.table, export->family, options->layout,
                         &export->wires));
    MT_TRY(plan_files(export));
    MT_TRY(MT_ALLOCATE(export->value, BUFFER_ELEMENTS, "export"));
    const enum mt_status status = write_all(export);
    if (status != MT_OK) {
        mt_new_folder_abandon(&export->made);
    }
    return status;
}

enum mt_status mt_interchange_export(const struct mt_export_options *options,
                                     struct mt_interchange_report *report)
{
    struct export *export = NULL;
    MT_TRY(MT_ALLOCATE(export, 1, "export"));
    export->options = options;
    const enum mt_status status = export_all(export);
    *report = (struct mt_interchange_report){.family = export->family,
                                             .layout = options->layout,
                                             .n_stored = export->wires.n,
                                             .n_file = export->n_file};
    for (int64_t w = 0; w < export->wires.n; ++w) {
        report->n_element += export->wires.wire[w].n_element;
    }
    mt_weights_close(&export->weights);
    mt_wires_clear(&export->wires);
    mt_memory_free(export->first_wire);
    mt_memory_free(export->value);
    mt_memory_free(export);
    return status;
}
