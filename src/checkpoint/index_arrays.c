/* The state arrays of an index, whatever they are called. */
#include "base/memory.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/index.h"

#include <string.h>

enum { ARRAY_NAME_BYTES = 64, MAX_ARRAYS = 1024 };

/* What state->array points to; its names follow. */
struct arrays {
    struct mt_state_array array[MAX_ARRAYS];
    char name[MAX_ARRAYS][ARRAY_NAME_BYTES];
};

static enum mt_status fail_arrays(const char *path)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: the arrays in /state are too many, too long or not readable; at most %d "
                   "with names below %d bytes, written into this file, were expected; use another "
                   "checkpoint",
                   path, MAX_ARRAYS, ARRAY_NAME_BYTES);
}

/* Length of /state/<name>; -1: it is not a dataset. */
static int64_t length_of(hid_t group, const char *name)
{
    H5L_info_t about;
    if (H5Lget_info(group, name, &about, H5P_DEFAULT) < 0 || about.type != H5L_TYPE_HARD) {
        return -1;
    }
    const hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    const hid_t space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    const int64_t n = space >= 0 ? (int64_t)H5Sget_simple_extent_npoints(space) : -1;
    (void)H5Sclose(space);
    (void)H5Dclose(dataset);
    return n;
}

/* An index from elsewhere may claim anything, but what it holds lies in it, each array once. */
static enum mt_status list_arrays(const char *path, hid_t file, hid_t group, struct arrays *arrays,
                                  int *n)
{
    H5G_info_t about;
    hsize_t file_bytes = 0;
    *n = 0;
    if (H5Gget_info(group, &about) < 0 || about.nlinks > MAX_ARRAYS ||
        H5Fget_filesize(file, &file_bytes) < 0) {
        return fail_arrays(path);
    }
    int64_t n_left = (int64_t)(file_bytes / sizeof(int64_t));
    for (hsize_t i = 0; i < about.nlinks; ++i) {
        char *name = arrays->name[*n];
        struct mt_state_array *array = &arrays->array[*n];
        const ssize_t length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name,
                                                  ARRAY_NAME_BYTES, H5P_DEFAULT);
        array->name = name;
        array->n = length > 0 && length < ARRAY_NAME_BYTES ? length_of(group, name) : -1;
        if (array->n < 0 || array->n > n_left) {
            return fail_arrays(path);
        }
        n_left -= array->n;
        MT_TRY(MT_ALLOCATE(array->values, array->n, "state of the run"));
        ++*n;
    }
    return MT_OK;
}

static enum mt_status open_and_list(const char *path, struct arrays *arrays, int *n)
{
    hid_t file = H5I_INVALID_HID;
    enum mt_status status = MT_OK;
    MT_TRY(mt_hdf5_open(path, &file));
    if (H5Lexists(file, "/state", H5P_DEFAULT) > 0) {
        const hid_t group = H5Gopen2(file, "/state", H5P_DEFAULT);
        status = group >= 0 ? list_arrays(path, file, group, arrays, n) : fail_arrays(path);
        (void)H5Gclose(group);
    }
    (void)H5Fclose(file);
    return status;
}

enum mt_status mt_index_take_arrays(const char *path, struct mt_run_state *state)
{
    struct arrays *arrays = NULL;
    memset(state, 0, sizeof(*state));
    MT_TRY(MT_ALLOCATE(arrays, 1, "state of the run"));
    state->array = arrays->array;
    MT_TRY(open_and_list(path, arrays, &state->n_array));
    return mt_index_read_arrays(path, state);
}

void mt_index_free_arrays(struct mt_run_state *state)
{
    for (int i = 0; i < state->n_array; ++i) {
        mt_memory_free(state->array[i].values);
    }
    mt_memory_free((void *)(uintptr_t)state->array); /* the struct arrays that it begins */
    memset(state, 0, sizeof(*state));
}
