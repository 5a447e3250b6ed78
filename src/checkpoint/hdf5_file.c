#include "checkpoint/hdf5_file.h"

#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_NAME_BYTES = 256,
    REASON_BYTES = 8192,          /* the library's words, with a path in them */
    ALIGNED_FROM_BYTES = 1 << 16, /* larger datasets start on a page, for the pwrite behind them */
    PAGE_BYTES = 4096,
    IMAGE_STEP_BYTES = 1 << 20,
    LEAST_MS = 500, /* to look at a file, */
    OBJECT_MS = 4   /* and at one of its datasets or pieces, which takes 20 to 50 us */
};

/* H5Ewalk calls this from the innermost function outwards; the first has the reason. */
static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text)
{
    if (n == 0 && error->desc != NULL) {
        (void)snprintf(text, REASON_BYTES, "%s", error->desc);
    }
    return 0;
}

/* Of "file write failed: time = .., filename = .., error message = 'No space left', buf = .." only
 * the system's own words: the rest holds line breaks and what the message names anyway. */
static char *shorten(char *reason)
{
    static const char mark[] = "error message = '";
    char *words = strstr(reason, mark);
    if (words == NULL) {
        return reason;
    }
    words += strlen(mark);
    words[strcspn(words, "'")] = '\0';
    return words;
}

/* The library has no locks: whoever came first, or its child process, is the one that may call. */
static void check_thread(void)
{
    static _Thread_local char mine;
    static _Atomic(char *) first;
    char *known = NULL;
    const bool is_first = atomic_compare_exchange_strong(&first, &known, &mine);
    MT_ASSERT(is_first || known == &mine);
}

enum mt_status mt_hdf5_status(int64_t result, enum mt_status code, const char *path,
                              const char *call, const char *file, int line)
{
    check_thread();
    if (result >= 0) {
        return MT_OK;
    }
    char reason[REASON_BYTES] = "no reason given";
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    const char *name = strstr(call, "H5");
    name = name != NULL ? name : call;
    const char *advice = code == MT_ERR_INPUT
                             ? "a checkpoint written by this program was expected; use another one"
                             : "the complete checkpoints before it are kept; look at the disk";
    return mt_error_set(code, file, line, "%s: %.*s of the HDF5 library failed: %s; %s", path,
                        (int)strcspn(name, "("), name, shorten(reason), advice);
}

void mt_hdf5_init(void)
{
    check_thread();
    /* After a close that failed on a full disk, 1.10.8 crashes in its own work at exit; every file
     * is closed here anyway. Must come before anything else of the library, refuses later calls. */
    (void)H5dont_atexit();
    (void)H5open();
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
}

/* Groups and datasets of one model look alike whenever they are made. */
static enum mt_status plain_list(hid_t list_class, hid_t *list)
{
    MT_TRY_HDF5(MT_ERR_INTERNAL, "a property list", *list = H5Pcreate(list_class));
    MT_TRY_HDF5(MT_ERR_INTERNAL, "a property list", H5Pset_obj_track_times(*list, false));
    return MT_OK;
}

enum mt_status mt_hdf5_dataset_list(hid_t *list)
{
    return plain_list(H5P_DATASET_CREATE, list);
}

enum mt_status mt_hdf5_data_list(hid_t *list)
{
    static const char WHAT[] = "datasets";
    enum mt_status status = MT_OK;
    MT_TRY(mt_hdf5_dataset_list(list));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, WHAT, H5Pset_layout(*list, H5D_CONTIGUOUS));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, WHAT, H5Pset_alloc_time(*list, H5D_ALLOC_TIME_EARLY));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, WHAT, H5Pset_fill_time(*list, H5D_FILL_TIME_NEVER));
    return MT_OK;
cleanup:
    (void)H5Pclose(*list);
    *list = H5I_INVALID_HID;
    return status;
}

static enum mt_status access_list(bool in_memory, hid_t *list)
{
    static const char what[] = "a property list";
    MT_TRY_HDF5(MT_ERR_INTERNAL, what, *list = H5Pcreate(H5P_FILE_ACCESS));
    /* Images need the oldest format: H5Fget_file_image (1.10.8) clears a flag in newer superblocks
     * without mending their checksum, and nobody can open the result. */
    MT_TRY_HDF5(MT_ERR_INTERNAL, what,
                H5Pset_libver_bounds(*list, in_memory ? H5F_LIBVER_EARLIEST : H5F_LIBVER_V18,
                                     H5F_LIBVER_LATEST));
    MT_TRY_HDF5(MT_ERR_INTERNAL, what, H5Pset_alignment(*list, ALIGNED_FROM_BYTES, PAGE_BYTES));
    if (in_memory) {
        MT_TRY_HDF5(MT_ERR_INTERNAL, what, H5Pset_fapl_core(*list, IMAGE_STEP_BYTES, false));
    } else {
        /* Parallel file systems often lack flock; the run's own lock keeps others away. */
        MT_TRY_HDF5(MT_ERR_INTERNAL, what, H5Pset_file_locking(*list, false, true));
    }
    return MT_OK;
}

static enum mt_status create(const char *path, bool is_over, bool in_memory, hid_t *file)
{
    enum mt_status status = MT_OK;
    hid_t access = H5I_INVALID_HID;
    hid_t list = H5I_INVALID_HID;
    *file = H5I_INVALID_HID;
    mt_hdf5_init();
    MT_TRY_GOTO(access_list(in_memory, &access));
    MT_TRY_GOTO(plain_list(H5P_FILE_CREATE, &list));
    MT_TRY_HDF5_GOTO(MT_ERR_RESOURCE, path,
                     *file = H5Fcreate(path, is_over ? H5F_ACC_TRUNC : H5F_ACC_EXCL, list, access));
cleanup:
    (void)H5Pclose(list);
    (void)H5Pclose(access);
    return status;
}

enum mt_status mt_hdf5_create(const char *path, bool in_memory, hid_t *file)
{
    return create(path, false, in_memory, file);
}

enum mt_status mt_hdf5_create_over(const char *path, hid_t *file)
{
    return create(path, true, false, file);
}

enum mt_status mt_hdf5_take_image(hid_t file, const char *path, char **image, int64_t *n_byte)
{
    *image = NULL;
    MT_TRY_HDF5(MT_ERR_INTERNAL, path, H5Fflush(file, H5F_SCOPE_GLOBAL));
    const ssize_t n = H5Fget_file_image(file, NULL, 0);
    MT_TRY_HDF5(MT_ERR_INTERNAL, path, n);
    MT_TRY(MT_ALLOCATE(*image, n, "checkpoint index"));
    if (H5Fget_file_image(file, *image, (size_t)n) != n) {
        mt_memory_free(*image);
        *image = NULL;
        return MT_FAIL(MT_ERR_INTERNAL, "H5Fget_file_image gave another size than it announced");
    }
    *n_byte = n;
    return MT_OK;
}

enum mt_status mt_hdf5_renew_image(hid_t file, const char *path, char *image, int64_t n_byte)
{
    MT_TRY_HDF5(MT_ERR_INTERNAL, path, H5Fflush(file, H5F_SCOPE_GLOBAL));
    if (H5Fget_file_image(file, NULL, 0) != n_byte ||
        H5Fget_file_image(file, image, (size_t)n_byte) != n_byte) {
        return MT_FAIL(MT_ERR_INTERNAL, "%s: its image is no longer of %lld bytes", path,
                       (long long)n_byte);
    }
    return MT_OK;
}

enum mt_status mt_hdf5_element_type(bool is_bfloat16, hid_t *type)
{
    static const char BFLOAT16[] = "bfloat16";
    enum { SIGN_BIT = 15, EXPONENT_BIT = 7, EXPONENT_BITS = 8, MANTISSA_BITS = 7, BYTES = 2 };
    mt_hdf5_init();
    MT_TRY_HDF5(MT_ERR_INTERNAL, BFLOAT16, *type = H5Tcopy(H5T_IEEE_F32LE));
    if (!is_bfloat16) {
        return MT_OK;
    }
    enum mt_status status = MT_OK;
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, BFLOAT16,
                     H5Tset_fields(*type, SIGN_BIT, EXPONENT_BIT, EXPONENT_BITS, 0, MANTISSA_BITS));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, BFLOAT16, H5Tset_precision(*type, SIGN_BIT + 1));
    MT_TRY_HDF5_GOTO(MT_ERR_INTERNAL, BFLOAT16, H5Tset_size(*type, BYTES));
    return MT_OK;
cleanup:
    (void)H5Tclose(*type);
    return status;
}

enum mt_status mt_hdf5_close(hid_t file, const char *path, enum mt_status status)
{
    if (file < 0) {
        return status;
    }
    const enum mt_status closed =
        mt_hdf5_status(H5Fclose(file), MT_ERR_RESOURCE, path, "H5Fclose", __FILE__, __LINE__);
    return status != MT_OK ? status : closed;
}

/* Makes the group unless it is there. */
static enum mt_status make_group(hid_t file, const char *path, const char *name)
{
    const htri_t is_there = H5Lexists(file, name, H5P_DEFAULT);
    MT_TRY_HDF5(MT_ERR_RESOURCE, path, is_there);
    if (is_there) {
        return MT_OK;
    }
    hid_t list = H5I_INVALID_HID;
    hid_t group = H5I_INVALID_HID;
    enum mt_status status = plain_list(H5P_GROUP_CREATE, &list);
    if (status == MT_OK) {
        group = H5Gcreate2(file, name, H5P_DEFAULT, list, H5P_DEFAULT);
        status = mt_hdf5_status(group, MT_ERR_RESOURCE, path, "H5Gcreate2", __FILE__, __LINE__);
    }
    if (group >= 0) {
        (void)H5Gclose(group);
    }
    (void)H5Pclose(list);
    return status;
}

enum mt_status mt_hdf5_make_groups(hid_t file, const char *path, const char *name)
{
    char part[MAX_NAME_BYTES];
    MT_ASSERT(name[0] == '/' && strlen(name) < sizeof(part));
    for (const char *slash = strchr(name + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        const size_t length = (size_t)(slash - name);
        memcpy(part, name, length);
        part[length] = '\0';
        MT_TRY(make_group(file, path, part));
    }
    return MT_OK;
}

enum mt_status mt_hdf5_guard(const char *path, int64_t n_object, mt_guarded_fn look, void *context,
                             void *result, int64_t n_byte)
{
    const struct mt_guard guard = {
        .path = path, .library = "the HDF5 library", .limit_ms = LEAST_MS + n_object * OBJECT_MS};
    return mt_guard_run(&guard, look, context, result, n_byte);
}

enum mt_status mt_hdf5_open(const char *path, hid_t *file)
{
    enum mt_status status = MT_OK;
    hid_t access = H5I_INVALID_HID;
    *file = H5I_INVALID_HID;
    mt_hdf5_init();
    MT_TRY_GOTO(access_list(false, &access));
    MT_TRY_HDF5_GOTO(MT_ERR_INPUT, path, *file = H5Fopen(path, H5F_ACC_RDONLY, access));
cleanup:
    (void)H5Pclose(access);
    return status;
}

/* A soft or external link could lead out of the directory. */
enum mt_status mt_hdf5_check_link(hid_t file, const char *path, const char *name)
{
    H5L_info_t about;
    MT_TRY_HDF5(MT_ERR_INPUT, path, H5Lget_info(file, name, &about, H5P_DEFAULT));
    if (about.type != H5L_TYPE_HARD) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s: %s is a link to somewhere else; a dataset in this file was expected; do "
            "not use this checkpoint",
            path, name);
    }
    return MT_OK;
}

enum mt_status mt_hdf5_open_dataset(hid_t file, const char *path, const char *name, hid_t *dataset)
{
    char part[MAX_NAME_BYTES];
    *dataset = H5I_INVALID_HID;
    MT_ASSERT(name[0] == '/' && strlen(name) < sizeof(part));
    enum mt_status status = MT_OK;
    for (size_t i = 1; i <= strlen(name) && status == MT_OK; ++i) {
        if (name[i] == '/' || name[i] == '\0') {
            memcpy(part, name, i);
            part[i] = '\0';
            status = mt_hdf5_check_link(file, path, part);
        }
    }
    MT_TRY(status);
    MT_TRY_HDF5(MT_ERR_INPUT, path, *dataset = H5Dopen2(file, name, H5P_DEFAULT));
    return MT_OK;
}

/* Type and shape of the dataset agree; false also when they cannot be read. */
static bool has_shape(hid_t dataset, hid_t type, int n_dim, const int64_t *dim)
{
    hsize_t got[H5S_MAX_RANK] = {0};
    const hid_t got_type = H5Dget_type(dataset);
    const hid_t space = H5Dget_space(dataset);
    bool same = got_type >= 0 && space >= 0 && H5Tequal(got_type, type) > 0 &&
                H5Sget_simple_extent_ndims(space) == n_dim &&
                H5Sget_simple_extent_dims(space, got, NULL) == n_dim;
    for (int d = 0; d < n_dim && same; ++d) {
        same = got[d] == (hsize_t)dim[d];
    }
    (void)H5Sclose(space);
    (void)H5Tclose(got_type);
    return same;
}

enum mt_status mt_hdf5_check_shape(hid_t dataset, const char *path, const char *name, hid_t type,
                                   int n_dim, const int64_t *dim)
{
    MT_ASSERT(n_dim >= 1 && n_dim <= MT_HDF5_MAX_DIM);
    if (!has_shape(dataset, type, n_dim, dim)) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "%s: %s has another type or shape than the manifest says; %d dimensions, the "
            "first %lld, were expected; use another checkpoint",
            path, name, n_dim, (long long)dim[0]);
    }
    return MT_OK;
}

bool mt_hdf5_is_contiguous(hid_t dataset)
{
    const hid_t list = H5Dget_create_plist(dataset);
    const bool is_plain = list >= 0 && H5Pget_layout(list) == H5D_CONTIGUOUS &&
                          H5Pget_nfilters(list) == 0 && H5Pget_external_count(list) == 0;
    (void)H5Pclose(list);
    return is_plain;
}

enum mt_status mt_hdf5_data_offset(hid_t dataset, const char *path, const char *name,
                                   int64_t *offset)
{
    const haddr_t address = mt_hdf5_is_contiguous(dataset) ? H5Dget_offset(dataset) : HADDR_UNDEF;
    if (address == HADDR_UNDEF || address > (haddr_t)INT64_MAX) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s is not stored in one piece; contiguous data without filters or "
                       "other files were expected; use another checkpoint",
                       path, name);
    }
    *offset = (int64_t)address;
    return MT_OK;
}
