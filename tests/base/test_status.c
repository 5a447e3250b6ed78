#include "base/input_file.h"
#include "support/test.h"

#include <pthread.h>
#include <string.h>

static enum mt_status fail_input(void)
{
    return MT_FAIL(MT_ERR_INPUT, "shard %d is short; %s; copy it again", 7, "100 bytes expected");
}

static enum mt_status pass_on(int *n_after)
{
    MT_TRY(fail_input());
    ++*n_after;
    return MT_OK;
}

static enum mt_status pass_on_with_cleanup(int *n_cleanup)
{
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(fail_input());
    return MT_ERR_INTERNAL;
cleanup:
    ++*n_cleanup;
    return status;
}

static int clear_record(void **state)
{
    MT_UNUSED(state);
    mt_error_clear();
    return 0;
}

static void a_failure_keeps_code_text_and_place(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_error_last()->code, MT_OK);
    assert_int_equal(fail_input(), MT_ERR_INPUT);
    const struct mt_error *error = mt_error_last();
    assert_int_equal(error->code, MT_ERR_INPUT);
    assert_string_equal(error->text, "shard 7 is short; 100 bytes expected; copy it again");
    assert_non_null(strstr(error->file, "test_status.c"));
    assert_int_equal(error->line, 9);
}

static void try_passes_the_code_on_at_once(void **state)
{
    MT_UNUSED(state);
    int n_after = 0;
    int n_cleanup = 0;
    assert_int_equal(pass_on(&n_after), MT_ERR_INPUT);
    assert_int_equal(n_after, 0);
    assert_int_equal(pass_on_with_cleanup(&n_cleanup), MT_ERR_INPUT);
    assert_int_equal(n_cleanup, 1);
}

static void the_first_error_wins(void **state)
{
    MT_UNUSED(state);
    (void)fail_input();
    assert_int_equal(MT_FAIL(MT_ERR_RESOURCE, "a later one"), MT_ERR_RESOURCE);
    assert_int_equal(mt_error_last()->code, MT_ERR_INPUT);
    mt_error_clear();
    assert_string_equal(mt_error_last()->text, "");
    (void)MT_FAIL(MT_ERR_RESOURCE, "a later one");
    assert_string_equal(mt_error_last()->text, "a later one");
}

static void a_text_that_is_too_long_is_cut(void **state)
{
    MT_UNUSED(state);
    static char text[MT_ERROR_TEXT_BYTES + 100];
    memset(text, 'x', sizeof(text) - 1);
    (void)MT_FAIL(MT_ERR_CONFIG, "%s", text);
    assert_int_equal(strlen(mt_error_last()->text), MT_ERROR_TEXT_BYTES - 1);
}

/* What a terminal would obey, from a file or a path. */
static void messages_hold_no_control_characters(void **state)
{
    MT_UNUSED(state);
    (void)MT_FAIL(MT_ERR_INPUT, "a\tkey \x1b[2J\r\x7f %s, in\ntwo lines",
                  "\xc2\x9b"
                  "1m \xc3\xa9");
    assert_string_equal(mt_error_last()->text, "a?key ?[2J?? ??1m \xc3\xa9, in\ntwo lines");
    mt_error_clear();
    (void)MT_FAIL(MT_ERR_INPUT, "cut: \xc2");
    assert_string_equal(mt_error_last()->text, "cut: \xc2");
    char quoted[] = "near '\"\\\n\xc3\xa9 x'";
    assert_string_equal(mt_input_quote(quoted), "near '\"\\??? x'");
}

static void *fail_in_thread(void *seen)
{
    *(enum mt_status *)seen = mt_error_last()->code;
    (void)MT_FAIL(MT_ERR_TIMEOUT, "only here");
    return NULL;
}

static void each_thread_has_its_own_record(void **state)
{
    MT_UNUSED(state);
    (void)fail_input();
    enum mt_status seen = MT_ERR_INTERNAL;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fail_in_thread, &seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(seen, MT_OK);
    assert_int_equal(mt_error_last()->code, MT_ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_failure_keeps_code_text_and_place, clear_record),
        cmocka_unit_test_setup(try_passes_the_code_on_at_once, clear_record),
        cmocka_unit_test_setup(the_first_error_wins, clear_record),
        cmocka_unit_test_setup(a_text_that_is_too_long_is_cut, clear_record),
        cmocka_unit_test_setup(messages_hold_no_control_characters, clear_record),
        cmocka_unit_test_setup(each_thread_has_its_own_record, clear_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
