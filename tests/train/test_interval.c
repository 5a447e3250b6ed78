/* When a run saves: at its interval, and less often where saving costs more than it may. */
#include "support/test.h"
#include "train/interval.h"

enum { N_STEP = 4000 };

static struct mt_interval interval;

static void init(int64_t steps, double percent)
{
    static struct mt_config config;
    config.checkpoint.interval = steps;
    config.checkpoint.max_overhead_percent = percent;
    mt_interval_init(&interval, &config, 0);
}

/* Steps of 1 s, saves that cost `cost_s`; the number of saves, and in *last_gap the last distance
 * of two. */
static int run(double cost_s, int64_t *last_gap)
{
    int n_save = 0;
    int64_t last = 0;
    double owed_s = 0;
    for (int64_t step = 1; step <= N_STEP; ++step) {
        mt_interval_add_step(&interval, 1.0, owed_s);
        owed_s = 0;
        if (mt_interval_is_due(&interval, step)) {
            mt_interval_begin_save(&interval, step);
            owed_s = cost_s;
            *last_gap = step - last;
            last = step;
            ++n_save;
        }
    }
    return n_save;
}

static void without_a_limit_every_interval_is_saved(void **state)
{
    MT_UNUSED(state);
    int64_t gap = 0;
    init(50, 0.0);
    assert_int_equal(run(1000.0, &gap), N_STEP / 50);
    assert_int_equal(gap, 50);
}

static void cheap_saves_keep_their_interval(void **state)
{
    MT_UNUSED(state);
    int64_t gap = 0;
    init(50, 1.0);
    assert_int_equal(run(0.5, &gap), N_STEP / 50);
    assert_int_equal(gap, 50);
}

static void dear_saves_are_rarer_by_a_power_of_two_and_cost_no_more_than_they_may(void **state)
{
    MT_UNUSED(state);
    int64_t gap = 0;
    init(50, 1.0);
    const int n_save = run(3.0, &gap); /* one in 300 steps would be 1 %: 400 is the next */
    assert_int_equal(gap, 400);
    assert_true(n_save * 3.0 <= 0.01 * N_STEP + 3.0); /* the first was not known to be dear */
}

static void without_an_interval_the_limit_alone_decides(void **state)
{
    MT_UNUSED(state);
    int64_t gap = 0;
    init(0, 2.0);
    (void)run(1.0, &gap);
    assert_int_equal(gap, 64); /* 50 steps would be 2 % */
    init(0, 0.0);
    assert_int_equal(run(1.0, &gap), 0);
}

static void a_stop_in_between_does_not_shift_the_multiples(void **state)
{
    MT_UNUSED(state);
    init(10, 0.0);
    mt_interval_begin_save(&interval, 13);
    assert_false(mt_interval_is_due(&interval, 19));
    assert_true(mt_interval_is_due(&interval, 20));
}

static void a_run_that_went_back_saves_the_steps_again(void **state)
{
    MT_UNUSED(state);
    init(10, 0.0);
    mt_interval_begin_save(&interval, 50); /* which failed, and 40 was damaged: back to 30 */
    int n_due = 0;
    for (int64_t step = 31; step <= 50; ++step) {
        n_due += mt_interval_is_due(&interval, step);
    }
    assert_int_equal(n_due, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_every_interval_is_saved),
        cmocka_unit_test(cheap_saves_keep_their_interval),
        cmocka_unit_test(dear_saves_are_rarer_by_a_power_of_two_and_cost_no_more_than_they_may),
        cmocka_unit_test(without_an_interval_the_limit_alone_decides),
        cmocka_unit_test(a_stop_in_between_does_not_shift_the_multiples),
        cmocka_unit_test(a_run_that_went_back_saves_the_steps_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
