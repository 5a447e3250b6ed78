/* HDF5 files that this program would not have written: links out, filters, other layouts and types.
 * Each is refused before its bytes are used. */
#include "base/memory.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/index.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

enum kind { PLAIN, CHUNKED, FILTERED, COMPACT, EXTERNAL, N_KIND };

static void make_dataset(hid_t file, const char *name, enum kind kind, hid_t type)
{
    const hsize_t dim[2] = {6, 4};
    const float data[24] = {1.0F};
    const hid_t space = H5Screate_simple(2, dim, NULL);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (kind == CHUNKED || kind == FILTERED) {
        assert_true(H5Pset_chunk(list, 2, dim) >= 0);
    }
    if (kind == FILTERED) {
        assert_true(H5Pset_shuffle(list) >= 0);
    }
    if (kind == COMPACT) {
        assert_true(H5Pset_layout(list, H5D_COMPACT) >= 0);
    }
    if (kind == EXTERNAL) {
        assert_true(H5Pset_external(list, "/etc/passwd", 0, H5F_UNLIMITED) >= 0);
    }
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    if (kind != EXTERNAL) {
        assert_true(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    }
    (void)H5Dclose(dataset);
    (void)H5Pclose(list);
    (void)H5Sclose(space);
}

static int make_file(void **state)
{
    MT_UNUSED(state);
    mt_hdf5_init();
    (void)snprintf(path, sizeof(path), "/tmp/mt-hdf5-XXXXXX");
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    (void)H5Gclose(H5Gcreate2(file, "/real", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    make_dataset(file, "/real/plain", PLAIN, H5T_IEEE_F32LE);
    make_dataset(file, "/real/chunked", CHUNKED, H5T_IEEE_F32LE);
    make_dataset(file, "/real/filtered", FILTERED, H5T_IEEE_F32LE);
    make_dataset(file, "/real/compact", COMPACT, H5T_IEEE_F32LE);
    make_dataset(file, "/real/external", EXTERNAL, H5T_IEEE_F32LE);
    make_dataset(file, "/real/double", PLAIN, H5T_IEEE_F64LE);
    make_dataset(file, "/real/big_endian", PLAIN, H5T_IEEE_F32BE);
    assert_true(H5Lcreate_soft("/real", file, "/soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/real/plain", file, "/real/alias", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(
        H5Lcreate_external("/etc/passwd", "/x", file, "/outside", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Fclose(file) >= 0);
    return 0;
}

static int remove_file(void **state)
{
    MT_UNUSED(state);
    return unlink(path);
}

/* Opens, checks shape [6,4] and type, asks the place: what shards go through. */
static enum mt_status use(const char *name, int64_t *offset)
{
    const int64_t dim[2] = {6, 4};
    hid_t file = H5I_INVALID_HID;
    hid_t dataset = H5I_INVALID_HID;
    MT_TRY(mt_hdf5_open(path, &file));
    enum mt_status status = mt_hdf5_open_dataset(file, path, name, &dataset);
    if (status == MT_OK) {
        status = mt_hdf5_check_shape(dataset, path, name, H5T_IEEE_F32LE, 2, dim);
    }
    if (status == MT_OK) {
        status = mt_hdf5_data_offset(dataset, path, name, offset);
    }
    (void)H5Dclose(dataset);
    (void)H5Fclose(file);
    return status;
}

static void a_contiguous_dataset_is_where_it_is_said_to_be(void **state)
{
    MT_UNUSED(state);
    int64_t offset = 0;
    float first = 0.0F;
    MT_TEST_OK(use("/real/plain", &offset));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fread(&first, sizeof(first), 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_true(first == 1.0F);
}

static void other_layouts_are_refused(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"/real/chunked", "/real/filtered", "/real/compact",
                                        "/real/external"};
    int64_t offset = 0;
    for (int i = 0; i < 4; ++i) {
        MT_TEST_FAILS(use(names[i], &offset), MT_ERR_INPUT, "is not stored in one piece");
    }
}

static void other_types_are_refused(void **state)
{
    MT_UNUSED(state);
    int64_t offset = 0;
    MT_TEST_FAILS(use("/real/double", &offset), MT_ERR_INPUT, "/real/double has another type");
    MT_TEST_FAILS(use("/real/big_endian", &offset), MT_ERR_INPUT, "has another type");
}

static void links_are_not_followed(void **state)
{
    MT_UNUSED(state);
    int64_t offset = 0;
    MT_TEST_FAILS(use("/soft/plain", &offset), MT_ERR_INPUT, "/soft is a link");
    MT_TEST_FAILS(use("/real/alias", &offset), MT_ERR_INPUT, "/real/alias is a link");
    MT_TEST_FAILS(use("/outside/x", &offset), MT_ERR_INPUT, "/outside is a link");
}

/* Small files that claim a terabyte: an array not written takes no space, and one may have many
 * names. */
static void state_arrays_hold_no_more_than_the_file(void **state)
{
    MT_UNUSED(state);
    const hsize_t dim = 40;
    const int64_t values[40] = {7};
    struct mt_run_state run;
    const struct mt_manifest silent = {.n_array = -1}; /* of arrays, as older ones are */
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t space = H5Screate_simple(1, &dim, NULL);
    hid_t group = H5Gcreate2(file, "/state", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t written =
        H5Dcreate2(group, "a", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(written, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    (void)H5Dclose(written);
    (void)H5Gclose(group);
    assert_true(H5Fclose(file) >= 0);
    MT_TEST_OK(mt_index_take_arrays(path, &silent, &run));
    assert_int_equal(run.n_array, 1);
    assert_int_equal(run.array[0].values[0], 7);
    mt_index_free_arrays(&run);

    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    group = H5Gopen2(file, "/state", H5P_DEFAULT);
    for (int i = 0; i < 400; ++i) { /* of 320 bytes each: more than the links to it take */
        char name[16];
        (void)snprintf(name, sizeof(name), "b%d", i);
        assert_true(H5Lcreate_hard(group, "a", group, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    }
    (void)H5Gclose(group);
    (void)H5Sclose(space);
    assert_true(H5Fclose(file) >= 0);
    MT_TEST_FAILS(mt_index_take_arrays(path, &silent, &run), MT_ERR_INPUT,
                  "written into this file");
    mt_index_free_arrays(&run);
}

/* ---- state arrays that are none ---- */

enum hostile_array {
    SOFT,
    OUTSIDE,
    PATTERN,
    HUGE_CHUNKS,
    COMPRESSED,
    OTHER_FILE,
    BIG,
    FLAT,
    N_HOSTILE
};

/* A pipe: who opens it waits for ever. */
static void other_path(char *other)
{
    (void)snprintf(other, 80, "%s.pipe", path);
}

/* Virtual, over as many files as there are: %b counts them. */
static void make_pattern(hid_t group)
{
    char other[80];
    const hsize_t dim = 4;
    const hsize_t most = H5S_UNLIMITED;
    const hsize_t start = 0;
    const hsize_t count = H5S_UNLIMITED;
    const hid_t space = H5Screate_simple(1, &dim, &most);
    const hid_t source = H5Screate_simple(1, &dim, NULL);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    other_path(other);
    assert_true(H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, &dim, &count, &dim) >= 0);
    assert_true(H5Pset_virtual(list, space, other, "x%b", source) >= 0);
    const hid_t dataset =
        H5Dcreate2(group, "a", H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    (void)H5Dclose(dataset);
    (void)H5Pclose(list);
    (void)H5Sclose(source);
    (void)H5Sclose(space);
}

/* Of 2^40 numbers, none of them written, but for the flat one of 2^40 x 4. */
static void make_hostile_dataset(hid_t group, enum hostile_array kind)
{
    const hsize_t dim[2] = {(hsize_t)1 << 40, 4};
    const hsize_t chunk = 1 << 28;
    const hid_t space = H5Screate_simple(kind == FLAT ? 2 : 1, dim, NULL);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (kind == HUGE_CHUNKS || kind == COMPRESSED) {
        assert_true(H5Pset_chunk(list, 1, &chunk) >= 0);
    }
    if (kind == COMPRESSED) {
        assert_true(H5Pset_deflate(list, 9) >= 0);
    }
    if (kind == OTHER_FILE) {
        assert_true(H5Pset_external(list, "/dev/zero", 0, H5F_UNLIMITED) >= 0);
    }
    const hid_t dataset =
        H5Dcreate2(group, "a", H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    (void)H5Dclose(dataset);
    (void)H5Pclose(list);
    (void)H5Sclose(space);
}

static void make_hostile_array(hid_t group, enum hostile_array kind)
{
    char other[80];
    other_path(other);
    if (kind == SOFT) {
        assert_true(H5Lcreate_soft("/b", group, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    } else if (kind == OUTSIDE) {
        assert_true(H5Lcreate_external(other, "/b", group, "a", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    } else if (kind == PATTERN) {
        make_pattern(group);
    } else {
        make_hostile_dataset(group, kind);
    }
}

static void expect_refused(const char *why)
{
    struct mt_run_state run;
    int64_t value = 1;
    const struct mt_state_array wanted = {"a", &value, 1};
    const struct mt_run_state some = {.n_array = 1, .array = &wanted};
    const struct mt_manifest silent = {.n_array = -1};
    MT_TEST_FAILS(mt_index_take_arrays(path, &silent, &run), MT_ERR_INPUT, why);
    mt_index_free_arrays(&run);
    MT_TEST_FAILS(mt_index_read_arrays(path, &silent, &some), MT_ERR_INPUT, why);
}

static void state_arrays_lie_in_the_file_as_they_are(void **state)
{
    MT_UNUSED(state);
    static const char *const why[N_HOSTILE] = {
        "/state/a is a link", "/state/a is a link", "arrays in /state",  "arrays in /state",
        "arrays in /state",   "arrays in /state",   "not stored in one", "has another type"};
    char other[80];
    other_path(other);
    assert_int_equal(mkfifo(other, 0600), 0);
    for (int kind = 0; kind < N_HOSTILE; ++kind) {
        const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        const hid_t group = H5Gcreate2(file, "/state", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        make_hostile_array(group, (enum hostile_array)kind);
        (void)H5Gclose(group);
        assert_true(H5Fclose(file) >= 0);
        expect_refused(why[kind]);
    }
    assert_int_equal(unlink(other), 0);
}

static void state_itself_is_no_link(void **state)
{
    MT_UNUSED(state);
    char other[80];
    other_path(other);
    assert_int_equal(mkfifo(other, 0600), 0);
    for (int is_outside = 0; is_outside < 2; ++is_outside) {
        const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        (void)H5Gclose(H5Gcreate2(file, "/b", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        assert_true((is_outside
                         ? H5Lcreate_external(other, "/b", file, "/state", H5P_DEFAULT, H5P_DEFAULT)
                         : H5Lcreate_soft("/b", file, "/state", H5P_DEFAULT, H5P_DEFAULT)) >= 0);
        assert_true(H5Fclose(file) >= 0);
        expect_refused("/state is a link");
    }
    assert_int_equal(unlink(other), 0);
}

static void what_is_missing_is_said_in_the_librarys_words(void **state)
{
    MT_UNUSED(state);
    int64_t offset = 0;
    hid_t file = H5I_INVALID_HID;
    MT_TEST_FAILS(use("/real/nothing", &offset), MT_ERR_INPUT, "H5Lget_info of the HDF5 library");
    MT_TEST_FAILS(use("/real", &offset), MT_ERR_INPUT, "H5Dopen2 of the HDF5 library");
    MT_TEST_FAILS(mt_hdf5_open("/etc/passwd", &file), MT_ERR_INPUT,
                  "/etc/passwd: H5Fopen of the HDF5 library failed: file signature not found");
}

static void an_image_is_a_file_that_opens(void **state)
{
    MT_UNUSED(state);
    hid_t file = H5I_INVALID_HID;
    char *image = NULL;
    int64_t n_byte = 0;
    char copy[80];
    MT_TEST_OK(mt_hdf5_create("/nowhere/at/all.h5", true, &file));
    MT_TEST_OK(mt_hdf5_make_groups(file, "image", "/a/b/c/d"));
    MT_TEST_OK(mt_hdf5_make_groups(file, "image", "/a/b/x/d"));
    MT_TEST_OK(mt_hdf5_take_image(file, "image", &image, &n_byte));
    MT_TEST_OK(mt_hdf5_close(file, "image", MT_OK));
    assert_false(access("/nowhere/at/all.h5", F_OK) == 0);
    (void)snprintf(copy, sizeof(copy), "%s.image", path);
    FILE *out = fopen(copy, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(image, 1, (size_t)n_byte, out), n_byte);
    assert_int_equal(fclose(out), 0);
    MT_TEST_OK(mt_hdf5_open(copy, &file));
    assert_true(H5Lexists(file, "/a/b/c", H5P_DEFAULT) > 0);
    assert_true(H5Lexists(file, "/a/b/x", H5P_DEFAULT) > 0);
    assert_int_equal(H5Lexists(file, "/a/b/c/d", H5P_DEFAULT), 0);
    (void)H5Fclose(file);
    assert_int_equal(unlink(copy), 0);
    mt_memory_free(image);
}

static void an_existing_file_is_not_overwritten(void **state)
{
    MT_UNUSED(state);
    hid_t file = H5I_INVALID_HID;
    MT_TEST_FAILS(mt_hdf5_create(path, false, &file), MT_ERR_RESOURCE, "H5Fcreate");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_contiguous_dataset_is_where_it_is_said_to_be),
        cmocka_unit_test(other_layouts_are_refused),
        cmocka_unit_test(other_types_are_refused),
        cmocka_unit_test(links_are_not_followed),
        cmocka_unit_test(what_is_missing_is_said_in_the_librarys_words),
        cmocka_unit_test(an_image_is_a_file_that_opens),
        cmocka_unit_test(an_existing_file_is_not_overwritten),
        cmocka_unit_test(state_arrays_hold_no_more_than_the_file),
        cmocka_unit_test(state_arrays_lie_in_the_file_as_they_are),
        cmocka_unit_test(state_itself_is_no_link),
    };
    const int failed = cmocka_run_group_tests(tests, make_file, remove_file);
    return failed != 0 || mt_memory_n_live() != 0;
}
