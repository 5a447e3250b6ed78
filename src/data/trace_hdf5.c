/* Traces as HDF5: /counts [steps, layers, E], [steps, layers, R, E] or, with micro-batches, [steps,
 * micro, layers, R, E] of integers, and optionally /step [steps]. The serial library; one thread of
 * a process calls these. */
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <string.h>
#include <sys/stat.h>

enum {
    MIN_DIM = 3,
    MAX_DIM = 5,
    MAX_STEPS = 1 << 24,
    MAX_STEP_VALUES = 1 << 28,
    MAX_CHUNK_VALUES = 1 << 28,
    REASON_BYTES = 512,
    CACHE_SLOTS = 521,
    CACHE_BYTES =
        64 << 20 /* a file whose chunks hold many steps is not unpacked for each of them */
};

/* H5Ewalk calls this from the innermost function outwards; the first has the reason. */
static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text)
{
    if (n == 0 && error->desc != NULL) {
        (void)snprintf(text, REASON_BYTES, "%.*s", (int)strcspn(error->desc, "\n"), error->desc);
    }
    return 0;
}

enum mt_status mt_trace_hdf5_status(int64_t result, enum mt_status code, const char *path,
                                    const char *call)
{
    char reason[REASON_BYTES] = "no reason given";
    if (result >= 0) {
        return MT_OK;
    }
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    const char *name = strstr(call, "H5");
    return MT_FAIL(code, "%s: %.*s of the HDF5 library failed: %s; %s", path,
                   (int)strcspn(name, "("), name, reason,
                   code == MT_ERR_INPUT
                       ? "a whole HDF5 file with the dataset /counts was expected; "
                         "see docs/traces.md"
                       : "expected a writable place; look at the disk");
}

/* As checkpoints do: no work at exit (it crashes after a failed write), no words, no plugins. */
static void init_library(void)
{
    (void)H5dont_atexit();
    (void)H5open();
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
}

static enum mt_status access_list(hid_t *list)
{
    static const char what[] = "a property list";
    MT_TRY_TRACE(MT_ERR_INTERNAL, what, *list = H5Pcreate(H5P_FILE_ACCESS));
    MT_TRY_TRACE(MT_ERR_INTERNAL, what,
                 H5Pset_libver_bounds(*list, H5F_LIBVER_V18, H5F_LIBVER_LATEST));
    MT_TRY_TRACE(MT_ERR_INTERNAL, what, H5Pset_cache(*list, 0, CACHE_SLOTS, CACHE_BYTES, 1.0));
    /* Parallel file systems often lack flock. */
    MT_TRY_TRACE(MT_ERR_INTERNAL, what, H5Pset_file_locking(*list, false, true));
    return MT_OK;
}

enum mt_status mt_trace_hdf5_open_file(const char *path, bool write, bool *is_new, hid_t *file)
{
    enum mt_status status = MT_OK;
    hid_t access = H5I_INVALID_HID;
    struct stat about;
    init_library();
    const bool is_there = stat(path, &about) == 0;
    if (is_there && !S_ISREG(about.st_mode)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is not a regular file; a trace in a file of its own was expected; check "
                       "the path",
                       path);
    }
    MT_TRY_GOTO(access_list(&access));
    if (is_new != NULL && !is_there) {
        *is_new = true;
        MT_TRY_TRACE_GOTO(MT_ERR_RESOURCE, path,
                          *file = H5Fcreate(path, H5F_ACC_EXCL, H5P_DEFAULT, access));
    } else {
        MT_TRY_TRACE_GOTO(MT_ERR_INPUT, path,
                          *file = H5Fopen(path, write ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access));
    }
cleanup:
    (void)H5Pclose(access);
    return status;
}

void mt_trace_hdf5_close(struct mt_trace_hdf5 *hdf5)
{
    if (hdf5->steps >= 0) {
        (void)H5Dclose(hdf5->steps);
    }
    if (hdf5->counts >= 0) {
        (void)H5Dclose(hdf5->counts);
    }
    if (hdf5->file >= 0) {
        (void)H5Fclose(hdf5->file);
    }
    hdf5->file = hdf5->counts = hdf5->steps = H5I_INVALID_HID;
}

/* Chunks of another size, at other places or too many make the library read beyond its buffers; of
 * missing ones it makes zeros. */
static bool has_whole_chunks(hid_t dataset, hid_t list, hid_t space)
{
    hsize_t dim[MAX_DIM], most[MAX_DIM], chunk[MAX_DIM];
    hsize_t n_chunk = 0;
    int64_t expected = 1;
    int64_t n_value = 1; /* of a chunk */
    const int n_dim = H5Pget_chunk(list, MAX_DIM, chunk);
    bool is_whole = n_dim >= 1 && n_dim <= MAX_DIM &&
                    H5Sget_simple_extent_dims(space, dim, most) == n_dim &&
                    H5Dget_num_chunks(dataset, space, &n_chunk) >= 0;
    for (int d = 0; d < n_dim && is_whole; ++d) {
        is_whole =
            chunk[d] >= 1 && chunk[d] <= most[d] && chunk[d] <= MAX_CHUNK_VALUES &&
            mt_size_multiply(n_value, (int64_t)chunk[d], &n_value) &&
            mt_size_multiply(expected, (int64_t)((dim[d] + chunk[d] - 1) / chunk[d]), &expected);
    }
    return is_whole && n_value <= MAX_CHUNK_VALUES && n_chunk == (hsize_t)expected;
}

/* In one piece, of the size that shape and type say. */
static bool has_whole_block(hid_t dataset, hid_t space)
{
    const hid_t type = H5Dget_type(dataset);
    const hssize_t n_value = H5Sget_simple_extent_npoints(space);
    int64_t expected = 0;
    const bool is_whole =
        n_value >= 0 && mt_size_multiply((int64_t)n_value, (int64_t)H5Tget_size(type), &expected) &&
        H5Dget_storage_size(dataset) == (hsize_t)expected;
    (void)H5Tclose(type);
    return is_whole;
}

/* Before values are read: they lie in this very file, for a virtual dataset or external storage
 * would read any other, and all of them do. */
static enum mt_status check_storage(hid_t dataset, const char *path, const char *name)
{
    const hid_t list = H5Dget_create_plist(dataset);
    const hid_t space = H5Dget_space(dataset);
    const H5D_layout_t layout = H5Pget_layout(list);
    const bool is_whole = H5Pget_external_count(list) == 0 &&
                          ((layout == H5D_CHUNKED && has_whole_chunks(dataset, list, space)) ||
                           (layout == H5D_CONTIGUOUS && has_whole_block(dataset, space)));
    (void)H5Sclose(space);
    (void)H5Pclose(list);
    if (!is_whole) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s is damaged, not written whole, in other files, or in chunks above "
                       "2^28 counts; expected a whole dataset in this file; copy the counts into "
                       "it",
                       path, name);
    }
    return MT_OK;
}

static enum mt_status open_dataset(hid_t file, const char *path, const char *name, hid_t *dataset)
{
    H5L_info_t about;
    MT_TRY_TRACE(MT_ERR_INPUT, path, H5Lget_info(file, name, &about, H5P_DEFAULT));
    if (about.type != H5L_TYPE_HARD) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s is a link to somewhere else; a dataset in this file was expected; "
                       "copy the counts into it",
                       path, name);
    }
    MT_TRY_TRACE(MT_ERR_INPUT, path, *dataset = H5Dopen2(file, name, H5P_DEFAULT));
    return MT_OK;
}

/* At least `least` dimensions. dim [MAX_DIM] */
static enum mt_status get_layout(hid_t dataset, const char *path, const char *name, int least,
                                 int *n_dim, hsize_t *dim)
{
    const hid_t type = H5Dget_type(dataset);
    const hid_t space = H5Dget_space(dataset);
    const bool is_integer =
        type >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) <= sizeof(int64_t);
    *n_dim = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    const bool has_dims = *n_dim >= least && *n_dim <= MAX_DIM &&
                          H5Sget_simple_extent_dims(space, dim, NULL) == *n_dim;
    (void)H5Sclose(space);
    (void)H5Tclose(type);
    if (!is_integer || !has_dims) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s has %d dimensions of %s; expected integers, in counts [steps, "
                       "layers, experts] or [steps, layers, ranks, experts], in step [steps]",
                       path, name, *n_dim, is_integer ? "integers" : "another type");
    }
    return MT_OK;
}

static enum mt_status learn_shape(struct mt_trace_hdf5 *hdf5, int64_t least_steps)
{
    static const int64_t most[MAX_DIM] = {MAX_STEPS, MT_TRACE_MAX_MICRO, MT_TRACE_MAX_LAYER,
                                          MT_TRACE_MAX_SOURCE, MT_TRACE_MAX_EXPERT};
    hsize_t got[MAX_DIM] = {0};
    MT_TRY(get_layout(hdf5->counts, hdf5->path, "/counts", MIN_DIM, &hdf5->n_dim, got));
    const int n = hdf5->n_dim;
    /* steps, micro-batches, layers, ranks, experts; 1: the file has not that dimension */
    const hsize_t dim[MAX_DIM] = {got[0], n == MAX_DIM ? got[1] : 1, n == MAX_DIM ? got[2] : got[1],
                                  n == MIN_DIM ? 1 : got[n - 2], got[n - 1]};
    for (int d = 0; d < MAX_DIM; ++d) {
        const hsize_t least = d == 0 ? (hsize_t)least_steps : 1;
        if (dim[d] < least || dim[d] > (hsize_t)most[d]) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s: /counts has %d dimensions, of which one is %llu; expected [steps, "
                           "layers, experts], [steps, layers, ranks, experts] or [steps, "
                           "micro-batches, layers, ranks, experts], none of them empty, at most "
                           "2^24 steps, 2^12 layers and 2^16 of the others",
                           hdf5->path, n, (unsigned long long)dim[d]);
        }
    }
    hdf5->n_step = (int64_t)dim[0];
    hdf5->shape = (struct mt_trace_shape){.n_micro = (int)dim[1],
                                          .n_layer = (int)dim[2],
                                          .n_source = n == MIN_DIM ? 0 : (int)dim[3],
                                          .n_expert = (int)dim[4]};
    if (mt_trace_shape_n_value(&hdf5->shape) > MAX_STEP_VALUES) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: a step of /counts has more than 2^28 counts; expected less; leave out "
                       "the ranks",
                       hdf5->path);
    }
    return MT_OK;
}

/* /step, when it is there; else 1, 2, .. */
static enum mt_status read_steps(struct mt_trace_hdf5 *hdf5, int64_t **step)
{
    int n_dim = 0;
    hsize_t dim[MAX_DIM] = {0};
    const htri_t is_there = H5Lexists(hdf5->file, "/step", H5P_DEFAULT);
    MT_TRY(MT_ALLOCATE(*step, hdf5->n_step, "steps of a trace"));
    MT_TRY_TRACE(MT_ERR_INPUT, hdf5->path, is_there);
    for (int64_t i = 0; i < hdf5->n_step; ++i) {
        (*step)[i] = i + 1;
    }
    if (!is_there) {
        return MT_OK;
    }
    MT_TRY(open_dataset(hdf5->file, hdf5->path, "/step", &hdf5->steps));
    MT_TRY(get_layout(hdf5->steps, hdf5->path, "/step", 1, &n_dim, dim));
    if (n_dim != 1 || dim[0] != (hsize_t)hdf5->n_step) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: /step has %d dimensions, the first %llu; expected one number for each "
                       "of the %lld steps of /counts",
                       hdf5->path, n_dim, (unsigned long long)dim[0], (long long)hdf5->n_step);
    }
    MT_TRY(check_storage(hdf5->steps, hdf5->path, "/step"));
    MT_TRY_TRACE(MT_ERR_INPUT, hdf5->path,
                 H5Dread(hdf5->steps, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, *step));
    for (int64_t i = 0; i < hdf5->n_step; ++i) {
        if ((*step)[i] < (i == 0 ? 0 : (*step)[i - 1] + 1)) {
            return MT_FAIL(
                MT_ERR_INPUT,
                "%s: /step[%lld] is %lld; expected whole numbers >= 0 in ascending order",
                hdf5->path, (long long)i, (long long)(*step)[i]);
        }
    }
    return MT_OK;
}

enum mt_status mt_trace_hdf5_move(const char *path, hid_t dataset, int64_t index, int64_t *to,
                                  const int64_t *from)
{
    enum mt_status status = MT_OK;
    const enum mt_status code = from != NULL ? MT_ERR_RESOURCE : MT_ERR_INPUT;
    hsize_t start[MAX_DIM] = {(hsize_t)index};
    hsize_t count[MAX_DIM] = {0};
    hid_t memory = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    const hid_t space = H5Dget_space(dataset);
    MT_TRY_TRACE_GOTO(code, path, H5Sget_simple_extent_dims(space, count, NULL));
    const int n_dim = H5Sget_simple_extent_ndims(space);
    count[0] = 1;
    MT_TRY_TRACE_GOTO(code, path,
                      H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL));
    MT_TRY_TRACE_GOTO(code, path, memory = H5Screate_simple(n_dim, count, NULL));
    MT_TRY_TRACE_GOTO(code, path, type = H5Dget_type(dataset));
    if (from != NULL) {
        MT_TRY_TRACE_GOTO(code, path,
                          H5Dwrite(dataset, H5T_NATIVE_INT64, memory, space, H5P_DEFAULT, from));
    } else {
        /* Unsigned values from 2^63 on then look negative, and are refused as such. */
        const hid_t as = H5Tget_sign(type) == H5T_SGN_NONE ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
        MT_TRY_TRACE_GOTO(code, path, H5Dread(dataset, as, memory, space, H5P_DEFAULT, to));
    }
cleanup:
    (void)H5Tclose(type);
    (void)H5Sclose(memory);
    (void)H5Sclose(space);
    return status;
}

/* counts [micro, layer, n_value]: those of one layer, whose sum over the step counts. */
static enum mt_status check_layer(const struct mt_trace_hdf5 *hdf5, int64_t index,
                                  const int64_t *counts, int layer, int64_t n_value)
{
    int64_t total = 0;
    for (int64_t micro = 0; micro < hdf5->shape.n_micro; ++micro) {
        const int64_t first = (micro * hdf5->shape.n_layer + layer) * n_value;
        for (int64_t i = first; i < first + n_value; ++i) {
            if (counts[i] < 0 || !mt_size_add(total, counts[i], &total)) {
                return MT_FAIL(
                    MT_ERR_INPUT,
                    "%s: /counts[%lld], value %lld of the step: negative, or more than 2^63 - "
                    "1 rows in a layer; expected counts >= 0",
                    hdf5->path, (long long)index, (long long)i);
            }
        }
    }
    return MT_OK;
}

static enum mt_status check_values(const struct mt_trace_hdf5 *hdf5, int64_t index,
                                   const int64_t *counts)
{
    const int64_t n_value = mt_trace_shape_n_value(&hdf5->shape);
    const int64_t n_layer_value = n_value / hdf5->shape.n_micro / hdf5->shape.n_layer;
    for (int layer = 0; layer < hdf5->shape.n_layer; ++layer) {
        MT_TRY(check_layer(hdf5, index, counts, layer, n_layer_value));
    }
    return MT_OK;
}

enum mt_status mt_trace_hdf5_read(const struct mt_trace_hdf5 *hdf5, int64_t index, int64_t *counts)
{
    MT_TRY(mt_trace_hdf5_move(hdf5->path, hdf5->counts, index, counts, NULL));
    return check_values(hdf5, index, counts);
}

static enum mt_status check_all(const struct mt_trace_hdf5 *hdf5)
{
    int64_t *counts = NULL;
    MT_TRY(MT_ALLOCATE(counts, mt_trace_shape_n_value(&hdf5->shape), "step of a trace"));
    enum mt_status status = MT_OK;
    for (int64_t i = 0; i < hdf5->n_step && status == MT_OK; ++i) {
        status = mt_trace_hdf5_read(hdf5, i, counts);
    }
    mt_memory_free(counts);
    return status;
}

enum mt_status mt_trace_hdf5_open_datasets(struct mt_trace_hdf5 *hdf5, int64_t least_steps,
                                           int64_t **step)
{
    MT_TRY(open_dataset(hdf5->file, hdf5->path, "/counts", &hdf5->counts));
    MT_TRY(learn_shape(hdf5, least_steps));
    MT_TRY(read_steps(hdf5, step));
    return check_storage(hdf5->counts, hdf5->path, "/counts");
}

enum mt_status mt_trace_hdf5_open(struct mt_trace_hdf5 *hdf5, const char *path, int64_t **step)
{
    hdf5->path = path;
    MT_TRY(mt_trace_hdf5_open_file(path, false, NULL, &hdf5->file));
    MT_TRY(mt_trace_hdf5_open_datasets(hdf5, 1, step));
    return check_all(hdf5);
}
