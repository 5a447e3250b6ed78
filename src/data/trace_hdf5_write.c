/* Recording a trace as HDF5: extendable datasets, one chunk a step, flushed after each. */
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <string.h>

enum { MAX_DIM = 5 };

/* dim [MAX_DIM]: of one step, the first being 1. Returns the number of dimensions. */
static int step_dims(const struct mt_trace_shape *shape, hsize_t *dim)
{
    int n = 0;
    dim[n++] = 1;
    if (shape->n_micro > 1) {
        dim[n++] = (hsize_t)shape->n_micro;
    }
    dim[n++] = (hsize_t)shape->n_layer;
    if (shape->n_source > 0 || shape->n_micro > 1) {
        dim[n++] = (hsize_t)mt_max_i64(shape->n_source, 1);
    }
    dim[n++] = (hsize_t)shape->n_expert;
    return n;
}

/* An extendable dataset of int64 without steps yet. */
static enum mt_status make_dataset(hid_t file, const char *path, const char *name, int n_dim,
                                   const hsize_t *step_dim, hid_t *dataset)
{
    enum mt_status status = MT_OK;
    hsize_t now[MAX_DIM];
    hsize_t most[MAX_DIM];
    hid_t list = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    memcpy(now, step_dim, sizeof(now));
    memcpy(most, step_dim, sizeof(most));
    now[0] = 0;
    most[0] = H5S_UNLIMITED;
    MT_TRY_TRACE_GOTO(MT_ERR_RESOURCE, path, list = H5Pcreate(H5P_DATASET_CREATE));
    MT_TRY_TRACE_GOTO(MT_ERR_RESOURCE, path, H5Pset_chunk(list, n_dim, step_dim));
    MT_TRY_TRACE_GOTO(MT_ERR_RESOURCE, path, space = H5Screate_simple(n_dim, now, most));
    MT_TRY_TRACE_GOTO(
        MT_ERR_RESOURCE, path,
        *dataset = H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
cleanup:
    (void)H5Sclose(space);
    (void)H5Pclose(list);
    return status;
}

static enum mt_status make_datasets(struct mt_trace_hdf5 *hdf5)
{
    enum { STEPS_A_CHUNK = 1024 };
    hsize_t dim[MAX_DIM] = {0};
    const hsize_t step_chunk[MAX_DIM] = {STEPS_A_CHUNK};
    hdf5->n_dim = step_dims(&hdf5->shape, dim);
    MT_TRY(make_dataset(hdf5->file, hdf5->path, "/counts", hdf5->n_dim, dim, &hdf5->counts));
    return make_dataset(hdf5->file, hdf5->path, "/step", 1, step_chunk, &hdf5->steps);
}

/* Both datasets to n steps. */
static enum mt_status set_extent(struct mt_trace_hdf5 *hdf5, int64_t n)
{
    hsize_t dim[MAX_DIM] = {0};
    (void)step_dims(&hdf5->shape, dim);
    dim[0] = (hsize_t)n;
    MT_TRY_TRACE(MT_ERR_RESOURCE, hdf5->path, H5Dset_extent(hdf5->counts, dim));
    MT_TRY_TRACE(MT_ERR_RESOURCE, hdf5->path, H5Dset_extent(hdf5->steps, dim));
    hdf5->n_step = n;
    return MT_OK;
}

static bool is_extendable(const struct mt_trace_hdf5 *hdf5)
{
    hsize_t dim[MAX_DIM] = {0};
    hsize_t most[MAX_DIM] = {0};
    const hid_t space = H5Dget_space(hdf5->counts);
    (void)H5Sget_simple_extent_dims(space, dim, most);
    (void)H5Sclose(space);
    return hdf5->steps >= 0 && most[0] == H5S_UNLIMITED;
}

static enum mt_status cut_steps(struct mt_trace_hdf5 *hdf5, const struct mt_trace_shape *shape,
                                int64_t last_step)
{
    int64_t *step = NULL;
    enum mt_status status = mt_trace_hdf5_open_datasets(hdf5, 0, &step);
    int64_t n = 0;
    while (status == MT_OK && n < hdf5->n_step && step[n] <= last_step) {
        ++n;
    }
    mt_memory_free(step);
    MT_TRY(status);
    const struct mt_trace_shape *is = &hdf5->shape;
    if (!is_extendable(hdf5) || is->n_micro != shape->n_micro || is->n_layer != shape->n_layer ||
        mt_max_i64(is->n_source, 1) != mt_max_i64(shape->n_source, 1) ||
        is->n_expert != shape->n_expert) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is a trace of %d micro-batches, %d layers, %d ranks and %d experts%s; "
                       "expected %d, %d, %d and %d as this run has; move it away or change "
                       "moe.trace",
                       hdf5->path, is->n_micro, is->n_layer, is->n_source, is->n_expert,
                       is_extendable(hdf5) ? "" : " of fixed size", shape->n_micro, shape->n_layer,
                       shape->n_source, shape->n_expert);
    }
    hdf5->shape = *shape;
    return set_extent(hdf5, n);
}

enum mt_status mt_trace_hdf5_create(struct mt_trace_hdf5 *hdf5, const char *path,
                                    const struct mt_trace_shape *shape, int64_t last_step)
{
    bool is_new = false;
    hdf5->path = path;
    MT_TRY(mt_trace_hdf5_open_file(path, true, &is_new, &hdf5->file));
    if (is_new) {
        hdf5->shape = *shape;
        MT_TRY(make_datasets(hdf5));
    } else {
        MT_TRY(cut_steps(hdf5, shape, last_step));
    }
    MT_TRY_TRACE(MT_ERR_RESOURCE, path, H5Fflush(hdf5->file, H5F_SCOPE_GLOBAL));
    return MT_OK;
}

enum mt_status mt_trace_hdf5_append(struct mt_trace_hdf5 *hdf5, int64_t step, const int64_t *counts)
{
    const int64_t at = hdf5->n_step;
    MT_TRY(set_extent(hdf5, at + 1));
    MT_TRY(mt_trace_hdf5_move(hdf5->path, hdf5->counts, at, NULL, counts));
    MT_TRY(mt_trace_hdf5_move(hdf5->path, hdf5->steps, at, NULL, &step));
    MT_TRY_TRACE(MT_ERR_RESOURCE, hdf5->path, H5Fflush(hdf5->file, H5F_SCOPE_GLOBAL));
    return MT_OK;
}

enum mt_status mt_trace_hdf5_finish(struct mt_trace_hdf5 *hdf5)
{
    enum mt_status status = MT_OK;
    if (hdf5->file >= 0) {
        status = mt_trace_hdf5_status(H5Fflush(hdf5->file, H5F_SCOPE_GLOBAL), MT_ERR_RESOURCE,
                                      hdf5->path, "H5Fflush");
    }
    mt_trace_hdf5_close(hdf5);
    return status;
}
