/* Learning rates against values worked out by hand, and the clip factor. */
#include "optim/optim.h"
#include "support/test.h"

#include <math.h>

static struct mt_config config_of(enum mt_schedule_kind kind, int64_t warmup, int64_t decay,
                                  int64_t steps)
{
    static struct mt_config config;
    config.optimizer.lr = 0.01;
    config.schedule.kind = kind;
    config.schedule.warmup_steps = warmup;
    config.schedule.decay_steps = decay;
    config.schedule.min_lr_ratio = 0.1;
    config.train.steps = steps;
    return config;
}

static void check(const struct mt_config *config, int64_t step, double want)
{
    const double got = mt_schedule_lr(config, step);
    if (fabs(got - want) > 1e-15) {
        fail_msg("step %lld: got %.17g, want %.17g", (long long)step, got, want);
    }
}

static void warm_up_is_linear_from_the_first_step(void **state)
{
    MT_UNUSED(state);
    for (int kind = MT_SCHEDULE_COSINE; kind <= MT_SCHEDULE_CONSTANT; ++kind) {
        const struct mt_config config = config_of((enum mt_schedule_kind)kind, 4, 100, 104);
        check(&config, 1, 0.0025);
        check(&config, 2, 0.005);
        check(&config, 3, 0.0075);
        check(&config, 4, 0.01);
    }
}

static void cosine_falls_to_the_floor_over_decay_steps(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_COSINE, 10, 90, 100);
    check(&config, 10, 0.01);
    check(&config, 40, 0.01 * (0.1 + 0.9 * 0.75)); /* a third: cos 60 degrees */
    check(&config, 55, 0.01 * 0.55);               /* half way */
    check(&config, 70, 0.01 * (0.1 + 0.9 * 0.25));
    check(&config, 100, 0.001);
    check(&config, 101, 0.001);
    check(&config, 100000, 0.001);
}

static void cosine_may_end_before_the_run(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_COSINE, 0, 20, 100);
    check(&config, 10, 0.0055);
    check(&config, 20, 0.001);
    check(&config, 60, 0.001);
}

static void linear_falls_evenly(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_LINEAR, 0, 9, 9);
    for (int64_t step = 1; step <= 9; ++step) {
        check(&config, step, 0.01 - 0.001 * (double)step);
    }
    check(&config, 10, 0.001);
}

static void wsd_is_constant_then_falls_over_the_last_steps(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_WSD, 10, 20, 100);
    check(&config, 11, 0.01);
    check(&config, 80, 0.01);
    check(&config, 90, 0.0055);
    check(&config, 100, 0.001);
    check(&config, 120, 0.001);
}

static void wsd_with_the_default_decay_is_linear(void **state)
{
    MT_UNUSED(state);
    const struct mt_config wsd = config_of(MT_SCHEDULE_WSD, 10, 90, 100);
    const struct mt_config linear = config_of(MT_SCHEDULE_LINEAR, 10, 90, 100);
    for (int64_t step = 1; step <= 110; ++step) {
        check(&wsd, step, mt_schedule_lr(&linear, step));
    }
}

static void constant_stays(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_CONSTANT, 0, 100, 100);
    check(&config, 1, 0.01);
    check(&config, 1000, 0.01);
}

/* A run that is all warm-up has no steps left to decay in. */
static void no_decay_steps_mean_the_floor_after_warm_up(void **state)
{
    MT_UNUSED(state);
    const struct mt_config config = config_of(MT_SCHEDULE_COSINE, 10, 0, 10);
    check(&config, 10, 0.01);
    check(&config, 11, 0.001);
}

static void a_learning_rate_of_zero_stays_zero(void **state)
{
    MT_UNUSED(state);
    struct mt_config config = config_of(MT_SCHEDULE_COSINE, 2, 8, 10);
    config.optimizer.lr = 0.0;
    for (int64_t step = 1; step <= 12; ++step) {
        check(&config, step, 0.0);
    }
}

static void clipping_shrinks_only_what_is_too_long(void **state)
{
    MT_UNUSED(state);
    struct mt_config config = config_of(MT_SCHEDULE_CONSTANT, 0, 1, 1);
    config.optimizer.grad_clip = 2.0;
    assert_true(mt_optim_clip_factor(&config, 8.0) == 0.25);
    assert_true(mt_optim_clip_factor(&config, 2.0) == 1.0);
    assert_true(mt_optim_clip_factor(&config, 0.5) == 1.0);
    assert_true(mt_optim_clip_factor(&config, 0.0) == 1.0);
    config.optimizer.grad_clip = 0.0;
    assert_true(mt_optim_clip_factor(&config, 1e30) == 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_is_linear_from_the_first_step),
        cmocka_unit_test(cosine_falls_to_the_floor_over_decay_steps),
        cmocka_unit_test(cosine_may_end_before_the_run),
        cmocka_unit_test(linear_falls_evenly),
        cmocka_unit_test(wsd_is_constant_then_falls_over_the_last_steps),
        cmocka_unit_test(wsd_with_the_default_decay_is_linear),
        cmocka_unit_test(constant_stays),
        cmocka_unit_test(no_decay_steps_mean_the_floor_after_warm_up),
        cmocka_unit_test(a_learning_rate_of_zero_stays_zero),
        cmocka_unit_test(clipping_shrinks_only_what_is_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
