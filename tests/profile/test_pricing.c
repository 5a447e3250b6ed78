/* What a finding says it costs is what is gained without it: set against worlds in which it is
 * gone. */
#include "base/memory.h"
#include "made_run.h"
#include "profile/pricing.h"
#include "support/test.h"

#include <math.h>

enum { N_STEP = 40 };

static struct made_run usual_run(void)
{
    struct made_run run = made_run_plain();
    run.n_rank = 5;
    run.n_step = N_STEP;
    run.jitter = 0.02;
    run.traced_from = N_STEP - 8; /* most steps tell their longest phases only */
    return run;
}

static double step_ns(const struct made_run *run)
{
    struct mt_profile profile;
    assert_int_equal(made_run_profile(run, &profile), MT_OK);
    const double ns = made_run_step_ns(&profile, 0, N_STEP);
    mt_profile_clear(&profile);
    return ns;
}

/* Findings of the run after pricing, of which the last max_step steps are replayed. */
static void price(const struct made_run *run, int max_step, struct mt_analysis *analysis)
{
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    assert_int_equal(made_run_profile(run, &profile), MT_OK);
    MT_TEST_OK(mt_analysis_make(&profile, 0, profile.n_step, analysis));
    MT_TEST_OK(mt_replay_create(&profile, max_step, &replay));
    MT_TEST_OK(mt_findings_price(&profile, replay, analysis));
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

static void expect_price(const struct made_run *run, const struct made_run *without, int rank,
                         enum mt_cause cause)
{
    const double gain = 1 - step_ns(without) / step_ns(run);
    struct mt_analysis analysis;
    price(run, N_STEP, &analysis);
    assert_true(analysis.n_finding > 0);
    assert_int_equal(analysis.finding[0].rank, rank);
    assert_int_equal(analysis.finding[0].cause, cause);
    if (fabs(analysis.finding[0].share - gain) > 0.01) {
        fail_msg("%s of rank %d is said to cost %.3f, and costs %.3f", mt_cause_name(cause), rank,
                 analysis.finding[0].share, gain);
    }
    mt_analysis_clear(&analysis);
    assert_int_equal(mt_memory_n_live(), 0);
}

static void a_slow_device_costs_what_is_gained_without_it(void **state)
{
    MT_UNUSED(state);
    const double factor[] = {1.1, 1.5, 3};
    for (int i = 0; i < 3; ++i) {
        const struct made_run without = usual_run();
        struct made_run run = usual_run();
        run.slow_rank = i;
        run.slowdown = factor[i];
        expect_price(&run, &without, i, MT_CAUSE_SLOW_DEVICE);
    }
}

static void too_many_rows_cost_what_is_gained_at_the_mean(void **state)
{
    MT_UNUSED(state);
    const struct made_run without = usual_run();
    struct made_run run = usual_run();
    run.hot_rank = 4;
    run.hot = 1.8;
    expect_price(&run, &without, 4, MT_CAUSE_ROUTING_LOAD);
}

/* With and without several micro-batches, each of which reads its own. */
static void late_data_cost_what_is_gained_without_them(void **state)
{
    MT_UNUSED(state);
    for (int n_micro = 1; n_micro <= 3; ++n_micro) {
        struct made_run without = usual_run();
        without.n_micro = n_micro;
        struct made_run run = without;
        run.late_rank = 3;
        run.late_ns = 2000000;
        expect_price(&run, &without, 3, MT_CAUSE_LATE_DATA);
    }
}

static void a_stall_of_a_save_costs_what_is_gained_without_it(void **state)
{
    MT_UNUSED(state);
    struct made_run run = usual_run();
    struct made_run without = usual_run();
    run.checkpoint_every = 10;
    run.stalled_rank = 1;
    run.stall_ns = 60000000;
    expect_price(&run, &without, 1, MT_CAUSE_CHECKPOINT);
}

/* Every rank reads as late as the others: one finding, not one a rank. */
static void what_stops_every_rank_is_found_once(void **state)
{
    MT_UNUSED(state);
    struct made_run run = usual_run();
    struct mt_analysis analysis;
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    for (int s = 0; s < profile.n_step; ++s) {
        for (int r = 0; r < profile.n_rank; ++r) {
            struct mt_profile_step *step = mt_profile_step(&profile, s, r);
            step->phase_ns[MT_PHASE_DATA] += 3000000 + 600000 * (r % 2);
            step->collective[0].busy_phase = MT_PHASE_DATA;
        }
    }
    MT_TEST_OK(mt_analysis_make(&profile, 0, profile.n_step, &analysis));
    assert_int_equal(analysis.n_finding, 1);
    analysis.finding[1] = analysis.finding[0]; /* another that was a little late as well */
    analysis.finding[1].rank = (analysis.finding[0].rank + 1) % run.n_rank;
    analysis.n_finding = 2;
    MT_TEST_OK(mt_replay_create(&profile, N_STEP, &replay));
    MT_TEST_OK(mt_findings_price(&profile, replay, &analysis));
    assert_int_equal(analysis.n_finding, 1);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_LATE_DATA);
    assert_true(analysis.finding[0].is_everybodys);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
    mt_analysis_clear(&analysis);
}

/* One without the other gains nothing. */
static void equally_slow_ranks_share_what_both_cost(void **state)
{
    MT_UNUSED(state);
    struct mt_analysis analysis;
    struct made_run run = usual_run();
    const struct made_run without = run;
    run.slow_rank = 1;
    run.also_slow_rank = 3;
    run.slowdown = 1.5;
    const double gain = 1 - step_ns(&without) / step_ns(&run);
    price(&run, N_STEP, &analysis);
    assert_true(analysis.n_finding >= 2);
    assert_int_equal(analysis.finding[0].rank + analysis.finding[1].rank, 4);
    assert_true(fabs(analysis.finding[0].share + analysis.finding[1].share - gain) < 0.03);
    assert_true(fabs(analysis.finding[0].share - analysis.finding[1].share) < 0.05);
    mt_analysis_clear(&analysis);
}

/* Slow in the second half only, and only the last quarter is replayed. */
static void what_was_not_replayed_is_carried_over(void **state)
{
    MT_UNUSED(state);
    struct mt_analysis analysis;
    struct made_run run = usual_run();
    const struct made_run without = run;
    run.slow_rank = 2;
    run.slowdown = 1.5;
    run.slow_from = N_STEP / 2;
    const double gain = 1 - step_ns(&without) / step_ns(&run);
    price(&run, N_STEP / 4, &analysis);
    assert_int_equal(analysis.finding[0].rank, 2);
    assert_true(fabs(analysis.finding[0].share - gain) < 0.02);
    mt_analysis_clear(&analysis);
}

static void nothing_is_priced_where_nothing_was_replayed(void **state)
{
    MT_UNUSED(state);
    struct mt_analysis analysis;
    struct made_run run = usual_run();
    run.detailed_from = N_STEP;
    run.traced_from = N_STEP;
    price(&run, N_STEP, &analysis);
    assert_int_equal(analysis.n_finding, 0);
    mt_analysis_clear(&analysis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_device_costs_what_is_gained_without_it),
        cmocka_unit_test(too_many_rows_cost_what_is_gained_at_the_mean),
        cmocka_unit_test(late_data_cost_what_is_gained_without_them),
        cmocka_unit_test(a_stall_of_a_save_costs_what_is_gained_without_it),
        cmocka_unit_test(what_stops_every_rank_is_found_once),
        cmocka_unit_test(equally_slow_ranks_share_what_both_cost),
        cmocka_unit_test(what_was_not_replayed_is_carried_over),
        cmocka_unit_test(nothing_is_priced_where_nothing_was_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
