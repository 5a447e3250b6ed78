/* Safetensors: tensors behind a JSON header, in one file or in several with an index.
 *
 *   model.safetensors                      | n: u64 | JSON header [n] | data |
 *   model.safetensors.index.json           {"weight_map": {tensor: file}}
 *   model-00001-of-00003.safetensors ...   the same as the one file
 *
 * Format: https://huggingface.co/docs/safetensors (2023). Opening reads headers, one file's at a
 * time; tensors are read when asked for, any run of elements. Held: 200 bytes a tensor. */
#ifndef MT_INTERCHANGE_SAFETENSORS_H
#define MT_INTERCHANGE_SAFETENSORS_H

#include "config/config.h"
#include "interchange/foreign.h"
#include "interchange/stored_type.h"

#define MT_SAFETENSORS_ONE   "model.safetensors"
#define MT_SAFETENSORS_INDEX "model.safetensors.index.json"

enum { MT_STORED_NAME_BYTES = 128, MT_STORED_DIMS = 3, MT_STORED_MOST = 1 << 20 };

/* One tensor of a file. */
struct mt_stored {
    char name[MT_STORED_NAME_BYTES];
    int file;
    enum mt_stored_type type;
    int n_dim; /* 0 to MT_STORED_DIMS; dim beyond it 1 */
    int64_t dim[MT_STORED_DIMS];
    int64_t n_element;
    int64_t offset; /* bytes, in the file */
};

struct mt_safetensors {
    char folder[MT_PATH_BYTES];
    int n_file;
    char (*file)[256]; /* [n_file] names, ascending */
    int64_t n, capacity;
    struct mt_stored *stored; /* [n] by name */
    int open_file;            /* whose descriptor is open; -1: none */
    int descriptor;
    char path[MT_PATH_BYTES]; /* of it */
};

/* All headers, checked: every tensor lies in its file, beside the others, and is in the index.
 * After an error, too, close. */
enum mt_status mt_safetensors_open(struct mt_safetensors *source, const char *folder);
void mt_safetensors_close(struct mt_safetensors *source);
/* NULL: there is none of that name. */
const struct mt_stored *mt_safetensors_find(const struct mt_safetensors *source, const char *name);
/* data [n]: elements [first, first + n) as float32. */
enum mt_status mt_safetensors_read(struct mt_safetensors *source, const struct mt_stored *stored,
                                   int64_t first, int64_t n, float *data);

/* safetensors_header.c: appends the tensors of one file, text [n_byte] being its header; data:
 * [data_offset, data_offset + data_bytes) of the file. */
struct mt_header {
    const char *path;
    const char *text;
    int64_t n_byte, data_offset, data_bytes;
    int file;
};
enum mt_status mt_safetensors_parse_header(struct mt_safetensors *source,
                                           const struct mt_header *header);
/* safetensors_index.c: the names of files in an index, and that its map is that of the headers. */
enum mt_status mt_safetensors_list_files(struct mt_safetensors *source, const char *path,
                                         json_t *index);
enum mt_status mt_safetensors_check_index(const struct mt_safetensors *source, const char *path,
                                          json_t *index);

#endif
