/* The JSON header of one file, which may be damaged or hostile. */
#include "interchange/safetensors.h"

#include "base/memory.h"
#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mt_status fail_tensor(const struct mt_header *header, const char *name,
                                  const char *what, const char *expected)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: the header's %s of %.128s is wrong; %s was expected; get the "
                   "file again",
                   header->path, what, name, expected);
}

static enum mt_status read_type(const struct mt_header *header, const json_t *row,
                                struct mt_stored *stored)
{
    const char *word = json_string_value(json_object_get(row, "dtype"));
    stored->type = word != NULL ? mt_stored_type_of_word(word) : MT_N_STORED_TYPE;
    if (stored->type < MT_N_STORED_TYPE) {
        return MT_OK;
    }
    char found[40];
    mt_foreign_describe(json_object_get(row, "dtype"), found, sizeof(found));
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: %s has dtype %s; F32, BF16 and F16 are supported; convert the model to one "
                   "of them first",
                   header->path, stored->name, found);
}

static enum mt_status read_shape(const struct mt_header *header, const json_t *row,
                                 struct mt_stored *stored)
{
    const json_t *shape = json_object_get(row, "shape");
    const size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > MT_STORED_DIMS) {
        return fail_tensor(header, stored->name, "shape", "a list of at most 3 sizes");
    }
    stored->n_dim = (int)n;
    stored->n_element = 1;
    for (size_t d = 0; d < MT_STORED_DIMS; ++d) {
        const json_t *value = json_array_get(shape, d);
        const bool is_size = json_is_integer(value) && json_integer_value(value) >= 0;
        stored->dim[d] = d < n && is_size ? json_integer_value(value) : 1;
        if ((d < n && !is_size) ||
            !mt_size_multiply(stored->n_element, stored->dim[d], &stored->n_element)) {
            return fail_tensor(header, stored->name, "shape", "sizes whose product fits 63 bits");
        }
    }
    return MT_OK;
}

/* Where it lies must be as long as its shape and type say. */
static enum mt_status read_place(const struct mt_header *header, const json_t *row,
                                 struct mt_stored *stored)
{
    const json_t *offsets = json_object_get(row, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    const int64_t first = json_integer_value(begin);
    const int64_t last = json_integer_value(end);
    int64_t n_byte = 0;
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        first < 0 || last < first || last > header->data_bytes) {
        return fail_tensor(header, stored->name, "data_offsets",
                           "begin and end of bytes that the file has");
    }
    if (!mt_size_multiply(stored->n_element, mt_stored_type_bytes(stored->type), &n_byte) ||
        n_byte != last - first) {
        return fail_tensor(header, stored->name, "data_offsets", "as many bytes as the shape has");
    }
    stored->offset = header->data_offset + first;
    return MT_OK;
}

static enum mt_status read_row(struct mt_safetensors *source, const struct mt_header *header,
                               const char *name, const json_t *row)
{
    if (!mt_foreign_is_name(name, MT_STORED_NAME_BYTES - 1) || !json_is_object(row)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: the header's entry %zu is no tensor; names of 1 to %d printing bytes "
                       "and {dtype, shape, data_offsets} were expected; get the file again",
                       header->path, (size_t)source->n, MT_STORED_NAME_BYTES - 1);
    }
    if (source->n == MT_STORED_MOST) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: more than %d tensors; fewer were expected of a model; check the path",
                       header->path, (int)MT_STORED_MOST);
    }
    MT_TRY(MT_MAKE_ROOM(source->stored, source->n, &source->capacity, 1, "stored tensors"));
    struct mt_stored *stored = &source->stored[source->n];
    memset(stored, 0, sizeof(*stored));
    (void)snprintf(stored->name, sizeof(stored->name), "%s", name);
    stored->file = header->file;
    MT_TRY(read_type(header, row, stored));
    MT_TRY(read_shape(header, row, stored));
    MT_TRY(read_place(header, row, stored));
    ++source->n;
    return MT_OK;
}

/* Words about the file: an object of strings, or safetensors itself would not read it. */
static enum mt_status check_metadata(const struct mt_header *header, json_t *metadata)
{
    const char *key = NULL;
    json_t *value = NULL;
    bool is_text = json_is_object(metadata);
    json_object_foreach(metadata, key, value)
    {
        is_text = is_text && json_is_string(value);
    }
    return is_text ? MT_OK
                   : MT_FAIL(MT_ERR_INPUT,
                             "%s: the header's __metadata__ is no object of strings; "
                             "{\"format\": \"pt\"} was expected; get the file again",
                             header->path);
}

static int by_offset(const void *a, const void *b)
{
    const struct mt_stored *left = a;
    const struct mt_stored *right = b;
    if (left->offset != right->offset) {
        return left->offset < right->offset ? -1 : 1;
    }
    /* Tensors without elements lie before the one that starts there. */
    return (left->n_element > right->n_element) - (left->n_element < right->n_element);
}

/* The format has neither gaps nor overlaps: what is not a tensor cannot hide in a file. */
static enum mt_status check_cover(struct mt_stored *stored, int64_t n,
                                  const struct mt_header *header)
{
    int64_t next = header->data_offset;
    if (n > 0) {
        qsort(stored, (size_t)n, sizeof(*stored), by_offset);
    }
    for (int64_t i = 0; i < n; ++i) {
        if (stored[i].offset != next) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %s starts at byte %lld of the file; %lld was expected, where the "
                           "tensor before it ends; get the file again",
                           header->path, stored[i].name, (long long)stored[i].offset,
                           (long long)next);
        }
        next += stored[i].n_element * mt_stored_type_bytes(stored[i].type);
    }
    if (next != header->data_offset + header->data_bytes) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %lld bytes follow the last tensor; none were expected; get the file "
                       "again",
                       header->path, (long long)(header->data_offset + header->data_bytes - next));
    }
    return MT_OK;
}

enum mt_status mt_safetensors_parse_header(struct mt_safetensors *source,
                                           const struct mt_header *header)
{
    json_t *object = NULL;
    const char *name = NULL;
    json_t *row = NULL;
    const int64_t n_before = source->n;
    MT_TRY(mt_foreign_parse(header->path, "the header", header->text, header->n_byte, &object));
    enum mt_status status = MT_OK;
    json_object_foreach(object, name, row)
    {
        if (status == MT_OK) {
            status = strcmp(name, "__metadata__") == 0 ? check_metadata(header, row)
                                                       : read_row(source, header, name, row);
        }
    }
    json_decref(object);
    MT_TRY(status);
    return check_cover(source->n > n_before ? source->stored + n_before : NULL,
                       source->n - n_before, header);
}
