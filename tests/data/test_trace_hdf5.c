/* Traces in HDF5 from strangers: what is no whole dataset of counts in its own file is refused, and
 * no damage makes the library crash. */
#include "base/memory.h"
#include "data/trace.h"
#include "support/folder.h"
#include "support/test.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 256 };

static const char *write_text(const char *name, const char *text, size_t n)
{
    const char *path = mt_test_path(name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* /counts of a type and shape, all values alike; /step when n_step >= 0. */
static const char *write_hdf5(const char *name, hid_t type, int n_dim, const hsize_t *dim,
                              const int64_t *step, hsize_t n_step)
{
    const char *path = mt_test_path(name);
    (void)unlink(path);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(n_dim, dim, NULL);
    hid_t set = H5Dcreate2(file, "counts", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    (void)H5Dclose(set);
    (void)H5Sclose(space);
    if (step != NULL) {
        space = H5Screate_simple(1, &n_step, NULL);
        set = H5Dcreate2(file, "step", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, step) >= 0);
        (void)H5Dclose(set);
        (void)H5Sclose(space);
    }
    (void)H5Fclose(file);
    return path;
}

static void put_value(const char *path, hid_t type, const void *value)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, "counts", H5P_DEFAULT);
    assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) >= 0);
    (void)H5Dclose(set);
    (void)H5Fclose(file);
}

static void hostile_hdf5_files_are_refused(void **state)
{
    (void)state;
    struct mt_trace *trace = NULL;
    static const hsize_t plain[] = {2, 1, 3};
    static const hsize_t empty[] = {0, 1, 3};
    static const hsize_t six[] = {1, 1, 1, 1, 1, 1};
    static const hsize_t vast[] = {1, 1, 65536, 65536};
    static const int64_t twice[] = {4, 4};
    static const int64_t fine[] = {4, 6};
    MT_TEST_FAILS(mt_trace_open(write_text("a.h5", "no HDF5", 7), &trace), MT_ERR_INPUT, "/counts");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_IEEE_F64LE, 3, plain, NULL, 0), &trace),
                  MT_ERR_INPUT, "another type");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I32LE, 2, plain, NULL, 0), &trace),
                  MT_ERR_INPUT, "has 2 dimensions of integers");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I32LE, 3, empty, NULL, 0), &trace),
                  MT_ERR_INPUT, "of which one is 0");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I32LE, 6, six, NULL, 0), &trace),
                  MT_ERR_INPUT, "has 6 dimensions");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I8LE, 4, vast, NULL, 0), &trace),
                  MT_ERR_INPUT, "more than 2^28");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I32LE, 3, plain, twice, 2), &trace),
                  MT_ERR_INPUT, "/step[1] is 4");
    MT_TEST_FAILS(mt_trace_open(write_hdf5("a.h5", H5T_STD_I32LE, 3, plain, fine, 1), &trace),
                  MT_ERR_INPUT, "one number for each of the 2 steps");
    const int negative[] = {1, 2, 3, 4, -5, 6};
    const char *path = write_hdf5("a.h5", H5T_STD_I32BE, 3, plain, fine, 2);
    put_value(path, H5T_NATIVE_INT, negative);
    MT_TEST_FAILS(mt_trace_open(path, &trace), MT_ERR_INPUT, "/counts[1], value 1");
    const uint64_t large[] = {1, 2, 3, 4, UINT64_MAX, 6};
    path = write_hdf5("a.h5", H5T_STD_U64LE, 3, plain, fine, 2);
    put_value(path, H5T_NATIVE_UINT64, large);
    MT_TEST_FAILS(mt_trace_open(path, &trace), MT_ERR_INPUT, "/counts[1], value 1");
    static const hsize_t two_micro[] = {1, 2, 1, 1, 1};
    const int64_t much[] = {INT64_MAX, 1};
    path = write_hdf5("a.h5", H5T_STD_I64LE, 5, two_micro, NULL, 0);
    put_value(path, H5T_NATIVE_INT64, much);
    MT_TEST_FAILS(mt_trace_open(path, &trace), MT_ERR_INPUT, "/counts[0], value 1");
    const uint8_t small[] = {1, 2, 3, 4, 255, 6};
    int64_t counts[3] = {0};
    path = write_hdf5("a.h5", H5T_STD_U8LE, 3, plain, fine, 2);
    put_value(path, H5T_NATIVE_UINT8, small);
    MT_TEST_OK(mt_trace_open(path, &trace));
    MT_TEST_OK(mt_trace_read(trace, 1, counts));
    assert_int_equal(counts[1], 255);
    assert_int_equal(mt_trace_step(trace, 1), 6);
    mt_trace_close(trace);
    assert_int_equal(mt_memory_n_live(), 0);
}

/* /counts [2,1,3] as `list` says, or as a link to it in a file beside. */
static const char *write_elsewhere(const char *name, hid_t list, bool is_link)
{
    static const hsize_t dim[] = {2, 1, 3};
    static const int64_t counts[] = {1, 2, 3, 4, 5, 6};
    const char *path = mt_test_path(name);
    (void)unlink(path);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (is_link) {
        assert_true(
            H5Lcreate_external("a.h5", "/counts", file, "counts", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    } else {
        const hid_t space = H5Screate_simple(3, dim, NULL);
        const hid_t set =
            H5Dcreate2(file, "counts", H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
        assert_true(H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, counts) >= 0);
        (void)H5Dclose(set);
        (void)H5Sclose(space);
    }
    (void)H5Fclose(file);
    (void)H5Pclose(list);
    return path;
}

static void counts_in_other_files_are_refused(void **state)
{
    (void)state;
    struct mt_trace *trace = NULL;
    static const hsize_t plain[] = {2, 1, 3};
    (void)write_hdf5("a.h5", H5T_STD_I64LE, 3, plain, NULL, 0);
    MT_TEST_FAILS(
        mt_trace_open(write_elsewhere("b.h5", H5Pcreate(H5P_DATASET_CREATE), true), &trace),
        MT_ERR_INPUT, "/counts is a link");
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_external(list, write_text("b.raw", "", 0), 0, 48) >= 0);
    MT_TEST_FAILS(mt_trace_open(write_elsewhere("b.h5", list, false), &trace), MT_ERR_INPUT,
                  "in other files");
    const hid_t space = H5Screate_simple(3, plain, NULL);
    list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_virtual(list, space, mt_test_path("a.h5"), "/counts", space) >= 0);
    (void)H5Sclose(space);
    MT_TEST_FAILS(mt_trace_open(write_elsewhere("b.h5", list, false), &trace), MT_ERR_INPUT,
                  "in other files");
    assert_int_equal(mt_memory_n_live(), 0);
}

/* Every byte of the header, one at a time: the library by itself reads beyond its buffers when the
 * size of a chunk is wrong. */
static void damage_each_byte(const char *path, char value)
{
    enum { FIRST = 0x300, LAST = 0x600 }; /* description of the dataset, list of its chunks */
    static char bytes[1 << 14];
    FILE *file = fopen(path, "rbe");
    const size_t n = fread(bytes, 1, sizeof(bytes), file);
    (void)fclose(file);
    assert_in_range(n, LAST, sizeof(bytes) - 1);
    for (size_t i = FIRST; i < LAST; ++i) {
        const char kept = bytes[i];
        struct mt_trace *trace = NULL;
        bytes[i] = value;
        const enum mt_status status = mt_trace_open(write_text("c.h5", bytes, n), &trace);
        assert_true(status == MT_OK || status == MT_ERR_INPUT);
        mt_trace_close(trace);
        mt_error_clear();
        bytes[i] = kept;
    }
}

static void damaged_hdf5_files_are_refused_or_read(void **state)
{
    (void)state;
    static const hsize_t chunk[] = {2, 1, 3};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    damage_each_byte(write_elsewhere("c.h5", list, false), (char)0xff);
    list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 3, chunk) >= 0 && H5Pset_deflate(list, 1) >= 0);
    damage_each_byte(write_elsewhere("c.h5", list, false), 1);
    assert_int_equal(mt_memory_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_hdf5_files_are_refused),
        cmocka_unit_test(counts_in_other_files_are_refused),
        cmocka_unit_test(damaged_hdf5_files_are_refused_or_read),
    };
    return cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
}
