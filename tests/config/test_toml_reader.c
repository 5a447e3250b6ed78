#include "base/memory.h"
#include "config/toml_reader.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct mt_toml_document open_text(const char *text)
{
    struct mt_toml_document document;
    const bool is_toml = mt_toml_open(text, (int64_t)strlen(text), &document);
    if (!is_toml) {
        fail_msg("refused: %s", document.error);
    }
    return document;
}

static const struct mt_toml_entry *find(const struct mt_toml_document *document, const char *path)
{
    for (int64_t i = 0; i < document->n_entry; i++) {
        if (strcmp(document->entry[i].path, path) == 0) {
            return &document->entry[i];
        }
    }
    fail_msg("no entry %s", path);
    return NULL;
}

static void refuses(const char *text, int64_t text_bytes, int line, const char *fragment)
{
    struct mt_toml_document document;
    const bool is_toml = mt_toml_open(text, text_bytes, &document);
    if (is_toml || document.error_line != line || strstr(document.error, fragment) == NULL) {
        fail_msg("line %d: \"%s\" (want line %d: %s)", document.error_line, document.error, line,
                 fragment);
    }
    assert_int_equal(document.n_entry, 0);
    mt_toml_close(&document);
}

static void every_type_is_read_with_its_place(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("a = true\n"
                                                 "[t]\n"
                                                 "  i = -7\n"
                                                 "x.r = 2.5\n"
                                                 "s = \"q\\u00e9\"\n"
                                                 "list = [1, \"b\", [2]]\n"
                                                 "day = 2020-01-02\n"
                                                 "in = { k = 1 }\n");
    assert_true(find(&document, "a")->value.boolean);
    assert_int_equal(find(&document, "t")->value.type, MT_TOML_TABLE);
    assert_false(find(&document, "t")->value.is_inline);
    const struct mt_toml_entry *integer = find(&document, "t.i");
    assert_int_equal(integer->value.integer, -7);
    assert_int_equal(integer->line, 3);
    assert_int_equal(integer->column, 3);
    assert_int_equal(integer->value.column, 7);
    assert_true(find(&document, "t.x.r")->value.real == 2.5);
    assert_string_equal(find(&document, "t.s")->value.text, "q\xc3\xa9");
    const struct mt_toml_entry *list = find(&document, "t.list");
    assert_int_equal(list->n_item, 3);
    assert_int_equal(list->item[0].integer, 1);
    assert_string_equal(list->item[1].text, "b");
    assert_int_equal(list->item[2].type, MT_TOML_ARRAY);
    assert_int_equal(find(&document, "t.day")->value.type, MT_TOML_OTHER);
    assert_true(find(&document, "t.in")->value.is_inline);
    assert_int_equal(find(&document, "t.in.k")->value.integer, 1);
    mt_toml_close(&document);
}

static void an_empty_text_has_no_entries(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("");
    assert_int_equal(document.n_entry, 0);
    mt_toml_close(&document);
    mt_toml_close(&document); /* closing twice is harmless */
}

static void a_quoted_key_never_looks_like_a_path(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("\"model.hidden_size\" = 3\n");
    assert_string_equal(document.entry[0].path, "\"model.hidden_size\"");
    mt_toml_close(&document);
}

static void a_long_key_is_cut(void **state)
{
    MT_UNUSED(state);
    char text[4096];
    memset(text, 'k', sizeof(text));
    (void)snprintf(text + 4000, sizeof(text) - 4000, " = 1");
    struct mt_toml_document document = open_text(text);
    assert_true(strlen(document.entry[0].path) < 80);
    mt_toml_close(&document);
}

static void a_nul_in_a_string_does_not_end_it(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("a = \"x\\u0000y\"\n");
    assert_string_equal(document.entry[0].value.text, "x\x01y");
    mt_toml_close(&document);
}

static void syntax_errors_carry_their_line(void **state)
{
    MT_UNUSED(state);
    static const struct {
        const char *text, *fragment;
        int line;
    } cases[] = {
        {"a = 1\nb = \n", "value", 2},
        {"a = 1\na = 2\n", "redefine", 2},
        {"\n\n[t\n", "table header", 3},
        {"a = 1\nb = \"x\n", "string", 2},
        {"a = 9223372036854775808\n", "integers reach from -9223372036854775808", 1},
        {"a = 1e999\n", "floating-point", 1},
        {"a = 1\n\xff = 3\n", "not UTF-8", 2},
        {"a = 1\nb = \"\xed\xa0\x80\"\n", "not UTF-8", 2},
        {"a = 1\nb = \"\xc0\x80\"\n", "not UTF-8", 2},
        {"a = \"\xe2\x82", "not UTF-8", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        refuses(cases[i].text, (int64_t)strlen(cases[i].text), cases[i].line, cases[i].fragment);
    }
    refuses("a\0b = 1", 7, 1, "");
}

static char *repeat(const char *unit, int64_t n_unit, const char *end)
{
    const size_t n = strlen(unit);
    char *text = NULL;
    assert_int_equal(MT_ALLOCATE(text, (int64_t)n * n_unit + (int64_t)strlen(end) + 1, "test"),
                     MT_OK);
    for (int64_t i = 0; i < n_unit; i++) {
        (void)snprintf(text + (size_t)i * n, n + 1, "%s", unit);
    }
    (void)snprintf(text + n * (size_t)n_unit, strlen(end) + 1, "%s", end);
    return text;
}

static void hostile_nesting_is_refused_not_followed(void **state)
{
    MT_UNUSED(state);
    static const char *const unit[] = {"a.",    "\"a\".", "a . ",    "'a'.",
                                       "a = [", "[",      "a = {a=", "{"};
    for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++) {
        char *text = repeat(unit[i], 100000, "a = 1\n");
        refuses(text, (int64_t)strlen(text), 1, "");
        mt_memory_free(text);
    }
    char *arrays = repeat("[", 100000, "");
    char *text = repeat("x = ", 1, arrays);
    refuses(text, (int64_t)strlen(text), 1, "");
    mt_memory_free(arrays);
    mt_memory_free(text);
}

static void dots_in_strings_and_comments_are_no_nesting(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("# ................................\n"
                                                 "a = \"../../../../../../../../../../../..\"\n"
                                                 "b = '..........\\'\n"
                                                 "c = \"\"\"..........\"..........\"\"\"\"\"\n"
                                                 "d = '''..........''.........'''\n"
                                                 "e = \"\\\"..........\"\n"
                                                 "f = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]\n"
                                                 "g = \"\" # ..........\n");
    assert_int_equal(document.n_entry, 7);
    assert_string_equal(find(&document, "c")->value.text, "..........\"..........\"\"");
    mt_toml_close(&document);
}

static void nesting_at_the_limit_is_listed_to_the_limit(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("a.b.c.d.e.f.g.h = {i = {j = 1}}\n");
    assert_int_equal(document.n_entry, MT_TOML_MAX_DEPTH);
    mt_toml_close(&document);
    refuses("a.b.c.d.e.f.g.h.i.j = 1", 23, 1, "nest too deep");
}

static void nan_and_infinity_are_read_as_such(void **state)
{
    MT_UNUSED(state);
    struct mt_toml_document document = open_text("a = nan\nb = -inf\n");
    assert_true(isnan(find(&document, "a")->value.real));
    assert_true(isinf(find(&document, "b")->value.real));
    mt_toml_close(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_read_with_its_place),
        cmocka_unit_test(an_empty_text_has_no_entries),
        cmocka_unit_test(a_quoted_key_never_looks_like_a_path),
        cmocka_unit_test(a_long_key_is_cut),
        cmocka_unit_test(a_nul_in_a_string_does_not_end_it),
        cmocka_unit_test(syntax_errors_carry_their_line),
        cmocka_unit_test(hostile_nesting_is_refused_not_followed),
        cmocka_unit_test(dots_in_strings_and_comments_are_no_nesting),
        cmocka_unit_test(nesting_at_the_limit_is_listed_to_the_limit),
        cmocka_unit_test(nan_and_infinity_are_read_as_such),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
