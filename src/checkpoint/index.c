#include "checkpoint/index.h"

#include "base/memory.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/manifest_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum mt_status write_attribute(hid_t file, const char *path, const char *name, hid_t type,
                                      hid_t memory_type, const void *value)
{
    enum mt_status status = MT_OK;
    hid_t attribute = H5I_INVALID_HID;
    const hid_t space = H5Screate(H5S_SCALAR);
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path, space);
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path, H5Awrite(attribute, memory_type, value));
cleanup:
    (void)H5Aclose(attribute);
    (void)H5Sclose(space);
    return status;
}

/* Of variable length and in UTF-8: what h5py hands out as a str. */
static enum mt_status write_text(hid_t file, const char *path, const char *name, const char *text)
{
    enum mt_status status = MT_OK;
    const hid_t type = H5Tcopy(H5T_C_S1);
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Tset_size(type, H5T_VARIABLE));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Tset_cset(type, H5T_CSET_UTF8));
    MT_TRY_GOTO(write_attribute(file, path, name, type, type, &text));
cleanup:
    (void)H5Tclose(type);
    return status;
}

struct named_integer {
    const char *name;
    int64_t value;
};
enum { N_INTEGER = 8 };

static void list_integers(const struct mt_manifest *manifest, struct named_integer *list)
{
    const struct mt_run_state *state = &manifest->state;
    const struct named_integer all[N_INTEGER] = {
        {"format_version", manifest->format_version},
        {"step", state->step},
        {"tokens_seen", state->tokens_seen},
        {"world_size", manifest->world_size},
        {"next_sequence", state->next_sequence},
        {"n_update", state->n_update},
        {"n_skipped", state->n_skipped},
        {"n_skipped_in_row", state->n_skipped_in_row},
    };
    memcpy(list, all, sizeof(all));
}

static enum mt_status write_attributes(const struct mt_manifest *manifest, hid_t file,
                                       const char *path)
{
    struct named_integer integer[N_INTEGER];
    MT_TRY(write_text(file, path, "format", MT_MANIFEST_FORMAT));
    MT_TRY(write_text(file, path, "config", manifest->config_text));
    if (manifest->versions != NULL) {
        MT_TRY(write_text(file, path, "versions", manifest->versions));
    }
    list_integers(manifest, integer);
    for (int i = 0; i < N_INTEGER; ++i) {
        MT_TRY(write_attribute(file, path, integer[i].name, H5T_STD_I64LE, H5T_NATIVE_INT64,
                               &integer[i].value));
    }
    return MT_OK;
}

/* Rows of a tensor within its whole shape. */
static void select_rows(const struct mt_manifest_tensor *tensor,
                        const struct mt_manifest_piece *piece, hsize_t *start, hsize_t *count)
{
    for (int d = 0; d < tensor->n_dim; ++d) {
        start[d] = 0;
        count[d] = (hsize_t)tensor->dim[d];
    }
    start[0] = (hsize_t)piece->first_row;
    count[0] = (hsize_t)piece->n_row;
    if (tensor->is_cut) {
        start[0] = (hsize_t)(piece->first_row / tensor->dim[1]);
        start[1] = (hsize_t)(piece->first_row % tensor->dim[1]);
        count[0] = 1;
        count[1] = (hsize_t)piece->n_row;
    }
}

/* Maps one piece: rows of the whole tensor to rows of the shard's dataset. */
static enum mt_status map_piece(const struct mt_manifest *manifest,
                                const struct mt_manifest_tensor *tensor,
                                const struct mt_manifest_piece *piece, hid_t list, const char *path)
{
    enum mt_status status = MT_OK;
    hsize_t dim[MT_HDF5_MAX_DIM] = {0};
    hsize_t start[MT_HDF5_MAX_DIM] = {0};
    hsize_t count[MT_HDF5_MAX_DIM] = {0};
    int64_t shape[MT_HDF5_MAX_DIM] = {0};
    for (int d = 0; d < tensor->n_dim; ++d) {
        dim[d] = (hsize_t)tensor->dim[d];
    }
    const hid_t whole = H5Screate_simple(tensor->n_dim, dim, NULL);
    const int n_dim = mt_manifest_shard_shape(manifest, tensor, piece->shard, shape);
    for (int d = 0; d < n_dim; ++d) {
        dim[d] = (hsize_t)shape[d];
    }
    const hid_t source = H5Screate_simple(n_dim, dim, NULL);
    select_rows(tensor, piece, start, count);
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     H5Sselect_hyperslab(whole, H5S_SELECT_SET, start, NULL, count, NULL));
    for (int d = 0; d < n_dim; ++d) {
        start[d] = 0;
        count[d] = dim[d];
    }
    start[0] = (hsize_t)piece->shard_row;
    count[0] = (hsize_t)piece->n_row;
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     H5Sselect_hyperslab(source, H5S_SELECT_SET, start, NULL, count, NULL));
    MT_TRY_HDF5_GOTO(
        MT_ERR_RESOURCE, path,
        H5Pset_virtual(list, whole, manifest->file[1 + piece->shard].name, tensor->name, source));
cleanup:
    (void)H5Sclose(source);
    (void)H5Sclose(whole);
    return status;
}

static enum mt_status write_tensor(const struct mt_manifest *manifest,
                                   const struct mt_manifest_tensor *tensor, hid_t file,
                                   const char *path)
{
    enum mt_status status = MT_OK;
    hid_t list = H5I_INVALID_HID;
    hid_t dataset = H5I_INVALID_HID;
    const float missing = nanf("");
    hsize_t dim[MT_HDF5_MAX_DIM] = {0};
    for (int d = 0; d < tensor->n_dim; ++d) {
        dim[d] = (hsize_t)tensor->dim[d];
    }
    const hid_t space = H5Screate_simple(tensor->n_dim, dim, NULL);
    MT_TRY_GOTO(mt_hdf5_dataset_list(&list));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, path, H5Pset_fill_value(list, H5T_NATIVE_FLOAT, &missing));
    for (int64_t i = 0; i < tensor->n_piece; ++i) {
        MT_TRY_GOTO(
            map_piece(manifest, tensor, &manifest->piece[tensor->first_piece + i], list, path));
    }
    MT_TRY_GOTO(mt_hdf5_make_groups(file, path, tensor->name));
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     dataset = H5Dcreate2(file, tensor->name, H5T_IEEE_F32LE, space, H5P_DEFAULT,
                                          list, H5P_DEFAULT));
cleanup:
    (void)H5Dclose(dataset);
    (void)H5Pclose(list);
    (void)H5Sclose(space);
    return status;
}

static void array_name(char *name, const struct mt_state_array *array)
{
    const int n = snprintf(name, MT_CHECKPOINT_NAME_BYTES, "/state/%s", array->name);
    MT_ASSERT(n > 0 && n < MT_CHECKPOINT_NAME_BYTES);
}

static enum mt_status write_array(const struct mt_state_array *array, hid_t file, const char *path)
{
    enum mt_status status = MT_OK;
    hid_t list = H5I_INVALID_HID;
    hid_t dataset = H5I_INVALID_HID;
    char name[MT_CHECKPOINT_NAME_BYTES];
    const hsize_t dim = (hsize_t)array->n;
    const hid_t space = H5Screate_simple(1, &dim, NULL);
    array_name(name, array);
    MT_TRY_GOTO(mt_hdf5_dataset_list(&list));
    MT_TRY_GOTO(mt_hdf5_make_groups(file, path, name));
    MT_TRY_HDF5_GOTO(
        MT_ERR_RESOURCE, path,
        dataset = H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
    if (array->n > 0) {
        MT_TRY_HDF5_GOTO(
            MT_ERR_RESOURCE, path,
            H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, array->values));
    }
cleanup:
    (void)H5Dclose(dataset);
    (void)H5Pclose(list);
    (void)H5Sclose(space);
    return status;
}

static enum mt_status fill_file(const struct mt_manifest *manifest,
                                const struct mt_run_state *state, hid_t file, const char *path)
{
    MT_TRY(write_attributes(manifest, file, path));
    for (int64_t t = 0; t < manifest->n_tensor; ++t) {
        MT_TRY(write_tensor(manifest, &manifest->tensor[t], file, path));
    }
    for (int i = 0; i < state->n_array; ++i) {
        MT_TRY(write_array(&state->array[i], file, path));
    }
    return MT_OK;
}

static const char IN_MEMORY[] = "index.h5"; /* names it in errors */

static enum mt_status locate_array(hid_t file, struct mt_manifest_array *array)
{
    char name[MT_CHECKPOINT_NAME_BYTES];
    hid_t dataset = H5I_INVALID_HID;
    (void)snprintf(name, sizeof(name), "/state/%s", array->name);
    MT_TRY(mt_hdf5_open_dataset(file, IN_MEMORY, name, &dataset));
    const enum mt_status status =
        array->n > 0 ? mt_hdf5_data_offset(dataset, IN_MEMORY, name, &array->offset) : MT_OK;
    (void)H5Dclose(dataset);
    return status;
}

/* Where the arrays lie, which they do from save to save. */
static enum mt_status locate_arrays(hid_t file, const struct mt_run_state *state,
                                    struct mt_manifest *manifest)
{
    mt_memory_free(manifest->array);
    manifest->array = NULL;
    manifest->n_array = -1;
    MT_TRY(MT_ALLOCATE(manifest->array, state->n_array, "checkpoint manifest"));
    for (int i = 0; i < state->n_array; ++i) {
        struct mt_manifest_array *array = &manifest->array[i];
        (void)snprintf(array->name, sizeof(array->name), "%s", state->array[i].name);
        array->n = state->array[i].n;
        MT_TRY(locate_array(file, array));
    }
    manifest->n_array = state->n_array;
    return MT_OK;
}

enum mt_status mt_index_open(struct mt_index *index, struct mt_manifest *manifest,
                             const struct mt_run_state *state)
{
    hid_t file = H5I_INVALID_HID;
    char name[64]; /* of its own among those that are open in memory */
    memset(index, 0, sizeof(*index));
    (void)snprintf(name, sizeof(name), "%s at %p", IN_MEMORY, (void *)index);
    MT_TRY(mt_hdf5_create(name, true, &file));
    index->file = file;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(fill_file(manifest, state, file, IN_MEMORY));
    MT_TRY_GOTO(locate_arrays(file, state, manifest));
    MT_TRY_GOTO(mt_hdf5_take_image(file, IN_MEMORY, &index->image, &index->n_byte));
    return MT_OK;
cleanup:
    mt_index_close(index);
    return status;
}

static enum mt_status renew_attributes(const struct mt_manifest *manifest, hid_t file)
{
    struct named_integer integer[N_INTEGER];
    list_integers(manifest, integer);
    enum mt_status status = MT_OK;
    for (int i = 0; i < N_INTEGER && status == MT_OK; ++i) {
        const hid_t attribute = H5Aopen(file, integer[i].name, H5P_DEFAULT);
        status = mt_hdf5_status(H5Awrite(attribute, H5T_NATIVE_INT64, &integer[i].value),
                                MT_ERR_INTERNAL, IN_MEMORY, "H5Awrite", __FILE__, __LINE__);
        (void)H5Aclose(attribute);
    }
    return status;
}

static enum mt_status renew_array(const struct mt_state_array *array, hid_t file)
{
    char name[MT_CHECKPOINT_NAME_BYTES];
    array_name(name, array);
    if (array->n == 0) {
        return MT_OK;
    }
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const enum mt_status status = mt_hdf5_status(
        H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, array->values),
        MT_ERR_INTERNAL, IN_MEMORY, "H5Dwrite", __FILE__, __LINE__);
    (void)H5Dclose(dataset);
    return status;
}

enum mt_status mt_index_update(struct mt_index *index, const struct mt_manifest *manifest,
                               const struct mt_run_state *state)
{
    const hid_t file = index->file;
    MT_TRY(renew_attributes(manifest, file));
    for (int i = 0; i < state->n_array; ++i) {
        MT_TRY(renew_array(&state->array[i], file));
    }
    return mt_hdf5_renew_image(file, IN_MEMORY, index->image, index->n_byte);
}

void mt_index_close(struct mt_index *index)
{
    if (index->file > 0) {
        (void)H5Fclose(index->file);
    }
    mt_memory_free(index->image);
    memset(index, 0, sizeof(*index));
}

/* Every piece has its mapping: file, dataset and number of elements. */
static bool maps_pieces(hid_t dataset, const struct mt_manifest *manifest,
                        const struct mt_manifest_tensor *tensor)
{
    size_t n = 0;
    const hid_t list = H5Dget_create_plist(dataset);
    bool same = list >= 0 && H5Pget_layout(list) == H5D_VIRTUAL &&
                H5Pget_virtual_count(list, &n) >= 0 && (int64_t)n == tensor->n_piece;
    const int64_t row_elements = mt_manifest_row_elements(tensor);
    for (size_t i = 0; i < n && same; ++i) {
        const struct mt_manifest_piece *piece = &manifest->piece[tensor->first_piece + (int64_t)i];
        const char *want = manifest->file[1 + piece->shard].name;
        char file[MT_CHECKPOINT_NAME_BYTES] = "";
        char name[MT_CHECKPOINT_NAME_BYTES] = "";
        const hid_t space = H5Pget_virtual_vspace(list, i);
        same = H5Sget_select_npoints(space) == piece->n_row * row_elements &&
               H5Pget_virtual_filename(list, i, file, sizeof(file)) >= 0 &&
               H5Pget_virtual_dsetname(list, i, name, sizeof(name)) >= 0 &&
               strcmp(file, want) == 0 && strcmp(name, tensor->name) == 0;
        (void)H5Sclose(space);
    }
    (void)H5Pclose(list);
    return same;
}

/* The mappings first: for the size of a virtual dataset the library opens what they name. */
static enum mt_status check_tensor(hid_t file, const char *path, const struct mt_manifest *manifest,
                                   const struct mt_manifest_tensor *tensor)
{
    hid_t dataset = H5I_INVALID_HID;
    enum mt_status status = MT_OK;
    MT_TRY(mt_hdf5_open_dataset(file, path, tensor->name, &dataset));
    if (!maps_pieces(dataset, manifest, tensor)) {
        status = MT_FAIL(MT_ERR_INPUT,
                         "%s: %s is not put together from the shards as the manifest says; use "
                         "another checkpoint",
                         path, tensor->name);
    }
    if (status == MT_OK) {
        status = mt_hdf5_check_shape(dataset, path, tensor->name, H5T_IEEE_F32LE, tensor->n_dim,
                                     tensor->dim);
    }
    (void)H5Dclose(dataset);
    return status;
}

struct check {
    const char *path;
    const struct mt_manifest *manifest;
};

/* In a child process. */
static enum mt_status check_in_child(void *context, void *result)
{
    const struct check *check = context;
    hid_t file = H5I_INVALID_HID;
    MT_UNUSED(result);
    MT_TRY(mt_hdf5_open(check->path, &file));
    for (int64_t t = 0; t < check->manifest->n_tensor; ++t) {
        MT_TRY(check_tensor(file, check->path, check->manifest, &check->manifest->tensor[t]));
    }
    return MT_OK;
}

enum mt_status mt_index_check(const char *path, const struct mt_manifest *manifest)
{
    struct check check = {path, manifest};
    return mt_hdf5_guard(path, manifest->n_tensor + manifest->n_piece, check_in_child, &check, NULL,
                         0);
}
