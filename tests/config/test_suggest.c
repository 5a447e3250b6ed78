#include "config/suggest.h"
#include "support/test.h"

#include <string.h>

static void distance_counts_edits(void **state)
{
    (void)state;
    assert_int_equal(mt_suggest_distance("", ""), 0);
    assert_int_equal(mt_suggest_distance("", "abc"), 3);
    assert_int_equal(mt_suggest_distance("abc", ""), 3);
    assert_int_equal(mt_suggest_distance("kitten", "sitting"), 3);
    assert_int_equal(mt_suggest_distance("hiden_size", "hidden_size"), 1);
    assert_int_equal(mt_suggest_distance("sedd", "seed"), 1);
    assert_int_equal(mt_suggest_distance("sede", "seed"), 1); /* neighbours swapped */
    assert_int_equal(mt_suggest_distance("abcdef", "badcfe"), 3);
}

static void distance_of_long_names_is_bounded(void **state)
{
    (void)state;
    char a[500];
    char b[500];
    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    a[499] = '\0';
    b[499] = '\0';
    assert_int_equal(mt_suggest_distance(a, b), 79);
}

static void the_nearest_key_of_the_section_is_found(void **state)
{
    (void)state;
    char text[160];
    mt_suggest_key("model", "hiden_size", text, sizeof(text));
    assert_string_equal(text, "\"hidden_size\"");
    mt_suggest_key("train", "step", text, sizeof(text));
    assert_string_equal(text, "\"steps\"");
    mt_suggest_key("moe.balance", "los_coef", text, sizeof(text));
    assert_string_equal(text, "\"loss_coef\"");
}

static void a_key_of_another_section_is_sent_there(void **state)
{
    (void)state;
    char text[160];
    mt_suggest_key("train", "lr", text, sizeof(text));
    assert_string_equal(text, "\"lr\" in [optimizer]");
    mt_suggest_key("moe", "loss_coef", text, sizeof(text));
    assert_string_equal(text, "\"loss_coef\" in [moe.balance]");
}

static void the_nearest_section_and_choice_are_found(void **state)
{
    (void)state;
    char word[64];
    assert_string_equal(mt_suggest_section("modle"), "model");
    assert_string_equal(mt_suggest_section("moe.balanec"), "moe.balance");
    assert_string_equal(mt_suggest_section("optimiser"), "optimizer");
    mt_suggest_choice("none|head|projection", "heads", word, sizeof(word));
    assert_string_equal(word, "head");
    mt_suggest_choice("none|head|projection", "project", word, sizeof(word));
    assert_string_equal(word, "projection");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distance_counts_edits),
        cmocka_unit_test(distance_of_long_names_is_bounded),
        cmocka_unit_test(the_nearest_key_of_the_section_is_found),
        cmocka_unit_test(a_key_of_another_section_is_sent_there),
        cmocka_unit_test(the_nearest_section_and_choice_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
