/* Safetensors from elsewhere: what is damaged is refused with code 3 by a message of its own; no
 * mutation crashes, and memory stays within a multiple of what a file has. */
#include "base/memory.h"
#include "interchange/safetensors.h"
#include "mutate.h"
#include "support/folder.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

enum { ROOM = 4096, SEED = 20261123 };

static const char HEADER[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"b.c\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"
    "\"d\":{\"dtype\":\"F16\",\"shape\":[1,1,4],\"data_offsets\":[32,40]}}";
enum { DATA_BYTES = 40 };

static const char INDEX[] = "{\"metadata\":{\"total_size\":80},\"weight_map\":{"
                            "\"a\":\"x.safetensors\",\"b.c\":\"x.safetensors\","
                            "\"d\":\"x.safetensors\",\"e\":\"y.safetensors\"}}";
static const char OTHER[] = "{\"e\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";

/* A file of length, header and so many zeros; length < 0: that of the header. */
static void write_file(const char *name, const char *header, size_t n_header, int64_t length,
                       size_t n_data)
{
    static const char zeros[64];
    FILE *file = fopen(mt_test_path(name), "wb");
    assert_non_null(file);
    const uint64_t n = length < 0 ? n_header : (uint64_t)length;
    for (int i = 0; i < 8; ++i) {
        (void)fputc((int)(n >> (8 * i) & 0xffU), file);
    }
    assert_int_equal(fwrite(header, 1, n_header, file), n_header);
    assert_int_equal(fwrite(zeros, 1, n_data, file), n_data);
    (void)fclose(file);
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(mt_test_path(name), "wb");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

static void remove_files(void)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "x.safetensors", "y.safetensors"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        (void)remove(mt_test_path(names[i]));
    }
}

static enum mt_status open_and_close(void)
{
    struct mt_safetensors source;
    const enum mt_status status = mt_safetensors_open(&source, mt_test_folder());
    mt_safetensors_close(&source);
    return status;
}

static void a_file_is_read_by_name_and_element(void **state)
{
    struct mt_safetensors source;
    float value[4];
    (void)state;
    write_file("model.safetensors", HEADER, strlen(HEADER), -1, DATA_BYTES);
    MT_TEST_OK(mt_safetensors_open(&source, mt_test_folder()));
    assert_int_equal(source.n, 3);
    const struct mt_stored *stored = mt_safetensors_find(&source, "b.c");
    assert_non_null(stored);
    assert_int_equal(stored->type, MT_STORED_BF16);
    assert_int_equal(stored->offset, 8 + (int64_t)strlen(HEADER) + 24);
    MT_TEST_OK(mt_safetensors_read(&source, stored, 1, 3, value));
    assert_true(value[0] == 0.0F);
    assert_null(mt_safetensors_find(&source, "b"));
    assert_null(mt_safetensors_find(&source, "z"));
    mt_safetensors_close(&source);
    remove_files();
}

/* One header with one thing changed: `from` becomes `to`. */
static void each_damage_of_a_header_has_its_message(void **state)
{
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"{\"__meta", "[\"__meta", "the header, line"},
        {"}}", "}", "the header, line"},
        {"{\"format\":\"pt\"}", "7", "__metadata__ is no object of strings"},
        {"{\"format\":\"pt\"}", "{\"format\":7}", "__metadata__ is no object of strings"},
        {"\"d\"", "\"a\"", "duplicate"},
        {"\"d\"", "\"\"", "is no tensor"},
        {"\"d\"", "\"x\\ny\"", "is no tensor"},
        {"\"F16\"", "\"F8_E4M3\"", "has dtype \"F8_E4M3\"; F32, BF16 and F16"},
        {"\"F16\"", "16", "has dtype 16"},
        {"\"dtype\":\"F16\",", "", "has dtype not given"},
        {"[1,1,4]", "[1,1,1,4]", "shape of d"},
        {"[1,1,4]", "[1,1,-4]", "shape of d"},
        {"[1,1,4]", "[1,1,4.0]", "shape of d"},
        {"[1,1,4]", "[4294967296,4294967296,4]", "shape of d"},
        {"[1,1,4]", "4", "shape of d"},
        {"[1,1,4]", "[1,1,3]", "as many bytes"},
        {"[1,1,4]", "[2305843009213693952,2,1]", "as many bytes"},
        {"[32,40]", "[32,41]", "bytes that the file has"},
        {"[32,40]", "[-8,0]", "bytes that the file has"},
        {"[32,40]", "[40,32]", "bytes that the file has"},
        {"[32,40]", "[32]", "bytes that the file has"},
        {"[32,40]", "[32,9223372036854775807]", "bytes that the file has"},
        {"[32,40]", "[32,92233720368547758070]", "the header, line"},
        {"[32,40]", "[24,32]", "where the tensor before it ends"},
        {"[24,32]", "[16,24]", "where the tensor before it ends"},
        {"{\"dtype\":\"F16\",\"shape\":[1,1,4],\"data_offsets\":[32,40]}", "7", "is no tensor"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        char text[ROOM];
        const char *at = strstr(HEADER, cases[i].from);
        assert_non_null(at);
        (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - HEADER), HEADER, cases[i].to,
                       at + strlen(cases[i].from));
        write_file("model.safetensors", text, strlen(text), -1, DATA_BYTES);
        MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, cases[i].message);
    }
    remove_files();
}

static void lengths_that_do_not_fit_are_refused(void **state)
{
    const size_t n = strlen(HEADER);
    (void)state;
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "has neither model.safetensors nor");
    write_text("model.safetensors", "1234567");
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "has 7 bytes; at least 8");
    write_file("model.safetensors", HEADER, n, (int64_t)n + DATA_BYTES + 1, DATA_BYTES);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "says that its header has");
    write_file("model.safetensors", HEADER, n, INT64_MAX, DATA_BYTES);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "says that its header has");
    write_file("model.safetensors", HEADER, n, -1, DATA_BYTES - 1);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "bytes that the file has");
    write_file("model.safetensors", HEADER, n, -1, DATA_BYTES + 1);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "1 bytes follow the last tensor");
    write_file("model.safetensors", "{}", 2, -1, 1);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "1 bytes follow the last tensor");
    write_file("model.safetensors", "", 0, -1, 0);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "the header, line");
    remove_files();
}

static void write_indexed(const char *index)
{
    write_text("model.safetensors.index.json", index);
    write_file("x.safetensors", HEADER, strlen(HEADER), -1, DATA_BYTES);
    write_file("y.safetensors", OTHER, strlen(OTHER), -1, 4);
}

static void each_damage_of_an_index_has_its_message(void **state)
{
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"weight_map\"", "\"weights\"", "\"weight_map\" is missing"},
        {"\"e\":\"y.safetensors\"", "\"e\":7", "does not name a file for e"},
        {"\"e\":\"y.safetensors\"", "\"e\\n\":\"y\"", "for one of its tensors"},
        {"\"e\":\"y.safetensors\"", "\"e\":\"../y.safetensors\"", "does not name a file for e"},
        {"\"e\":\"y.safetensors\"", "\"e\":\"/etc/passwd\"", "does not name a file for e"},
        {"\"e\":\"y.safetensors\"", "\"e\":\".\"", "does not name a file for e"},
        {"\"e\":\"y.safetensors\"", "\"e\":\"z.safetensors\"", "cannot open"},
        {"\"e\":\"y.safetensors\"", "\"f\":\"y.safetensors\"", "f should be in y.safetensors"},
        {"\"a\":\"x.safetensors\"", "\"a\":\"y.safetensors\"", "a should be in y.safetensors"},
        {"\"d\":\"x.safetensors\",", "", "lacks d, which is in x.safetensors"},
        {"}}", "}", "line"},
        {"\"d\":", "\"a\":", "duplicate"},
    };
    (void)state;
    write_indexed(INDEX);
    MT_TEST_OK(open_and_close());
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        char text[ROOM];
        const char *at = strstr(INDEX, cases[i].from);
        assert_non_null(at);
        (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - INDEX), INDEX, cases[i].to,
                       at + strlen(cases[i].from));
        write_indexed(text);
        MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, cases[i].message);
    }
    write_indexed(INDEX);
    write_file("y.safetensors", HEADER, strlen(HEADER), -1, DATA_BYTES);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "a is in x.safetensors and in y.safetensors");
    remove_files();
}

/* Accepted or refused with code 3 and one line; nothing is held afterwards. */
static void expect_verdict(int *n_accepted)
{
    mt_error_clear();
    const enum mt_status status = open_and_close();
    assert_true(status == MT_OK || status == MT_ERR_INPUT);
    *n_accepted += status == MT_OK;
    for (const char *c = mt_error_last()->text; status != MT_OK && *c != '\0'; ++c) {
        assert_true((unsigned char)*c >= 0x20);
    }
    mt_error_clear();
    assert_int_equal(mt_memory_n_live(), 0);
}

static void mutated_headers_are_accepted_or_refused_never_fatal(void **state)
{
    int n_accepted = 0;
    (void)state;
    for (uint64_t round = 0; round < 2000; ++round) {
        char text[ROOM];
        size_t n = strlen(HEADER);
        memcpy(text, HEADER, n);
        mutate(text, &n, ROOM, SEED, round);
        write_file("model.safetensors", text, n, -1, DATA_BYTES);
        expect_verdict(&n_accepted);
    }
    assert_true(n_accepted > 20 && n_accepted < 1000);
    remove_files();
}

static void mutated_indices_are_accepted_or_refused_never_fatal(void **state)
{
    int n_accepted = 0;
    (void)state;
    write_indexed(INDEX);
    for (uint64_t round = 0; round < 1200; ++round) {
        char text[ROOM + 1];
        size_t n = strlen(INDEX);
        memcpy(text, INDEX, n);
        mutate(text, &n, ROOM, SEED + 1, round);
        text[n] = '\0';
        write_text("model.safetensors.index.json", text);
        expect_verdict(&n_accepted);
    }
    assert_true(n_accepted > 12 && n_accepted < 600);
    remove_files();
}

/* Headers that say they are large are not believed: what is held follows from what is there. */
static void a_header_holds_no_more_than_its_size_accounts_for(void **state)
{
    static char text[1 << 16];
    (void)state;
    remove_files();
    memset(text, '[', sizeof(text));
    write_file("model.safetensors", text, sizeof(text), -1, 0);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "has 65536 values in 65536 bytes");
    for (size_t i = 0; i < sizeof(text); i += 8) {
        memcpy(text + i, "      [,", 8);
    }
    write_file("model.safetensors", text, sizeof(text), -1, 0);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "the header, line");
    write_file("model.safetensors", HEADER, strlen(HEADER), (int64_t)1 << 40, DATA_BYTES);
    MT_TEST_FAILS(open_and_close(), MT_ERR_INPUT, "says that its header has");
    assert_int_equal(mt_memory_n_live(), 0);
    remove_files();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_by_name_and_element),
        cmocka_unit_test(each_damage_of_a_header_has_its_message),
        cmocka_unit_test(lengths_that_do_not_fit_are_refused),
        cmocka_unit_test(each_damage_of_an_index_has_its_message),
        cmocka_unit_test(mutated_headers_are_accepted_or_refused_never_fatal),
        cmocka_unit_test(mutated_indices_are_accepted_or_refused_never_fatal),
        cmocka_unit_test(a_header_holds_no_more_than_its_size_accounts_for),
    };
    return cmocka_run_group_tests(tests, mt_test_folder_make, mt_test_folder_remove);
}
