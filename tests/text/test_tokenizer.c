/* Tokenizers against the ids of Hugging Face tokenizers and SentencePiece
 * (tests/peers/tokenizers_vectors.py), and files that are no tokenizers. */
#include "base/memory.h"
#include "support/mutate.h"
#include "support/test.h"
#include "text/stream.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *expected;

static const char *vector_path(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/tests/text/vectors/%s", getenv("MT_SOURCE"), name);
    return path;
}

static int read_expected(void **state)
{
    MT_UNUSED(state);
    json_error_t error;
    expected = json_load_file(vector_path("expected.json"), JSON_ALLOW_NUL, &error);
    return expected == NULL;
}

static int release_expected(void **state)
{
    MT_UNUSED(state);
    json_decref(expected);
    return 0;
}

static void expect_ids(const char *name, size_t s, const json_t *want, const struct mt_ids *got)
{
    bool same = (int64_t)json_array_size(want) == got->n;
    for (int64_t i = 0; same && i < got->n; ++i) {
        same = json_integer_value(json_array_get(want, (size_t)i)) == got->item[i];
    }
    if (!same) {
        print_message("%s, string %zu: %zu ids wanted, %lld got\n", name, s, json_array_size(want),
                      (long long)got->n);
    }
    assert_true(same);
}

/* Token by token behind the first n_first, which are shown, the same text as all at once. */
static void expect_stream(const struct mt_tokenizer *tokenizer, const struct mt_ids *ids,
                          int64_t n_first)
{
    struct mt_text_stream stream;
    struct mt_text whole = {0};
    struct mt_text shown = {0};
    const char *text = NULL;
    int64_t n = 0;
    MT_TEST_OK(mt_tokenizer_decode(tokenizer, ids->item, ids->n, &whole));
    MT_TEST_OK(mt_tokenizer_decode(tokenizer, ids->item, n_first, &shown));
    MT_TEST_OK(mt_text_stream_init(&stream, tokenizer, ids->item, n_first));
    for (int64_t i = n_first; i < ids->n; ++i) {
        MT_TEST_OK(mt_text_stream_add(&stream, ids->item[i], &text, &n));
        MT_TEST_OK(mt_text_append(&shown, text, n));
    }
    MT_TEST_OK(mt_text_stream_end(&stream, &text, &n));
    MT_TEST_OK(mt_text_append(&shown, text, n));
    assert_int_equal(shown.n, whole.n);
    assert_true(whole.n == 0 || memcmp(shown.item, whole.item, (size_t)whole.n) == 0);
    mt_text_stream_clear(&stream);
    mt_memory_free(whole.item);
    mt_memory_free(shown.item);
}

/* Every string, to ids and back, one encoding after the other into the same lists. */
static void expect_strings(const char *name, const struct mt_tokenizer *tokenizer)
{
    struct mt_ids ids = {0};
    struct mt_text text = {0};
    size_t s = 0;
    json_t *string = NULL;
    const json_t *all_ids = json_object_get(json_object_get(expected, "ids"), name);
    const json_t *all_text = json_object_get(json_object_get(expected, "text"), name);
    json_array_foreach(json_object_get(expected, "strings"), s, string)
    {
        const json_t *want = json_array_get(all_text, s);
        ids.n = 0;
        text.n = 0;
        MT_TEST_OK(mt_tokenizer_encode(tokenizer, json_string_value(string),
                                       (int64_t)json_string_length(string), &ids));
        expect_ids(name, s, json_array_get(all_ids, s), &ids);
        MT_TEST_OK(mt_tokenizer_decode(tokenizer, ids.item, ids.n, &text));
        assert_int_equal(text.n, json_string_length(want));
        assert_true(text.n == 0 || memcmp(text.item, json_string_value(want), (size_t)text.n) == 0);
        expect_stream(tokenizer, &ids, 0);
        expect_stream(tokenizer, &ids, ids.n);
    }
    assert_true(s > 50);
    mt_memory_free(ids.item);
    mt_memory_free(text.item);
}

static void ids_are_those_of_the_field(void **state)
{
    MT_UNUSED(state);
    const char *name = NULL;
    const json_t *ids = NULL;
    int n = 0;
    json_object_foreach(json_object_get(expected, "ids"), name, ids)
    {
        struct mt_tokenizer *tokenizer = NULL;
        MT_TEST_OK(mt_tokenizer_open(vector_path(name), &tokenizer));
        expect_strings(name, tokenizer);
        mt_tokenizer_close(tokenizer);
        ++n;
    }
    assert_int_equal(n, 7);
}

static void special_tokens_are_found_by_name(void **state)
{
    MT_UNUSED(state);
    struct mt_tokenizer *tokenizer = NULL;
    MT_TEST_OK(mt_tokenizer_open(vector_path("qwen.json"), &tokenizer));
    assert_int_equal(mt_tokenizer_find(tokenizer, "<|endoftext|>"), 0);
    assert_int_equal(mt_tokenizer_find(tokenizer, "<tool>"), 500);
    assert_int_equal(mt_tokenizer_find(tokenizer, "<none>"), -1);
    assert_int_equal(mt_tokenizer_vocab_size(tokenizer), 501);
    mt_tokenizer_close(tokenizer);
    MT_TEST_OK(mt_tokenizer_open(vector_path("sentencepiece.model"), &tokenizer));
    assert_int_equal(mt_tokenizer_find(tokenizer, "</s>"), 2);
    assert_int_equal(mt_tokenizer_find(tokenizer, "<none>"), -1);
    assert_int_equal(mt_tokenizer_vocab_size(tokenizer), 450);
    mt_tokenizer_close(tokenizer);
}

static void bytes_are_tokens(void **state)
{
    MT_UNUSED(state);
    struct mt_tokenizer *tokenizer = NULL;
    struct mt_ids ids = {0};
    struct mt_text text = {0};
    char all[4096];
    for (size_t i = 0; i < sizeof(all); ++i) {
        all[i] = (char)(i * 37);
    }
    MT_TEST_OK(mt_tokenizer_open("bytes", &tokenizer));
    MT_TEST_OK(mt_tokenizer_encode(tokenizer, all, sizeof(all), &ids));
    MT_TEST_OK(mt_tokenizer_decode(tokenizer, ids.item, ids.n, &text));
    assert_int_equal(text.n, sizeof(all));
    assert_memory_equal(text.item, all, sizeof(all));
    mt_memory_free(ids.item);
    mt_memory_free(text.item);
    mt_tokenizer_close(tokenizer);
}

/* A SentencePiece model writes a character of three bytes as three tokens, and the space before a
 * word only behind another token. */
static void a_stream_shows_whole_characters_and_inner_spaces(void **state)
{
    MT_UNUSED(state);
    static const char text[] = "and the \xe2\x98\x83 and";
    struct mt_tokenizer *tokenizer = NULL;
    struct mt_ids ids = {0};
    const char *shown = NULL;
    int64_t n = 0;
    struct mt_text_stream stream;
    MT_TEST_OK(mt_tokenizer_open(vector_path("sentencepiece.model"), &tokenizer));
    MT_TEST_OK(mt_tokenizer_encode(tokenizer, text, sizeof(text) - 1, &ids));
    expect_stream(tokenizer, &ids, 1);
    expect_stream(tokenizer, &ids, 2);
    MT_TEST_OK(mt_text_stream_init(&stream, tokenizer, ids.item, 1));
    int n_empty = 0;
    for (int64_t i = 1; i < ids.n; ++i) {
        MT_TEST_OK(mt_text_stream_add(&stream, ids.item[i], &shown, &n));
        n_empty += n == 0 ? 1 : 0;
        assert_true(n == 0 || (shown[n - 1] & 0xC0) != 0xC0);
    }
    assert_int_equal(n_empty, 2);
    mt_text_stream_clear(&stream);
    mt_memory_free(ids.item);
    mt_tokenizer_close(tokenizer);
}

static void text_that_is_not_utf8_is_refused_with_its_place(void **state)
{
    MT_UNUSED(state);
    struct mt_tokenizer *tokenizer = NULL;
    struct mt_ids ids = {0};
    MT_TEST_OK(mt_tokenizer_open(vector_path("gpt2.json"), &tokenizer));
    MT_TEST_FAILS(mt_tokenizer_encode(tokenizer, "abc\xC3(", 5, &ids), MT_ERR_INPUT,
                  "offset 3 of the text: byte 0xc3");
    MT_TEST_FAILS(mt_tokenizer_encode(tokenizer, "\xED\xA0\x80", 3, &ids), MT_ERR_INPUT,
                  "offset 0");
    mt_memory_free(ids.item);
    mt_tokenizer_close(tokenizer);
}

/* Writes a tokenizer.json and opens it. */
static enum mt_status open_text(const char *text, size_t n, struct mt_tokenizer **tokenizer)
{
    char path[] = "/tmp/mt-tokenizer-XXXXXX.json";
    const int descriptor = mkstemps(path, 5);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, text, n), (ssize_t)n);
    assert_int_equal(close(descriptor), 0);
    const enum mt_status status = mt_tokenizer_open(path, tokenizer);
    assert_int_equal(unlink(path), 0);
    return status;
}

/* gpt2.json with one value changed. */
static void expect_refusal(const char *what, const char *value, const char *message)
{
    struct mt_tokenizer *tokenizer = NULL;
    json_error_t error;
    json_t *root = json_load_file(vector_path("gpt2.json"), 0, &error);
    json_t *model = json_object_get(root, "model");
    json_t *owner = json_object_get(model, what) != NULL ? model : root;
    assert_non_null(root);
    assert_int_equal(json_object_set_new(owner, what, json_loads(value, JSON_DECODE_ANY, &error)),
                     0);
    char *text = json_dumps(root, 0);
    MT_TEST_FAILS(open_text(text, strlen(text), &tokenizer), MT_ERR_INPUT, message);
    assert_null(tokenizer);
    free(text);
    json_decref(root);
}

static void what_would_change_ids_is_refused_by_name(void **state)
{
    MT_UNUSED(state);
    expect_refusal("type", "\"Unigram\"", "model.type is Unigram; BPE was expected");
    expect_refusal("byte_fallback", "true", "byte_fallback is set");
    expect_refusal("dropout", "0.1", "dropout is set");
    expect_refusal("end_of_word_suffix", "\"</w>\"", "end_of_word_suffix is set");
    expect_refusal("normalizer", "{\"type\":\"Lowercase\"}", "normalizer is Lowercase");
    expect_refusal("pre_tokenizer", "{\"type\":\"Metaspace\"}", "pre_tokenizer is Metaspace");
    expect_refusal("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"}}",
                   "pattern of a Split is no Regex");
    expect_refusal("pre_tokenizer",
                   "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}",
                   "no regular expression at character 1");
    expect_refusal("pre_tokenizer",
                   "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\C\"},"
                   "\"behavior\":\"Isolated\"}",
                   "no regular expression at character 2");
    expect_refusal("vocab", "{\"a\":0}", "vocab is without byte 0x");
    expect_refusal("vocab", "{\"a\":-1}", "the token \"a\" has no id of its own");
    expect_refusal("vocab", "{\"a\":99999999}", "the token \"a\" has no id of its own");
    expect_refusal("vocab", "{\"a\":16777215}", "the largest id is 16777215, of ");
    expect_refusal("merges", "[\"zz qq\"]", "merge 0 is no pair of tokens");
    expect_refusal("merges", "[7]", "merge 0 is no pair of tokens");
    expect_refusal("added_tokens", "[{\"id\":1,\"content\":\"x\",\"single_word\":true}]",
                   "single_word of an added token is true");
    expect_refusal("added_tokens", "[{\"id\":\"1\",\"content\":\"x\"}]", "no id of its own");
}

static void an_expression_that_goes_backwards_is_refused(void **state)
{
    MT_UNUSED(state);
    struct mt_tokenizer *tokenizer = NULL;
    struct mt_ids ids = {0};
    json_error_t error;
    json_t *root = json_load_file(vector_path("gpt2.json"), 0, &error);
    (void)json_object_set_new(root, "pre_tokenizer",
                              json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern", "Regex",
                                        "(?<=(?1))a|(\\Ka)b", "behavior", "Isolated"));
    char *text = json_dumps(root, 0);
    MT_TEST_OK(open_text(text, strlen(text), &tokenizer));
    MT_TEST_FAILS(mt_tokenizer_encode(tokenizer, "aaa", 3, &ids), MT_ERR_INPUT,
                  "matches backwards");
    mt_memory_free(ids.item);
    mt_tokenizer_close(tokenizer);
    free(text);
    json_decref(root);
}

/* Any bytes: a tokenizer that works, or one message and code 3; memory in proportion to the file
 * (run under ASan as well). */
static void random_damage_is_survived(void **state)
{
    MT_UNUSED(state);
    enum { N_ROUND = 400, ROOM = 20000, SEED = 20261122 };
    const int64_t before = mt_memory_peak_resident_bytes();
    json_error_t error;
    json_t *root = json_load_file(vector_path("llama3.json"), 0, &error);
    assert_non_null(root);
    char *whole = json_dumps(root, JSON_COMPACT);
    int n_opened = 0;
    for (uint64_t round = 0; round < N_ROUND; ++round) {
        struct mt_tokenizer *tokenizer = NULL;
        unsigned char text[ROOM];
        size_t n = strlen(whole);
        assert_true(n < ROOM);
        memcpy(text, whole, n);
        mt_mutate(MT_MUTATE_TEXT, SEED, round, text, &n, ROOM);
        mt_error_clear();
        const enum mt_status status = open_text((const char *)text, n, &tokenizer);
        if (status == MT_OK) {
            struct mt_ids ids = {0};
            (void)mt_tokenizer_encode(tokenizer, "Some text, 123.", 15, &ids);
            mt_memory_free(ids.item);
            ++n_opened;
        } else {
            assert_int_equal(status, MT_ERR_INPUT);
            assert_true(strlen(mt_error_last()->text) > 0);
        }
        mt_tokenizer_close(tokenizer);
    }
    mt_error_clear();
    assert_true(n_opened > 0 && n_opened < N_ROUND);
    assert_true(mt_memory_peak_resident_bytes() - before < MT_TEST_FUZZ_BYTES);
    free(whole);
    json_decref(root);
}

static void files_that_are_none_are_named(void **state)
{
    MT_UNUSED(state);
    struct mt_tokenizer *tokenizer = NULL;
    MT_TEST_FAILS(mt_tokenizer_open("/dev/null", &tokenizer), MT_ERR_INPUT,
                  "/dev/null is no tokenizer");
    MT_TEST_FAILS(mt_tokenizer_open("/missing/vocab.txt", &tokenizer), MT_ERR_INPUT,
                  "cannot open the tokenizer /missing/vocab.txt: No such file");
    MT_TEST_FAILS(mt_tokenizer_open("/", &tokenizer), MT_ERR_INPUT,
                  "the tokenizer / is a folder; a file was expected");
    MT_TEST_FAILS(mt_tokenizer_open("/missing/tokenizer.json", &tokenizer), MT_ERR_INPUT,
                  "cannot read /missing/tokenizer.json: No such file");
    MT_TEST_FAILS(mt_tokenizer_open("/missing/a.model", &tokenizer), MT_ERR_INPUT,
                  "a SentencePiece model was expected");
    MT_TEST_FAILS(open_text("{", 1, &tokenizer), MT_ERR_INPUT, "no JSON");
    MT_TEST_FAILS(open_text("[]", 2, &tokenizer), MT_ERR_INPUT, "model.type is not given");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_field),
        cmocka_unit_test(special_tokens_are_found_by_name),
        cmocka_unit_test(bytes_are_tokens),
        cmocka_unit_test(a_stream_shows_whole_characters_and_inner_spaces),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_its_place),
        cmocka_unit_test(what_would_change_ids_is_refused_by_name),
        cmocka_unit_test(an_expression_that_goes_backwards_is_refused),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(files_that_are_none_are_named),
    };
    const int failed = cmocka_run_group_tests(tests, read_expected, release_expected);
    return failed != 0 || mt_memory_n_live() != 0;
}
