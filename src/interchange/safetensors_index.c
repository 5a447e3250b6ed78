/* model.safetensors.index.json: which file has which tensor. */
#include "interchange/safetensors.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 1 << 16 };

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* A file beside the index: no path leads out of the folder. */
static bool is_file_name(const char *name)
{
    return name != NULL && mt_foreign_is_name(name, 255) && strchr(name, '/') == NULL &&
           name[0] != '.';
}

static enum mt_status take_map(const char *path, json_t *index, json_t **map)
{
    *map = json_object_get(index, "weight_map");
    if (!json_is_object(*map) || json_object_size(*map) == 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: \"weight_map\" is missing or empty; {tensor: file} was expected; get "
                       "the file again",
                       path);
    }
    return MT_OK;
}

/* Once each, in ascending order: equal names follow each other after sorting. */
static void remove_doubles(struct mt_safetensors *source)
{
    int n = 0;
    qsort(source->file, (size_t)source->n_file, sizeof(*source->file), by_text);
    for (int i = 0; i < source->n_file; ++i) {
        if (n == 0 || strcmp(source->file[n - 1], source->file[i]) != 0) {
            memmove(source->file[n++], source->file[i], sizeof(*source->file));
        }
    }
    source->n_file = n;
}

/* The list stays short while the map is long: it is thinned whenever it is full. */
static enum mt_status add_file(struct mt_safetensors *source, int64_t *capacity, const char *name)
{
    if (source->n_file > 0 && strcmp(source->file[source->n_file - 1], name) == 0) {
        return MT_OK; /* most tensors lie where the one before them does */
    }
    if (source->n_file == *capacity && source->n_file > 0) {
        remove_doubles(source);
    }
    MT_TRY(MT_MAKE_ROOM(source->file, source->n_file, capacity, 1, "names of files"));
    memset(source->file[source->n_file], 0, sizeof(*source->file));
    memcpy(source->file[source->n_file], name, strlen(name));
    ++source->n_file;
    return MT_OK;
}

enum mt_status mt_safetensors_list_files(struct mt_safetensors *source, const char *path,
                                         json_t *index)
{
    json_t *map = NULL;
    json_t *value = NULL;
    const char *tensor = NULL;
    int64_t capacity = 0;
    MT_TRY(take_map(path, index, &map));
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        const bool is_name = mt_foreign_is_name(tensor, MT_STORED_NAME_BYTES - 1);
        if (!is_name || !is_file_name(name) || source->n_file >= MAX_FILES) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: \"weight_map\" does not name a file for %.128s; up to %d names "
                           "without folders were expected; get the file again",
                           path, is_name ? tensor : "one of its tensors", (int)MAX_FILES);
        }
        MT_TRY(add_file(source, &capacity, name));
    }
    remove_doubles(source);
    return MT_OK;
}

enum mt_status mt_safetensors_check_index(const struct mt_safetensors *source, const char *path,
                                          json_t *index)
{
    json_t *map = NULL;
    json_t *value = NULL;
    const char *tensor = NULL;
    MT_TRY(take_map(path, index, &map));
    json_object_foreach(map, tensor, value)
    {
        const struct mt_stored *stored = mt_safetensors_find(source, tensor);
        const char *file = json_string_value(value);
        if (stored == NULL || strcmp(source->file[stored->file], file) != 0) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: %.128s should be in %s, where it is not; an index of these very "
                           "files was expected; get them again",
                           path, tensor, file);
        }
    }
    for (int64_t i = 0; i < source->n; ++i) {
        if (json_object_get(map, source->stored[i].name) == NULL) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s lacks %s, which is in %s; an index of these very files was "
                           "expected; get them again",
                           path, source->stored[i].name, source->file[source->stored[i].file]);
        }
    }
    return MT_OK;
}
