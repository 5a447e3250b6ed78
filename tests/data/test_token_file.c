/* Layouts of token files, written here byte by byte, whole and damaged. */
#include "base/memory.h"
#include "data/token_file.h"
#include "support/folder.h"
#include "support/mutate.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 128, MAX_FILE = 1 << 16, N_TOKEN = 40 };

/* A file in the making. */
static struct {
    unsigned char data[MAX_FILE];
    size_t n;
} image;

static void put(int64_t value, int bytes)
{
    assert_true(image.n + (size_t)bytes <= sizeof(image.data));
    memcpy(image.data + image.n, &value, (size_t)bytes);
    image.n += (size_t)bytes;
}

static void patch(size_t offset, int64_t value, int bytes)
{
    memcpy(image.data + offset, &value, (size_t)bytes);
}

static void write_image(const char *name)
{
    FILE *file = fopen(mt_test_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(image.data, 1, image.n, file), image.n);
    assert_int_equal(fclose(file), 0);
}

static int32_t id_at(int64_t index)
{
    return (int32_t)(index * 7 % 101);
}

static void put_ids(int bytes)
{
    for (int64_t i = 0; i < N_TOKEN; ++i) {
        put(id_at(i), bytes);
    }
}

/* 256 words, the first four given. */
static void put_header(int64_t magic, int64_t version, int64_t n_token, int64_t word3)
{
    image.n = 0;
    put(magic, 4);
    put(version, 4);
    put(n_token, 4);
    put(word3, 4);
    for (int i = 4; i < 256; ++i) {
        put(0, 4);
    }
}

static enum mt_status open_named(const char *name, enum mt_data_format format,
                                 enum mt_token_type type, struct mt_token_file *file)
{
    return mt_token_file_open(mt_test_path(name), format, type, file);
}

static void expect_ids(struct mt_token_file *file)
{
    int32_t id[N_TOKEN];
    assert_int_equal(file->n_token, N_TOKEN);
    MT_TEST_OK(mt_token_file_read(file, 101, 0, N_TOKEN, id));
    for (int64_t i = 0; i < N_TOKEN; ++i) {
        assert_int_equal(id[i], id_at(i));
    }
    MT_TEST_OK(mt_token_file_read(file, 101, 11, 3, id));
    assert_int_equal(id[2], id_at(13));
    mt_token_file_close(file); /* reads open it now */
    MT_TEST_OK(mt_token_file_read(file, 101, N_TOKEN - 1, 1, id));
    assert_int_equal(id[0], id_at(N_TOKEN - 1));
    MT_TEST_FAILS(mt_token_file_read(file, 50, 0, N_TOKEN, id), MT_ERR_INPUT, "is no token id");
}

static void headers_tell_type_and_number(void **state)
{
    MT_UNUSED(state);
    static const struct {
        int64_t magic, version, word3;
        int bytes;
        const char *layout;
    } cases[] = {
        {20240520, 1, 0, 2, "llm.c (GPT-2)"},
        {20240801, 7, 0, 4, "llm.c (Llama 3)"},
        {278895051, 1, 2, 2, "modded-nanogpt"},
        {278895051, 1, 4, 4, "modded-nanogpt"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        struct mt_token_file file;
        put_header(cases[i].magic, cases[i].version, N_TOKEN, cases[i].word3);
        put_ids(cases[i].bytes);
        write_image("header");
        MT_TEST_OK(open_named("header", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file));
        assert_string_equal(file.layout, cases[i].layout);
        assert_int_equal(mt_token_type_bytes(file.type), cases[i].bytes);
        expect_ids(&file);
    }
}

static void bare_integers_are_of_the_declared_type(void **state)
{
    MT_UNUSED(state);
    static const enum mt_token_type types[] = {MT_TOKEN_U8,  MT_TOKEN_I8,  MT_TOKEN_U16,
                                               MT_TOKEN_I16, MT_TOKEN_U32, MT_TOKEN_I32,
                                               MT_TOKEN_U64, MT_TOKEN_I64};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); ++i) {
        struct mt_token_file file;
        image.n = 0;
        put_ids(mt_token_type_bytes(types[i]));
        write_image("bare");
        MT_TEST_OK(open_named("bare", MT_DATA_TOKENS, types[i], &file));
        expect_ids(&file);
    }
}

static void values_that_are_no_ids_are_named_with_their_offset(void **state)
{
    MT_UNUSED(state);
    struct mt_token_file file;
    int32_t id[2];
    image.n = 0;
    put(5, 8);
    put(-3, 8);
    write_image("negative");
    MT_TEST_OK(open_named("negative", MT_DATA_TOKENS, MT_TOKEN_I64, &file));
    MT_TEST_FAILS(mt_token_file_read(&file, 100, 0, 2, id), MT_ERR_INPUT, "offset 8: value -3");
    mt_token_file_close(&file);
    put_header(20240520, 1, 2, 0);
    put(9, 2);
    put(60000, 2);
    write_image("large");
    MT_TEST_OK(open_named("large", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file));
    MT_TEST_FAILS(mt_token_file_read(&file, 50257, 0, 2, id), MT_ERR_INPUT,
                  "offset 1026: value 60000");
    MT_TEST_OK(mt_token_file_read(&file, 60001, 0, 2, id));
    mt_token_file_close(&file);
}

static void damaged_headers_are_told_apart(void **state)
{
    MT_UNUSED(state);
    struct mt_token_file file;
    put_header(20240520, 1, N_TOKEN, 0);
    put_ids(2);
    image.n -= 3;
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "it is truncated");
    put_header(20240520, 3, N_TOKEN, 0);
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "version 3; 1 was expected");
    put_header(278895051, 1, N_TOKEN, 3);
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "a token of 3 bytes");
    put_header(__builtin_bswap32(20240520), 0, 0, 0);
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "its bytes reversed");
    image.n = 0;
    put_ids(2);
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "set data.token_type");
    image.n--;
    write_image("damaged");
    MT_TEST_FAILS(open_named("damaged", MT_DATA_TOKENS, MT_TOKEN_U16, &file), MT_ERR_INPUT,
                  "no multiple of the 2 bytes");
}

enum { N_SEQUENCE = 3, N_MARK = 3, IDX_LENGTHS = 34, IDX_OFFSETS = IDX_LENGTHS + 4 * N_SEQUENCE };

/* Sequences of 10, 25 and 5 tokens of u16 in documents {0, 1} and {2}. */
static void put_index(void)
{
    static const int64_t length[N_SEQUENCE] = {10, 25, 5};
    int64_t offset = 0;
    image.n = 0;
    memcpy(image.data, "MMIDIDX\0\0", 9);
    image.n = 9;
    put(1, 8);
    put(8, 1);
    put(N_SEQUENCE, 8);
    put(N_MARK, 8);
    for (int i = 0; i < N_SEQUENCE; ++i) {
        put(length[i], 4);
    }
    for (int i = 0; i < N_SEQUENCE; ++i) {
        put(offset, 8);
        offset += 2 * length[i];
    }
    put(0, 8);
    put(2, 8);
    put(N_SEQUENCE, 8);
}

static void write_bin(int bytes)
{
    image.n = 0;
    put_ids(bytes);
    write_image("pair.bin");
}

static enum mt_status open_pair(struct mt_token_file *file)
{
    write_image("pair.idx");
    return open_named("pair.bin", MT_DATA_MEGATRON, MT_TOKEN_AUTO, file);
}

static void a_megatron_pair_is_read(void **state)
{
    MT_UNUSED(state);
    struct mt_token_file file;
    for (int with_modes = 0; with_modes < 2; ++with_modes) {
        write_bin(2);
        put_index();
        for (int i = 0; i < N_SEQUENCE * with_modes; ++i) {
            put(0, 1);
        }
        MT_TEST_OK(open_pair(&file));
        assert_string_equal(file.layout, "Megatron");
        assert_int_equal(file.n_sequence, N_SEQUENCE);
        assert_int_equal(file.n_document, 2);
        assert_string_equal(mt_token_type_name(file.type), "u16");
        expect_ids(&file);
    }
}

static void an_index_tells_where_documents_begin(void **state)
{
    MT_UNUSED(state);
    static const struct {
        int64_t first, n, n_start;
    } cases[] = {{0, 40, 1}, {0, 35, 0}, {0, 36, 1}, {34, 2, 1},
                 {35, 5, 0}, {36, 4, 0}, {39, 1, 0}};
    struct mt_token_file file;
    int64_t start[N_TOKEN];
    int64_t n_start = 0;
    write_bin(2);
    put_index();
    MT_TEST_OK(open_pair(&file));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        MT_TEST_OK(mt_token_file_documents(&file, cases[i].first, cases[i].n, start, &n_start));
        assert_int_equal(n_start, cases[i].n_start);
        assert_true(n_start == 0 || start[0] == 35);
    }
    put_index();
    patch(IDX_OFFSETS + 32, 77, 8); /* the mark in the middle, which opening does not read */
    write_image("pair.idx");
    MT_TEST_FAILS(mt_token_file_documents(&file, 0, N_TOKEN, start, &n_start), MT_ERR_INPUT,
                  "document mark 1 is sequence 77");
    mt_token_file_close(&file);
    image.n = 0;
    put_ids(2);
    write_image("bare");
    MT_TEST_OK(open_named("bare", MT_DATA_TOKENS, MT_TOKEN_U16, &file));
    MT_TEST_FAILS(mt_token_file_documents(&file, 0, 1, start, &n_start), MT_ERR_INPUT,
                  "no index of documents");
    mt_token_file_close(&file);
}

/* Each damage of the index has its message. */
static void damaged_indices_are_told_apart(void **state)
{
    MT_UNUSED(state);
    static const struct {
        size_t offset;
        int64_t value;
        int bytes;
        const char *expected;
    } cases[] = {
        {0, 'X', 1, "no Megatron index"},
        {9, 2, 8, "version 2; 1 was expected"},
        {9, (int64_t)1 << 56, 8, "with its bytes reversed"},
        {17, 6, 1, "type 6; integers were expected"},
        {17, 255, 1, "type 255; integers were expected"},
        {18, 4, 8, "do not hold the 4 sequences"},
        {18, -1, 8, "do not hold the -1 sequences"},
        {18, INT64_MAX, 8, "sequences and 3 document"},
        {26, INT64_MAX / 8, 8, "document marks that it names"},
        {IDX_OFFSETS - 4, 6, 4, "do not belong together"},
        {IDX_OFFSETS - 4, -5, 4, "do not belong together"},
        {IDX_OFFSETS, 2, 8, "do not belong together"},
        {IDX_OFFSETS + 16, INT64_MIN, 8, "do not belong together"},
        {IDX_OFFSETS + 24, 1, 8, "its documents span the sequences 1 to 3"},
        {IDX_OFFSETS + 40, 4, 8, "its documents span the sequences 0 to 4"},
    };
    struct mt_token_file file;
    write_bin(2);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        put_index();
        patch(cases[i].offset, cases[i].value, cases[i].bytes);
        MT_TEST_FAILS(open_pair(&file), MT_ERR_INPUT, cases[i].expected);
    }
    put_index();
    const size_t whole = image.n;
    for (size_t n = 1; n < whole; ++n) {
        image.n = n;
        MT_TEST_FAILS(open_pair(&file), MT_ERR_INPUT, "pair.idx");
    }
    write_bin(4);
    put_index();
    MT_TEST_FAILS(open_pair(&file), MT_ERR_INPUT, "do not belong together");
    assert_int_equal(unlink(mt_test_path("pair.idx")), 0);
    MT_TEST_FAILS(open_named("pair.bin", MT_DATA_MEGATRON, MT_TOKEN_AUTO, &file), MT_ERR_INPUT,
                  "pair.idx: No such file");
}

/* What opening accepted: ids, fingerprint and the whole index, each with an answer. */
static void use(struct mt_token_file *file)
{
    int32_t id[N_TOKEN];
    uint64_t fingerprint = 0;
    int64_t start[N_TOKEN];
    int64_t n_start = 0;
    struct mt_token_summary summary;
    assert_true(file->n_token <= N_TOKEN);
    (void)mt_token_file_read(file, 101, 0, file->n_token, id);
    (void)mt_token_file_fingerprint(file, &fingerprint);
    (void)mt_token_file_summarize(file, &summary);
    (void)mt_token_file_documents(file, 0, file->n_token, start, &n_start);
    assert_in_range(n_start, 0, N_TOKEN - 1);
    mt_token_file_close(file);
}

/* Any bytes: a file that can be read, or one message and code 3; no memory to speak of (run under
 * ASan as well). */
static void random_damage_is_survived(void **state)
{
    MT_UNUSED(state);
    enum { N_ROUND = 1200, SEED = 20261122 };
    const int64_t before = mt_memory_peak_resident_bytes();
    int n_opened = 0;
    write_bin(2);
    for (uint64_t round = 0; round < N_ROUND; ++round) {
        struct mt_token_file file;
        put_index();
        mt_mutate(MT_MUTATE_BINARY, SEED, round, image.data, &image.n, MAX_FILE);
        mt_error_clear();
        const enum mt_status status = open_pair(&file);
        if (status == MT_OK) {
            use(&file);
            ++n_opened;
        } else {
            assert_int_equal(status, MT_ERR_INPUT);
            assert_non_null(strstr(mt_error_last()->text, "pair."));
        }
    }
    mt_error_clear();
    assert_true(n_opened > N_ROUND / 50 && n_opened < N_ROUND);
    assert_true(mt_memory_peak_resident_bytes() - before < MT_TEST_FUZZ_BYTES);
}

static void a_fingerprint_follows_content_not_path(void **state)
{
    MT_UNUSED(state);
    uint64_t print[3];
    static const char *const names[] = {"one", "copy", "other"};
    for (int i = 0; i < 3; ++i) {
        struct mt_token_file file;
        image.n = 0;
        put_ids(2);
        image.data[i == 2 ? 33 : 0] ^= i == 2;
        write_image(names[i]);
        MT_TEST_OK(open_named(names[i], MT_DATA_TOKENS, MT_TOKEN_U16, &file));
        MT_TEST_OK(mt_token_file_fingerprint(&file, &print[i]));
        mt_token_file_close(&file);
    }
    assert_true(print[0] == print[1]);
    assert_true(print[0] != print[2]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_tell_type_and_number),
        cmocka_unit_test(bare_integers_are_of_the_declared_type),
        cmocka_unit_test(values_that_are_no_ids_are_named_with_their_offset),
        cmocka_unit_test(damaged_headers_are_told_apart),
        cmocka_unit_test(a_megatron_pair_is_read),
        cmocka_unit_test(an_index_tells_where_documents_begin),
        cmocka_unit_test(damaged_indices_are_told_apart),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(a_fingerprint_follows_content_not_path),
    };
    const int failed = cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
    return failed != 0 || mt_memory_n_live() != 0;
}
