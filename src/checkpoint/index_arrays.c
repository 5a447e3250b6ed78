/* The state arrays of an index. Where they lie the manifest says, or of older checkpoints HDF5. */
#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/index.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_OBJECT = 64 }; /* more than a run has; the guard's time is enough for many times as many */

struct listing {
    int n;
    struct mt_manifest_array array[MT_MANIFEST_MAX_ARRAYS];
};

/* What state->array points to. */
struct taken {
    struct mt_state_array array[MT_MANIFEST_MAX_ARRAYS];
    struct listing listing; /* has the names */
};

static enum mt_status fail_arrays(const char *path)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "%s: the arrays in /state are too many, too long or not readable; at most %d "
                   "with names below %d bytes, written into this file, were expected; use another "
                   "checkpoint",
                   path, MT_MANIFEST_MAX_ARRAYS, MT_MANIFEST_ARRAY_NAME_BYTES);
}

/* The layout is looked at first: for the size of a virtual dataset the library opens files. */
static enum mt_status describe_dataset(hid_t dataset, const char *path,
                                       struct mt_manifest_array *array)
{
    if (!mt_hdf5_is_contiguous(dataset)) {
        return fail_arrays(path);
    }
    const hid_t space = H5Dget_space(dataset);
    array->n = (int64_t)H5Sget_simple_extent_npoints(space);
    (void)H5Sclose(space);
    if (array->n <= 0) {
        return array->n == 0 ? MT_OK : fail_arrays(path);
    }
    MT_TRY(mt_hdf5_check_shape(dataset, path, array->name, H5T_STD_I64LE, 1, &array->n));
    return mt_hdf5_data_offset(dataset, path, array->name, &array->offset);
}

static enum mt_status describe(hid_t file, const char *path, hid_t group, hsize_t index,
                               struct mt_manifest_array *array)
{
    char name[MT_CHECKPOINT_NAME_BYTES];
    hid_t dataset = H5I_INVALID_HID;
    const ssize_t length =
        H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, index, array->name,
                           MT_MANIFEST_ARRAY_NAME_BYTES, H5P_DEFAULT);
    if (length <= 0 || length >= MT_MANIFEST_ARRAY_NAME_BYTES) {
        return fail_arrays(path);
    }
    (void)snprintf(name, sizeof(name), "/state/%s", array->name);
    MT_TRY(mt_hdf5_open_dataset(file, path, name, &dataset));
    const enum mt_status status = describe_dataset(dataset, path, array);
    (void)H5Dclose(dataset);
    return status;
}

/* An index from elsewhere may claim anything, but what it holds lies in it, each array once. */
static enum mt_status list_group(hid_t file, const char *path, hid_t group, struct listing *listing)
{
    H5G_info_t about;
    hsize_t file_bytes = 0;
    if (H5Gget_info(group, &about) < 0 || about.nlinks > MT_MANIFEST_MAX_ARRAYS ||
        H5Fget_filesize(file, &file_bytes) < 0) {
        return fail_arrays(path);
    }
    int64_t n_left = (int64_t)(file_bytes / sizeof(int64_t));
    for (hsize_t i = 0; i < about.nlinks; ++i) {
        struct mt_manifest_array *array = &listing->array[i];
        MT_TRY(describe(file, path, group, i, array));
        if (array->n > n_left) {
            return fail_arrays(path);
        }
        n_left -= array->n;
        listing->n++;
    }
    return MT_OK;
}

static enum mt_status list_file(hid_t file, const char *path, struct listing *listing)
{
    if (H5Lexists(file, "/state", H5P_DEFAULT) <= 0) {
        return MT_OK;
    }
    MT_TRY(mt_hdf5_check_link(file, path, "/state"));
    const hid_t group = H5Gopen2(file, "/state", H5P_DEFAULT);
    const enum mt_status status =
        group >= 0 ? list_group(file, path, group, listing) : fail_arrays(path);
    (void)H5Gclose(group);
    return status;
}

/* In a child process. */
static enum mt_status list_in_child(void *context, void *result)
{
    const char *path = context;
    hid_t file = H5I_INVALID_HID;
    MT_TRY(mt_hdf5_open(path, &file));
    return list_file(file, path, result);
}

/* A child whose library was led astray may say anything. */
static bool is_sane(const struct listing *listing)
{
    const int64_t most = INT64_MAX / MT_MANIFEST_MAX_ARRAYS / (int64_t)sizeof(int64_t);
    bool is_sane = listing->n >= 0 && listing->n <= MT_MANIFEST_MAX_ARRAYS;
    for (int i = 0; is_sane && i < listing->n; ++i) {
        const struct mt_manifest_array *array = &listing->array[i];
        is_sane = array->n >= 0 && array->n <= most && array->offset >= 0 &&
                  memchr(array->name, '\0', sizeof(array->name)) != NULL;
    }
    return is_sane;
}

static enum mt_status list_arrays(const char *path, const struct mt_manifest *manifest,
                                  struct listing *listing)
{
    if (manifest->n_array < 0) {
        MT_TRY(mt_hdf5_guard(path, N_OBJECT, list_in_child, (void *)(uintptr_t)path, listing,
                             (int64_t)sizeof(*listing)));
        return is_sane(listing) ? MT_OK : fail_arrays(path);
    }
    listing->n = manifest->n_array;
    memcpy(listing->array, manifest->array, (size_t)listing->n * sizeof(*listing->array));
    return MT_OK;
}

static enum mt_status read_values(int descriptor, const char *path,
                                  const struct mt_manifest_array *array, int64_t *values)
{
    return mt_disk_read(descriptor, path, array->offset, values,
                        array->n * (int64_t)sizeof(*values));
}

static enum mt_status read_wanted(int descriptor, const char *path, const struct listing *listing,
                                  const struct mt_state_array *wanted)
{
    for (int64_t i = 0; i < wanted->n; ++i) {
        wanted->values[i] = 0;
    }
    for (int i = 0; i < listing->n; ++i) {
        const struct mt_manifest_array *array = &listing->array[i];
        if (strcmp(array->name, wanted->name) == 0 && array->n == wanted->n) {
            return read_values(descriptor, path, array, wanted->values);
        }
    }
    return MT_OK;
}

enum mt_status mt_index_read_arrays(const char *path, const struct mt_manifest *manifest,
                                    const struct mt_run_state *state)
{
    int descriptor = -1;
    struct listing *listing = NULL;
    enum mt_status status = MT_OK;
    MT_TRY(MT_ALLOCATE(listing, 1, "state of the run"));
    MT_TRY_GOTO(list_arrays(path, manifest, listing));
    MT_TRY_GOTO(mt_disk_open_to_read(path, &descriptor));
    for (int i = 0; i < state->n_array && status == MT_OK; ++i) {
        status = read_wanted(descriptor, path, listing, &state->array[i]);
    }
    (void)close(descriptor);
cleanup:
    mt_memory_free(listing);
    return status;
}

/* Into memory of their own. */
static enum mt_status take_values(int descriptor, const char *path, struct taken *taken, int *n)
{
    for (int i = 0; i < taken->listing.n; ++i) {
        const struct mt_manifest_array *array = &taken->listing.array[i];
        struct mt_state_array *to = &taken->array[i];
        MT_TRY(MT_ALLOCATE(to->values, array->n, "state of the run"));
        to->name = array->name;
        to->n = array->n;
        ++*n;
        MT_TRY(read_values(descriptor, path, array, to->values));
    }
    return MT_OK;
}

enum mt_status mt_index_take_arrays(const char *path, const struct mt_manifest *manifest,
                                    struct mt_run_state *state)
{
    int descriptor = -1;
    struct taken *taken = NULL;
    memset(state, 0, sizeof(*state));
    MT_TRY(MT_ALLOCATE(taken, 1, "state of the run"));
    state->array = taken->array;
    MT_TRY(list_arrays(path, manifest, &taken->listing));
    MT_TRY(mt_disk_open_to_read(path, &descriptor));
    const enum mt_status status = take_values(descriptor, path, taken, &state->n_array);
    (void)close(descriptor);
    return status;
}

void mt_index_free_arrays(struct mt_run_state *state)
{
    for (int i = 0; i < state->n_array; ++i) {
        mt_memory_free(state->array[i].values);
    }
    mt_memory_free((void *)(uintptr_t)state->array); /* the struct taken that it begins */
    memset(state, 0, sizeof(*state));
}
