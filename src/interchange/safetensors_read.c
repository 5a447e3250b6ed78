#include "interchange/safetensors.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8 };

static void close_file(struct mt_safetensors *source)
{
    if (source->descriptor >= 0) {
        (void)close(source->descriptor);
    }
    source->descriptor = -1;
    source->open_file = -1;
}

static enum mt_status open_file(struct mt_safetensors *source, int file, int64_t *n_byte)
{
    close_file(source);
    MT_TRY(mt_disk_join(source->path, source->folder, source->file[file]));
    MT_TRY(mt_foreign_open(source->path, &source->descriptor, n_byte));
    source->open_file = file;
    return MT_OK;
}

/* *n_header: as the file's first bytes say, checked against its size. */
static enum mt_status read_length(struct mt_safetensors *source, int64_t n_byte, int64_t *n_header)
{
    unsigned char length[LENGTH_BYTES] = {0};
    uint64_t n = 0;
    if (n_byte < LENGTH_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; at least 8 were expected, the length of the header; get "
                       "the file again",
                       source->path, (long long)n_byte);
    }
    MT_TRY(mt_foreign_read(source->descriptor, source->path, 0, length, LENGTH_BYTES));
    for (int i = LENGTH_BYTES - 1; i >= 0; --i) {
        n = n << 8 | length[i];
    }
    if (n > (uint64_t)(n_byte - LENGTH_BYTES) || n > MT_FOREIGN_MOST_BYTES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s says that its header has %llu bytes; at most %lld were expected, which "
                       "is the file's rest or the most of any header; get the file again",
                       source->path, (unsigned long long)n,
                       (long long)mt_min_i64(n_byte - LENGTH_BYTES, MT_FOREIGN_MOST_BYTES));
    }
    *n_header = (int64_t)n;
    return MT_OK;
}

static enum mt_status read_header(struct mt_safetensors *source, int file)
{
    int64_t n_byte = 0;
    struct mt_header header = {.path = source->path, .file = file};
    char *text = NULL;
    MT_TRY(open_file(source, file, &n_byte));
    MT_TRY(read_length(source, n_byte, &header.n_byte));
    MT_TRY(MT_ALLOCATE(text, header.n_byte + 1, "safetensors header"));
    enum mt_status status =
        mt_foreign_read(source->descriptor, source->path, LENGTH_BYTES, text, header.n_byte);
    if (status == MT_OK) {
        header.text = text;
        header.data_offset = LENGTH_BYTES + header.n_byte;
        header.data_bytes = n_byte - header.data_offset;
        status = mt_safetensors_parse_header(source, &header);
    }
    mt_memory_free(text);
    return status;
}

static int by_name(const void *a, const void *b)
{
    const struct mt_stored *left = a;
    const struct mt_stored *right = b;
    const int order = strcmp(left->name, right->name);
    return order != 0 ? order : left->file - right->file;
}

static enum mt_status read_headers(struct mt_safetensors *source)
{
    for (int file = 0; file < source->n_file; ++file) {
        MT_TRY(read_header(source, file));
    }
    if (source->n > 0) {
        qsort(source->stored, (size_t)source->n, sizeof(*source->stored), by_name);
    }
    for (int64_t i = 1; i < source->n; ++i) {
        const struct mt_stored *stored = &source->stored[i];
        if (strcmp(stored[-1].name, stored->name) == 0) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %s is in %s and in %s; one of them was expected; get the files "
                           "again",
                           source->folder, stored->name, source->file[stored[-1].file],
                           source->file[stored->file]);
        }
    }
    return MT_OK;
}

static enum mt_status open_one(struct mt_safetensors *source)
{
    if (!mt_foreign_is_there(source->folder, MT_SAFETENSORS_ONE)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has neither %s nor %s; a folder with a model in safetensors was "
                       "expected; convert other formats to it first",
                       source->folder, MT_SAFETENSORS_ONE, MT_SAFETENSORS_INDEX);
    }
    MT_TRY(MT_ALLOCATE(source->file, 1, "names of files"));
    memcpy(source->file[0], MT_SAFETENSORS_ONE, sizeof(MT_SAFETENSORS_ONE));
    source->n_file = 1;
    return read_headers(source);
}

static enum mt_status open_indexed(struct mt_safetensors *source)
{
    char path[MT_PATH_BYTES];
    json_t *index = NULL;
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_join(path, source->folder, MT_SAFETENSORS_INDEX));
    MT_TRY(mt_foreign_read_json(path, &index));
    MT_TRY_GOTO(mt_safetensors_list_files(source, path, index));
    MT_TRY_GOTO(read_headers(source));
    MT_TRY_GOTO(mt_safetensors_check_index(source, path, index));
cleanup:
    json_decref(index);
    return status;
}

enum mt_status mt_safetensors_open(struct mt_safetensors *source, const char *folder)
{
    memset(source, 0, sizeof(*source));
    source->descriptor = -1;
    source->open_file = -1;
    MT_TRY(mt_disk_join(source->folder, folder, "."));
    source->folder[strlen(source->folder) - 2] = '\0';
    return mt_foreign_is_there(folder, MT_SAFETENSORS_INDEX) ? open_indexed(source)
                                                             : open_one(source);
}

void mt_safetensors_close(struct mt_safetensors *source)
{
    close_file(source);
    mt_memory_free(source->file);
    mt_memory_free(source->stored);
    memset(source, 0, sizeof(*source));
    source->descriptor = -1;
}

const struct mt_stored *mt_safetensors_find(const struct mt_safetensors *source, const char *name)
{
    int64_t low = 0;
    int64_t high = source->n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (strcmp(source->stored[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < source->n && strcmp(source->stored[low].name, name) == 0 ? &source->stored[low]
                                                                          : NULL;
}

enum mt_status mt_safetensors_read(struct mt_safetensors *source, const struct mt_stored *stored,
                                   int64_t first, int64_t n, float *data)
{
    const int64_t element_bytes = mt_stored_type_bytes(stored->type);
    int64_t n_byte = 0;
    MT_ASSERT(first >= 0 && n >= 0 && first + n <= stored->n_element);
    if (source->open_file != stored->file) {
        MT_TRY(open_file(source, stored->file, &n_byte));
    }
    char *packed = (char *)data + n * ((int64_t)sizeof(float) - element_bytes);
    MT_TRY(mt_foreign_read(source->descriptor, source->path, stored->offset + first * element_bytes,
                           packed, n * element_bytes));
    mt_stored_type_widen(stored->type, data, n);
    return MT_OK;
}
