#include "support/test.h"

#include "base/clock.h"

#include <pthread.h>
#include <string.h>

static const int64_t MS = 1000000;

static void spend_ms(int64_t n)
{
    mt_clock_sleep_until_ns(mt_clock_ns() + n * MS);
}

static void sleeping_lasts_until_the_deadline(void **state)
{
    MT_UNUSED(state);
    const int64_t deadline = mt_clock_ns() + 3 * MS;
    mt_clock_sleep_until_ns(deadline);
    const int64_t after = mt_clock_ns();
    assert_true(after >= deadline);
    mt_clock_sleep_until_ns(INT64_MIN);
    mt_clock_sleep_until_ns(after);
}

static void utc_has_the_form_of_iso_8601(void **state)
{
    MT_UNUSED(state);
    char now[21];
    mt_clock_utc(now);
    assert_int_equal(strlen(now), 20);
    const char *form = "dddd-dd-ddTdd:dd:ddZ";
    for (int i = 0; i < 20; ++i) {
        assert_true(form[i] == 'd' ? now[i] >= '0' && now[i] <= '9' : now[i] == form[i]);
    }
}

static void phase_names_are_all_there_and_differ(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < MT_N_PHASE; ++i) {
        assert_non_null(mt_phase_name((enum mt_phase)i));
        for (int j = 0; j < i; ++j) {
            assert_string_not_equal(mt_phase_name((enum mt_phase)i),
                                    mt_phase_name((enum mt_phase)j));
        }
    }
    assert_string_equal(mt_phase_name(MT_PHASE_DISPATCH), "moe.dispatch");
}

/* Lower bounds from sleeping, upper bounds from the sum: nothing here depends on the machine's
 * speed. */
static void time_counts_for_the_innermost_span_only(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    mt_span_reset();
    const int64_t begin = mt_clock_ns();
    mt_span_begin(MT_PHASE_ATTENTION);
    spend_ms(2);
    mt_span_begin(MT_PHASE_REDUCE);
    spend_ms(5);
    mt_span_end(MT_PHASE_REDUCE);
    mt_span_begin(MT_PHASE_REDUCE);
    spend_ms(1);
    mt_span_end(MT_PHASE_REDUCE);
    mt_span_end(MT_PHASE_ATTENTION);
    spend_ms(3); /* in no span */
    const int64_t elapsed = mt_clock_ns() - begin;
    mt_span_totals(&totals);
    assert_true(totals.phase_ns[MT_PHASE_ATTENTION] >= 2 * MS);
    assert_true(totals.phase_ns[MT_PHASE_REDUCE] >= 6 * MS);
    int64_t sum = 0;
    for (int i = 0; i < MT_N_PHASE; ++i) {
        assert_true(totals.phase_ns[i] >= 0);
        sum += totals.phase_ns[i];
    }
    assert_true(sum <= elapsed - 3 * MS);
    assert_true(sum == totals.phase_ns[MT_PHASE_ATTENTION] + totals.phase_ns[MT_PHASE_REDUCE]);
}

static void totals_are_zero_after_a_reset(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    mt_span_begin(MT_PHASE_CLIP);
    mt_span_end(MT_PHASE_CLIP);
    mt_span_add_wait_ns(5);
    mt_span_add_wait_ns(7);
    mt_span_totals(&totals);
    assert_int_equal(totals.exposed_wait_ns, 12);
    mt_span_reset();
    mt_span_totals(&totals);
    assert_int_equal(totals.exposed_wait_ns, 0);
    for (int i = 0; i < MT_N_PHASE; ++i) {
        assert_int_equal(totals.phase_ns[i], 0);
    }
}

static void a_reset_inside_a_span_drops_only_the_past(void **state)
{
    MT_UNUSED(state);
    struct mt_span_totals totals;
    mt_span_begin(MT_PHASE_EVAL);
    spend_ms(4);
    const int64_t reset_ns = mt_clock_ns();
    mt_span_reset();
    spend_ms(1);
    mt_span_totals(&totals); /* the open span counts up to now */
    const int64_t elapsed = mt_clock_ns() - reset_ns;
    mt_span_end(MT_PHASE_EVAL);
    assert_true(totals.phase_ns[MT_PHASE_EVAL] >= 1 * MS);
    assert_true(totals.phase_ns[MT_PHASE_EVAL] <= elapsed);
}

static void *current_in_thread(void *out)
{
    *(const char **)out = mt_span_current();
    return NULL;
}

static void any_thread_sees_the_innermost_span(void **state)
{
    MT_UNUSED(state);
    const char *seen = NULL;
    pthread_t thread;
    assert_null(mt_span_current());
    mt_span_begin(MT_PHASE_GATE);
    mt_span_begin(MT_PHASE_DISPATCH);
    assert_int_equal(pthread_create(&thread, NULL, current_in_thread, &seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(seen, "moe.dispatch");
    mt_span_end(MT_PHASE_DISPATCH);
    assert_string_equal(mt_span_current(), "moe.gate");
    mt_span_end(MT_PHASE_GATE);
    assert_null(mt_span_current());
}

static void end_the_wrong_span(void *unused)
{
    MT_UNUSED(unused);
    mt_span_begin(MT_PHASE_GATE);
    mt_span_end(MT_PHASE_DISPATCH);
}

static void nest_too_deep(void *unused)
{
    MT_UNUSED(unused);
    for (int i = 0; i < 17; ++i) {
        mt_span_begin(MT_PHASE_GATE);
    }
}

static void unbalanced_spans_are_an_assertion(void **state)
{
    MT_UNUSED(state);
    MT_TEST_ASSERTS(end_the_wrong_span, NULL);
    MT_TEST_ASSERTS(nest_too_deep, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleeping_lasts_until_the_deadline),
        cmocka_unit_test(utc_has_the_form_of_iso_8601),
        cmocka_unit_test(phase_names_are_all_there_and_differ),
        cmocka_unit_test(time_counts_for_the_innermost_span_only),
        cmocka_unit_test(totals_are_zero_after_a_reset),
        cmocka_unit_test(a_reset_inside_a_span_drops_only_the_past),
        cmocka_unit_test(unbalanced_spans_are_an_assertion),
        cmocka_unit_test(any_thread_sees_the_innermost_span),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
