/* Corpora of small files in a folder of their own, whose bytes are a function of their position. */
#include "base/memory.h"
#include "data/corpus.h"
#include "support/folder.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { T = 8, MAX_LENGTH = 5000 };

static unsigned char byte_at(int64_t offset)
{
    return (unsigned char)((offset * 37 + offset / 251) % 250);
}

/* n bytes of byte_at from `salt` on. */
static void write_file(const char *name, int64_t n, int64_t salt)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", mt_test_folder(), name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int64_t i = 0; i < n; ++i) {
        assert_int_not_equal(fputc(byte_at(salt + i), file), EOF);
    }
    assert_int_equal(fclose(file), 0);
}

static struct mt_path_list *list_of(int n, const char *const *names)
{
    struct mt_path_list *list = NULL;
    MT_TEST_OK(MT_ALLOCATE(list, 1, "paths"));
    list->n = n;
    for (int i = 0; i < n; ++i) {
        (void)snprintf(list->path[i], sizeof(list->path[i]), "%s/%s", mt_test_folder(), names[i]);
    }
    return list;
}

static enum mt_status open_names(int n, const char *const *names, int64_t vocab_size,
                                 int64_t length, struct mt_corpus **corpus)
{
    const struct mt_corpus_options options = {
        .format = MT_DATA_BYTES, .vocab_size = vocab_size, .length = length};
    struct mt_path_list *list = list_of(n, names);
    const enum mt_status status = mt_corpus_open(list, &options, corpus);
    mt_memory_free(list);
    return status;
}

static enum mt_status open_one(const char *name, int64_t vocab_size, struct mt_corpus **corpus)
{
    return open_names(1, &name, vocab_size, T, corpus);
}

/* The window holds byte_at(salt ..) in order, the target one further. */
static void expect_window(const struct mt_corpus *corpus, int64_t window, int64_t length,
                          int64_t salt)
{
    static int32_t token[MAX_LENGTH];
    static int32_t target[MAX_LENGTH];
    MT_TEST_OK(mt_corpus_read(corpus, window, token, target));
    for (int64_t t = 0; t < length; ++t) {
        assert_int_equal(token[t], byte_at(salt + t));
        assert_int_equal(target[t], byte_at(salt + t + 1));
    }
}

static void windows_follow_each_other_and_share_one_token(void **state)
{
    MT_UNUSED(state);
    struct mt_corpus *corpus = NULL;
    write_file("exact", 3 * T + 1, 0);
    MT_TEST_OK(open_one("exact", 256, &corpus));
    assert_int_equal(mt_corpus_n_window(corpus), 3);
    for (int64_t w = 0; w < 3; ++w) {
        expect_window(corpus, w, T, w * T);
    }
    mt_corpus_close(corpus);
    write_file("one-less", (int64_t)3 * T, 0);
    MT_TEST_OK(open_one("one-less", 256, &corpus));
    assert_int_equal(mt_corpus_n_window(corpus), 2);
    mt_corpus_close(corpus);
}

static void windows_do_not_cross_files(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"a", "short", "b", "c"};
    struct mt_corpus *corpus = NULL;
    write_file("a", 2 * T + 5, 1000);
    write_file("short", T, 2000); /* no window of its own */
    write_file("b", T + 1, 3000);
    write_file("c", 4 * T + 1, 4000);
    MT_TEST_OK(open_names(4, names, 256, T, &corpus));
    assert_int_equal(mt_corpus_n_window(corpus), 2 + 0 + 1 + 4);
    expect_window(corpus, 0, T, 1000);
    expect_window(corpus, 1, T, 1008);
    expect_window(corpus, 2, T, 3000);
    for (int64_t w = 0; w < 4; ++w) {
        expect_window(corpus, 3 + w, T, 4000 + w * T);
    }
    mt_corpus_close(corpus);
}

static void windows_longer_than_one_read_are_whole(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"long"};
    static const int64_t lengths[] = {4095, 4096, 4097, 4999};
    write_file("long", 2 * 4999 + 1, 7);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); ++i) {
        struct mt_corpus *corpus = NULL;
        MT_TEST_OK(open_names(1, names, 256, lengths[i], &corpus));
        assert_int_equal(mt_corpus_n_window(corpus), 2);
        expect_window(corpus, 0, lengths[i], 7);
        expect_window(corpus, 1, lengths[i], 7 + lengths[i]);
        mt_corpus_close(corpus);
    }
}

static void a_folder_is_its_files_sorted_by_name(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"domains"};
    char path[128];
    struct mt_corpus *corpus = NULL;
    (void)snprintf(path, sizeof(path), "%s/domains", mt_test_folder());
    assert_int_equal(mkdir(path, 0700), 0);
    MT_TEST_FAILS(open_names(1, names, 256, T, &corpus), MT_ERR_INPUT, "holds no file");
    (void)snprintf(path, sizeof(path), "%s/domains/subfolder", mt_test_folder());
    assert_int_equal(mkdir(path, 0700), 0);
    write_file("domains/zebra", T + 1, 300);
    write_file("domains/ant", T + 1, 100);
    write_file("domains/middle", T + 1, 200);
    write_file("domains/.hidden", T + 1, 400);
    MT_TEST_OK(open_names(1, names, 256, T, &corpus));
    assert_int_equal(mt_corpus_n_window(corpus), 3);
    expect_window(corpus, 0, T, 100);
    expect_window(corpus, 1, T, 200);
    expect_window(corpus, 2, T, 300);
    mt_corpus_close(corpus);
}

static void more_files_than_stay_open_are_read(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"many"};
    char path[128];
    struct mt_corpus *corpus = NULL;
    (void)snprintf(path, sizeof(path), "%s/many", mt_test_folder());
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 300; ++i) {
        char name[32];
        (void)snprintf(name, sizeof(name), "many/%03d", i);
        write_file(name, T + 1, (int64_t)10 * i);
    }
    MT_TEST_OK(open_names(1, names, 256, T, &corpus));
    assert_int_equal(mt_corpus_n_window(corpus), 300);
    expect_window(corpus, 0, T, 0);
    expect_window(corpus, 256, T, 2560);
    expect_window(corpus, 299, T, 2990);
    mt_corpus_close(corpus);
}

static void ids_beyond_the_vocabulary_are_refused_with_their_place(void **state)
{
    MT_UNUSED(state);
    char path[128];
    struct mt_corpus *corpus = NULL;
    (void)snprintf(path, sizeof(path), "%s/ascii", mt_test_folder());
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 70000; ++i) { /* the scan goes in pieces of 65536 bytes */
        assert_int_not_equal(fputc(i == 66001 ? 0xC3 : 'x', file), EOF);
    }
    assert_int_equal(fclose(file), 0);
    MT_TEST_FAILS(open_one("ascii", 128, &corpus), MT_ERR_INPUT,
                  "ascii, offset 66001: byte value 195");
    assert_null(corpus);
    MT_TEST_FAILS(open_one("ascii", 195, &corpus), MT_ERR_INPUT, "vocab_size = 195");
    MT_TEST_OK(open_one("ascii", 196, &corpus));
    mt_corpus_close(corpus);
}

static void a_byte_that_turns_bad_later_is_found_when_read(void **state)
{
    MT_UNUSED(state);
    char path[128];
    int32_t token[T];
    int32_t target[T];
    struct mt_corpus *corpus = NULL;
    write_file("turns", 3 * T + 1, 0);
    MT_TEST_OK(open_one("turns", 250, &corpus));
    (void)snprintf(path, sizeof(path), "%s/turns", mt_test_folder());
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, T + 3, SEEK_SET), 0);
    assert_int_not_equal(fputc(255, file), EOF);
    assert_int_equal(fclose(file), 0);
    MT_TEST_OK(mt_corpus_read(corpus, 0, token, target));
    MT_TEST_FAILS(mt_corpus_read(corpus, 1, token, target), MT_ERR_INPUT, "offset 11");
    mt_corpus_close(corpus);
}

static void a_file_shortened_meanwhile_is_an_error_not_a_crash(void **state)
{
    MT_UNUSED(state);
    char path[128];
    int32_t token[T];
    int32_t target[T];
    struct mt_corpus *corpus = NULL;
    write_file("shrinks", 3 * T + 1, 0);
    MT_TEST_OK(open_one("shrinks", 256, &corpus));
    (void)snprintf(path, sizeof(path), "%s/shrinks", mt_test_folder());
    assert_int_equal(truncate(path, T + 3), 0);
    expect_window(corpus, 0, T, 0);
    MT_TEST_FAILS(mt_corpus_read(corpus, 1, token, target), MT_ERR_INPUT,
                  "shrinks ends at offset 11");
    mt_corpus_close(corpus);
}

static void bad_files_are_named(void **state)
{
    MT_UNUSED(state);
    struct mt_corpus *corpus = NULL;
    static const char *const pair[] = {"fine", "empty"};
    write_file("fine", (int64_t)5 * T, 0);
    write_file("empty", 0, 0);
    write_file("tiny", T, 0);
    MT_TEST_FAILS(open_one("missing", 256, &corpus), MT_ERR_INPUT, "missing: No such file");
    MT_TEST_FAILS(open_one("empty", 256, &corpus), MT_ERR_INPUT, "empty is empty");
    MT_TEST_FAILS(open_names(2, pair, 256, T, &corpus), MT_ERR_INPUT, "empty is empty");
    MT_TEST_FAILS(open_one("tiny", 256, &corpus), MT_ERR_INPUT, "max_seq_len + 1 = 9");
    MT_TEST_FAILS(open_names(0, pair, 256, T, &corpus), MT_ERR_CONFIG, "no data files");
    assert_null(corpus);
}

static void random_ids_are_a_function_of_seed_and_window(void **state)
{
    MT_UNUSED(state);
    enum { V = 50000 };
    int32_t token[2][T];
    int32_t target[2][T];
    struct mt_path_list *list = list_of(0, NULL);
    struct mt_corpus_options options = {
        .format = MT_DATA_RANDOM, .vocab_size = V, .length = T, .seed = 5};
    struct mt_corpus *corpus = NULL;
    struct mt_corpus *other = NULL;
    MT_TEST_OK(mt_corpus_open(list, &options, &corpus));
    options.seed = 6;
    MT_TEST_OK(mt_corpus_open(list, &options, &other));
    assert_true(mt_corpus_n_window(corpus) == INT64_MAX);
    MT_TEST_OK(mt_corpus_read(corpus, INT64_MAX - 1, token[0], target[0]));
    MT_TEST_OK(mt_corpus_read(corpus, INT64_MAX - 1, token[1], target[1]));
    assert_memory_equal(token[0], token[1], sizeof(token[0]));
    for (int t = 0; t < T; ++t) {
        assert_in_range(token[0][t], 0, V - 1);
        assert_in_range(target[0][t], 0, V - 1);
        assert_true(t + 1 == T || target[0][t] == token[0][t + 1]);
    }
    MT_TEST_OK(mt_corpus_read(corpus, 0, token[1], target[1]));
    assert_memory_not_equal(token[0], token[1], sizeof(token[0]));
    MT_TEST_OK(mt_corpus_read(other, 0, token[0], target[0]));
    assert_memory_not_equal(token[0], token[1], sizeof(token[0]));
    mt_corpus_close(corpus);
    mt_corpus_close(other);
    mt_memory_free(list);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_follow_each_other_and_share_one_token),
        cmocka_unit_test(windows_do_not_cross_files),
        cmocka_unit_test(windows_longer_than_one_read_are_whole),
        cmocka_unit_test(a_folder_is_its_files_sorted_by_name),
        cmocka_unit_test(more_files_than_stay_open_are_read),
        cmocka_unit_test(ids_beyond_the_vocabulary_are_refused_with_their_place),
        cmocka_unit_test(a_byte_that_turns_bad_later_is_found_when_read),
        cmocka_unit_test(a_file_shortened_meanwhile_is_an_error_not_a_crash),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(random_ids_are_a_function_of_seed_and_window),
    };
    const int failed = cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
    return failed != 0 || mt_memory_n_live() != 0;
}
