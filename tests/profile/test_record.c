/* The recorder: rings that forget the oldest, sums that add up, and nothing is allocated. */
#include "support/test.h"

#include "base/memory.h"
#include "base/record.h"

static const int64_t MS = 1000000;

static int open_record(void **state)
{
    MT_UNUSED(state);
    MT_TEST_OK(mt_record_open(3, 5));
    mt_span_reset();
    return 0;
}

static int close_record(void **state)
{
    MT_UNUSED(state);
    mt_record_close();
    return mt_memory_n_live() == 0 ? 0 : -1;
}

static int64_t arrive(const char *name, int64_t number)
{
    return mt_record_arrive(&(struct mt_collective_facts){.name = name, .number = number});
}

static void spans_carry_their_place_and_their_rows(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(7);
    mt_record_set_layer(2);
    mt_record_set_micro(1);
    mt_span_begin(MT_PHASE_EXPERT);
    mt_record_add_rows(4, 40);
    mt_record_add_rows(1, 2);
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_span_end(MT_PHASE_MATERIALIZE);
    mt_span_end(MT_PHASE_EXPERT);
    mt_record_step_end();
    mt_record_step_close();
    const struct mt_recorded_step *step = mt_record_step(0);
    assert_int_equal(step->number, 7);
    assert_int_equal(step->end_span - step->first_span, 2);
    const struct mt_recorded_span *inner = mt_record_span_at(0);
    const struct mt_recorded_span *outer = mt_record_span_at(1);
    assert_int_equal(inner->phase, MT_PHASE_MATERIALIZE);
    assert_int_equal(inner->rows, 0);
    assert_int_equal(outer->rows, 42);
    assert_int_equal(outer->layer, 2);
    assert_int_equal(outer->micro, 1);
    assert_true(outer->begin_ns <= inner->begin_ns && inner->end_ns <= outer->end_ns);
    assert_int_equal(mt_record_rows(0)[2], 42);
    assert_int_equal(mt_record_rows(0)[1], 0);
}

/* Lower bounds from sleeping, upper bounds from the step: nothing depends on speed. */
static void waiting_is_no_time_of_experts(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(1);
    mt_record_set_layer(0);
    const int64_t begin_ns = mt_clock_ns();
    mt_span_begin(MT_PHASE_EXPERT);
    mt_clock_sleep_until_ns(begin_ns + 4 * MS);
    mt_span_add_wait_ns(3 * MS);
    mt_span_end(MT_PHASE_EXPERT);
    mt_record_step_end();
    mt_record_step_close();
    const struct mt_recorded_step *step = mt_record_step(0);
    assert_int_equal(step->wait_ns[MT_PHASE_EXPERT], 3 * MS);
    assert_int_equal(mt_record_expert_ns(0)[0], step->phase_ns[MT_PHASE_EXPERT] - 3 * MS);
    assert_true(step->phase_ns[MT_PHASE_EXPERT] >= 4 * MS);
    assert_true(step->phase_ns[MT_PHASE_EXPERT] <= step->end_ns - step->begin_ns);
}

static void what_follows_a_step_counts_as_checkpoint_metrics_or_evaluation(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(1);
    mt_span_begin(MT_PHASE_ATTENTION);
    mt_span_end(MT_PHASE_ATTENTION);
    mt_record_step_end();
    const int64_t begin_ns = mt_clock_ns();
    mt_span_begin(MT_PHASE_ATTENTION); /* of an evaluation */
    mt_clock_sleep_until_ns(begin_ns + MS);
    mt_span_end(MT_PHASE_ATTENTION);
    mt_span_begin(MT_PHASE_CHECKPOINT);
    mt_clock_sleep_until_ns(begin_ns + 2 * MS);
    mt_span_end(MT_PHASE_CHECKPOINT);
    mt_record_step_begin(2); /* closes step 1 */
    const struct mt_recorded_step *step = mt_record_step(0);
    assert_int_equal(mt_record_n_step(), 1);
    assert_true(step->phase_ns[MT_PHASE_EVAL] >= MS / 2);
    assert_true(step->phase_ns[MT_PHASE_CHECKPOINT] > 0);
    assert_true(step->phase_ns[MT_PHASE_ATTENTION] < step->end_ns - step->begin_ns);
    assert_true(step->phase_ns[MT_PHASE_EVAL] + step->phase_ns[MT_PHASE_CHECKPOINT] <=
                step->until_ns - step->end_ns);
}

static void arrivals_know_where_the_rank_was_busy(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(1);
    const int64_t begin_ns = mt_clock_ns();
    mt_span_begin(MT_PHASE_EXPERT);
    mt_clock_sleep_until_ns(begin_ns + 3 * MS);
    mt_span_end(MT_PHASE_EXPERT);
    mt_span_begin(MT_PHASE_COMBINE);
    const int64_t first = arrive("alltoallv", 5);
    mt_clock_sleep_until_ns(mt_clock_ns() + MS);
    const int64_t second = arrive("reduce", 6);
    mt_span_end(MT_PHASE_COMBINE);
    assert_int_equal(mt_record_arrival_at(first)->phase, MT_PHASE_COMBINE);
    assert_int_equal(mt_record_arrival_at(first)->busy_phase, MT_PHASE_EXPERT);
    assert_int_equal(mt_record_arrival_at(second)->busy_phase, MT_PHASE_COMBINE);
    assert_string_equal(mt_record_kind(mt_record_arrival_at(second)->kind), "reduce");
    assert_int_equal(arrive("alltoallv", 7), 2);
    assert_int_equal(mt_record_n_kind(), 2);
}

/* A GPU's events are read when the host is long elsewhere. */
static void what_a_device_times_is_told_later(void **state)
{
    MT_UNUSED(state);
    mt_record_step_begin(1);
    mt_record_set_layer(2);
    mt_span_begin(MT_PHASE_EXPERT);
    const int64_t first = mt_record_device_begin(MT_PHASE_EXPERT, 30, 0);
    const int64_t second = mt_record_device_begin(MT_PHASE_ATTENTION, 0, 0);
    const int64_t third = mt_record_device_begin(MT_PHASE_EXPERT, 0, 0);
    mt_span_end(MT_PHASE_EXPERT);
    mt_record_step_end();
    mt_record_step_begin(2);
    mt_record_set_layer(0);
    mt_record_device_end(second, 5 * MS, 6 * MS); /* in any order, and the third never */
    mt_record_device_end(first, 3 * MS, 5 * MS);
    const struct mt_recorded_step *step = mt_record_step(0);
    const struct mt_recorded_span *span = mt_record_span_at(first);
    assert_int_equal(step->end_span - step->first_span, 4);
    assert_int_equal(span->track, MT_TRACK_DEVICE);
    assert_int_equal(span->layer, 2);
    assert_int_equal(span->rows, 30);
    assert_true(span->begin_ns == 3 * MS && span->end_ns == 5 * MS);
    assert_int_equal(mt_record_span_at(third)->end_ns, 0);
    assert_int_equal(mt_record_span_at(third + 1)->track, MT_TRACK_COMPUTE);
    mt_record_pause(true);
    assert_int_equal(mt_record_device_begin(MT_PHASE_GATE, 0, 0), -1);
    mt_record_pause(false);
    mt_record_device_end(-1, 0, MS);
    for (int i = 0; i < MT_RECORD_SPANS; ++i) {
        (void)mt_record_device_begin(MT_PHASE_GATE, 0, 0);
    }
    mt_record_device_end(third, MS, 2 * MS); /* forgotten: no harm */
}

static void rings_forget_the_oldest_and_never_allocate(void **state)
{
    MT_UNUSED(state);
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_record_step_begin(1);
    for (int64_t i = 0; i < MT_RECORD_ARRIVALS + 10; ++i) {
        mt_span_begin(i % 2 == 0 ? MT_PHASE_GATE : MT_PHASE_EXPERT);
        (void)arrive("alltoallv", i);
        mt_span_end(i % 2 == 0 ? MT_PHASE_GATE : MT_PHASE_EXPERT);
    }
    assert_null(mt_record_arrival_at(9));
    assert_int_equal(mt_record_arrival_at(10)->number, 10);
    assert_null(mt_record_arrival_at(MT_RECORD_ARRIVALS + 10));
    assert_null(mt_record_span_at(9));
    assert_non_null(mt_record_span_at(10));
    mt_record_done(3); /* forgotten: no harm */
    mt_record_need(-1, 1);
    for (int64_t number = 2; number < MT_RECORD_STEPS + 9; ++number) {
        mt_record_step_begin(number);
        mt_record_step_end();
    }
    mt_record_step_close();
    assert_int_equal(mt_record_n_step() - mt_record_first_step(), MT_RECORD_STEPS);
    assert_int_equal(mt_record_step(mt_record_first_step())->number, 9);
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
}

static void nothing_is_recorded_while_off_or_paused(void **state)
{
    MT_UNUSED(state);
    mt_record_pause(true);
    assert_int_equal(arrive("clocks", 1), -1);
    mt_record_pause(false);
    mt_record_close();
    assert_int_equal(arrive("alltoallv", 1), -1);
    mt_record_step_begin(1);
    mt_record_step_end();
    assert_int_equal(mt_record_n_step(), 0);
    mt_span_begin(MT_PHASE_GATE);
    mt_record_add_rows(0, 3);
    mt_span_end(MT_PHASE_GATE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_record, close_record)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(spans_carry_their_place_and_their_rows),
        TEST(waiting_is_no_time_of_experts),
        TEST(what_follows_a_step_counts_as_checkpoint_metrics_or_evaluation),
        TEST(arrivals_know_where_the_rank_was_busy),
        TEST(what_a_device_times_is_told_later),
        TEST(rings_forget_the_oldest_and_never_allocate),
        TEST(nothing_is_recorded_while_off_or_paused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
