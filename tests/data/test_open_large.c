/* Token files of 10 GB, sparse so that they take no room: opening reads no more of them than of
 * small ones. Memory is held to a bound here; times are printed, `ctest -R test_open_large -V`. */
#include "base/clock.h"
#include "base/memory.h"
#include "data/corpus.h"
#include "support/folder.h"
#include "support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const int64_t FILE_BYTES = 10000000000;
static const int64_t N_SEQUENCE = 10000000; /* documents of 500 tokens */
static const int64_t MEMORY_BYTES = 20000000;

static void put_at(int descriptor, int64_t offset, const void *data, size_t n)
{
    assert_int_equal(pwrite(descriptor, data, n, offset), (ssize_t)n);
}

static int make_sparse(const char *name, int64_t n_byte)
{
    const int descriptor = open(mt_test_path(name), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(ftruncate(descriptor, n_byte), 0);
    return descriptor;
}

/* An index that is right where opening looks: its head and the ends of its arrays. */
static void make_index(void)
{
    const int64_t one = 1;
    const int64_t n_mark = N_SEQUENCE + 1;
    const int64_t lengths = 34;
    const int64_t offsets = lengths + 4 * N_SEQUENCE;
    const int64_t marks = offsets + 8 * N_SEQUENCE;
    const int32_t length = (int32_t)(FILE_BYTES / 2 / N_SEQUENCE);
    const int64_t last = FILE_BYTES - 2 * length;
    const int descriptor = make_sparse("pair.idx", marks + 8 * n_mark);
    put_at(descriptor, 0, "MMIDIDX\0", 9);
    put_at(descriptor, 9, &one, 8);
    put_at(descriptor, 17, "\x08", 1);
    put_at(descriptor, 18, &N_SEQUENCE, 8);
    put_at(descriptor, 26, &n_mark, 8);
    put_at(descriptor, offsets - 4, &length, 4);
    put_at(descriptor, marks - 8, &last, 8);
    put_at(descriptor, marks + 8 * N_SEQUENCE, &N_SEQUENCE, 8);
    assert_int_equal(close(descriptor), 0);
}

static int64_t processor_ns(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static void expect_cheap(const char *name, enum mt_data_format format)
{
    static struct mt_path_list paths = {.n = 1};
    const struct mt_corpus_options options = {
        .format = format, .token_type = MT_TOKEN_U16, .vocab_size = 50257, .length = 2048};
    struct mt_corpus *corpus = NULL;
    (void)snprintf(paths.path[0], MT_PATH_BYTES, "%s", mt_test_path(name));
    const int64_t wall_ns = mt_clock_ns();
    const int64_t cpu_ns = processor_ns();
    MT_TEST_OK(mt_corpus_open(&paths, &options, &corpus));
    const double wall_ms = (double)(mt_clock_ns() - wall_ns) * 1e-6;
    const double cpu_ms = (double)(processor_ns() - cpu_ns) * 1e-6;
    const int64_t resident = mt_memory_peak_resident_bytes();
    print_message("%s, %lld bytes: opened in %.1f ms (%.1f ms of processor), %.1f MB resident\n",
                  name, (long long)FILE_BYTES, wall_ms, cpu_ms, (double)resident * 1e-6);
    assert_true(mt_corpus_n_window(corpus) == (FILE_BYTES / 2 - 1) / options.length);
#ifndef __SANITIZE_ADDRESS__
    assert_true(resident < MEMORY_BYTES);
#endif
    mt_corpus_close(corpus);
}

static void ten_gigabytes_open_in_little_memory(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(close(make_sparse("bare.u16", FILE_BYTES)), 0);
    assert_int_equal(close(make_sparse("pair.bin", FILE_BYTES)), 0);
    make_index();
    expect_cheap("bare.u16", MT_DATA_TOKENS);
    expect_cheap("pair.bin", MT_DATA_MEGATRON);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_gigabytes_open_in_little_memory),
    };
    const int failed = cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
    return failed != 0 || mt_memory_n_live() != 0;
}
