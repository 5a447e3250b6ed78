/* The replay against worlds that were made: with another speed, other rows, free messages. */
#include "base/memory.h"
#include "made_run.h"
#include "profile/replay.h"
#include "support/test.h"

#include <math.h>

/* Relative error of the replay with a change against a world in which it is so. */
static double error_against(const struct made_run *run, const struct mt_change *change,
                            const struct made_run *truth)
{
    struct mt_profile profile;
    struct mt_profile true_profile;
    struct mt_replay *replay = NULL;
    assert_int_equal(made_run_profile(run, &profile), MT_OK);
    assert_int_equal(made_run_profile(truth, &true_profile), MT_OK);
    assert_int_equal(mt_replay_create(&profile, 1000, &replay), MT_OK);
    const int n = mt_replay_n_step(replay);
    assert_true(n > 0);
    const double want_ns = made_run_step_ns(&true_profile, mt_replay_step(replay, 0), n);
    const double got_ns = mt_replay_run(replay, change);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
    mt_profile_clear(&true_profile);
    assert_int_equal(mt_memory_n_live(), 0);
    return fabs(got_ns / want_ns - 1);
}

static void nothing_changed_gives_what_was_measured(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 66; n_rank = n_rank < 6 ? n_rank + 1 : n_rank + 61) {
        struct made_run run = made_run_plain();
        run.n_rank = n_rank;
        run.n_node = 2;
        run.slow_rank = n_rank / 2;
        run.slowdown = 1.5;
        run.has_copies = true;
        assert_true(error_against(&run, &(struct mt_change){.kind = MT_CHANGE_NOTHING}, &run) <
                    1e-3);
        run.jitter = 0.2;
        assert_true(error_against(&run, &(struct mt_change){.kind = MT_CHANGE_NOTHING}, &run) <
                    1e-3);
        const struct mt_change model = {.kind = MT_CHANGE_OTHER_TRANSFERS};
        const double error = error_against(&run, &model, &run);
        assert_true(error < 0.02);
        assert_true(n_rank == 1 || error > 0); /* it knows less than what was measured */
    }
}

static void a_slow_rank_made_median_gives_the_run_without_it(void **state)
{
    MT_UNUSED(state);
    const double factor[] = {1.05, 1.1, 1.2, 1.5, 4};
    for (int i = 0; i < 5; ++i) {
        for (int n_rank = 2; n_rank <= 5; ++n_rank) {
            struct made_run run = made_run_plain();
            run.n_rank = n_rank;
            run.has_copies = true;
            run.slow_rank = n_rank - 1;
            run.slowdown = factor[i];
            struct made_run truth = run;
            truth.slow_rank = -1;
            const struct mt_change change = {.kind = MT_CHANGE_RANK, .rank = run.slow_rank};
            assert_true(error_against(&run, &change, &truth) < 0.005);
            run.jitter = 0.1;
            truth.jitter = 0.1;
            assert_true(error_against(&run, &change, &truth) < 0.03);
        }
    }
}

/* Ranks that only send to the slow one have no source to wait for, and wait for it all the same. */
static void who_sends_to_a_slow_rank_waits_until_it_receives(void **state)
{
    MT_UNUSED(state);
    for (int owner = 0; owner < 4; ++owner) {
        struct made_run run = made_run_plain();
        run.n_layer = 1; /* a step ends with the gradients of one layer */
        run.owner = owner;
        run.slow_rank = 2;
        run.slowdown = 1.5;
        struct made_run truth = run;
        truth.slow_rank = -1;
        const struct mt_change change = {.kind = MT_CHANGE_RANK, .rank = 2};
        assert_true(error_against(&run, &change, &truth) < 0.005);
    }
}

static void without_spans_gaps_count_as_their_longest_phase(void **state)
{
    MT_UNUSED(state);
    struct made_run run = made_run_plain();
    run.slow_rank = 2;
    run.slowdown = 1.5;
    run.traced_from = run.n_step;
    struct made_run truth = run;
    truth.slow_rank = -1;
    const struct mt_change change = {.kind = MT_CHANGE_RANK, .rank = 2};
    assert_true(error_against(&run, &change, &truth) < 0.02);
}

static void balanced_experts_give_the_run_with_even_rows(void **state)
{
    MT_UNUSED(state);
    const double hot[] = {1.2, 2, 3.9, 4};
    for (int i = 0; i < 4; ++i) {
        struct made_run run = made_run_plain();
        run.hot_rank = 1;
        run.hot = hot[i]; /* 4 of 4: the others have no row */
        struct made_run truth = run;
        truth.hot_rank = -1;
        const struct mt_change change = {.kind = MT_CHANGE_EXPERTS};
        assert_true(error_against(&run, &change, &truth) < 0.03);
    }
}

static double gain_of(const struct mt_profile *profile, const struct mt_change *change)
{
    struct mt_replay *replay = NULL;
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    assert_int_equal(mt_replay_create(profile, 8, &replay), MT_OK);
    const double before_ns = mt_replay_run(replay, &nothing);
    const double gain = 1 - mt_replay_run(replay, change) / before_ns;
    mt_replay_destroy(replay);
    return gain;
}

static void a_change_helps_only_where_somebody_waits_for_it(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct made_run run = made_run_plain();
    run.slow_rank = 3;
    run.slowdown = 2;
    run.has_copies = true;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    /* who is faster than the slowest gains nothing; copies are hidden under attention */
    assert_true(gain_of(&profile, &(struct mt_change){MT_CHANGE_RANK, .rank = 0}) < 1e-6);
    assert_true(gain_of(&profile, &(struct mt_change){.kind = MT_CHANGE_COPIES}) < 1e-6);
    assert_true(gain_of(&profile, &(struct mt_change){MT_CHANGE_RANK, .rank = 3}) > 0.4);
    assert_true(
        gain_of(&profile, &(struct mt_change){MT_CHANGE_PHASE, .phase = MT_PHASE_ATTENTION}) > 0.1);
    assert_true(gain_of(&profile, &(struct mt_change){.kind = MT_CHANGE_TRANSFERS}) > 0.01);
    assert_true(gain_of(&profile, &(struct mt_change){.kind = MT_CHANGE_ALL_RANKS}) > 0.4);
    mt_profile_clear(&profile);
}

static void the_critical_path_is_as_long_as_the_steps_and_lies_on_the_slow_rank(void **state)
{
    MT_UNUSED(state);
    enum { N_SUM = 4 * (MT_N_PHASE + 1) };
    static int64_t work_ns[N_SUM];
    static int64_t transfer_ns[N_SUM];
    static struct mt_stretch path[1000];
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    struct made_run run = made_run_plain();
    run.slow_rank = 2;
    run.slowdown = 1.5;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_replay_create(&profile, 8, &replay), MT_OK);
    assert_int_equal(mt_replay_n_step(replay), 8);
    assert_int_equal(mt_replay_step(replay, 0), 4);
    const double step_ns = mt_replay_run(replay, &(struct mt_change){.kind = MT_CHANGE_NOTHING});
    mt_replay_critical_sums(replay, work_ns, transfer_ns);
    int64_t all_ns = 0;
    int64_t own_ns = 0;
    int64_t others_ns = 0;
    for (int i = 0; i < N_SUM; ++i) {
        all_ns += work_ns[i] + transfer_ns[i];
        own_ns += i / (MT_N_PHASE + 1) == 2 ? work_ns[i] : 0;
        others_ns += i / (MT_N_PHASE + 1) == 2 ? 0 : work_ns[i];
    }
    assert_true(fabs((double)all_ns / (8 * step_ns) - 1) < 1e-3);
    assert_true(own_ns > 9 * others_ns);
    const int64_t n = mt_replay_critical(replay, path, 1000);
    assert_true(n > 10 && n < 1000);
    for (int64_t i = 1; i < n; ++i) {
        assert_true(path[i].end_ns == path[i - 1].begin_ns); /* no gap */
    }
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

static void a_timeline_is_a_rank_s_whole_step(void **state)
{
    MT_UNUSED(state);
    static struct mt_stretch line[1000];
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    struct made_run run = made_run_plain();
    run.slow_rank = 2;
    run.slowdown = 1.5;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_replay_create(&profile, 2, &replay), MT_OK);
    const double step_ns = mt_replay_run(replay, &(struct mt_change){.kind = MT_CHANGE_NOTHING});
    for (int r = 0; r < 4; ++r) {
        int64_t kind_ns[3] = {0, 0, 0};
        const int64_t n = mt_replay_timeline(replay, r, line, 1000);
        assert_true(n > 10 && n < 1000);
        for (int64_t i = 0; i < n; ++i) {
            kind_ns[line[i].kind] += line[i].end_ns - line[i].begin_ns;
        }
        const double sum_ns = (double)(kind_ns[0] + kind_ns[1] + kind_ns[2]);
        assert_true(fabs(sum_ns / step_ns - 1) < 0.01);
        assert_true(r == 2 ? kind_ns[MT_STRETCH_WAIT] < kind_ns[MT_STRETCH_WORK] / 20
                           : kind_ns[MT_STRETCH_WAIT] > kind_ns[MT_STRETCH_WORK] / 5);
    }
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

/* What a GPU does under the host's work is no work of the host. */
static void spans_of_a_device_do_not_change_the_chain(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct made_run run = made_run_plain();
    const struct mt_change change = {.kind = MT_CHANGE_RANK, .rank = 1};
    run.slow_rank = 1;
    run.slowdown = 1.5;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    for (int s = 0; s < profile.n_step; ++s) {
        for (int r = 0; r < profile.n_rank; ++r) {
            struct mt_profile_step *step = mt_profile_step(&profile, s, r);
            for (int i = 2; i < step->n_span; i += 3) {
                const int64_t middle_ns =
                    (step->span[i - 1].begin_ns + step->span[i - 1].end_ns) / 2;
                step->span[i] = (struct mt_profile_span){.track = MT_TRACK_DEVICE,
                                                         .phase = MT_PHASE_HEAD,
                                                         .layer = -1,
                                                         .begin_ns = middle_ns,
                                                         .end_ns = step->span[i].end_ns};
            }
        }
    }
    const double with_device = gain_of(&profile, &change);
    for (int s = 0; s < profile.n_step; ++s) { /* as if they had not been recorded */
        for (int r = 0; r < profile.n_rank; ++r) {
            struct mt_profile_step *step = mt_profile_step(&profile, s, r);
            int n = 0;
            for (int i = 0; i < step->n_span; ++i) {
                if (step->span[i].track != MT_TRACK_DEVICE) {
                    step->span[n++] = step->span[i];
                }
            }
            step->n_span = n;
        }
    }
    assert_true(with_device == gain_of(&profile, &change));
    assert_true(with_device > 0);
    mt_profile_clear(&profile);
}

static void what_was_not_recorded_is_not_replayed(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    struct made_run run = made_run_plain();
    run.killed_rank = 1;
    run.killed_step = 9;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    mt_profile_step(&profile, 5, 0)->n_lost = 3;
    assert_int_equal(mt_replay_create(&profile, 6, &replay), MT_OK);
    assert_int_equal(mt_replay_n_step(replay), 6); /* 2, 3, 4, then 6, 7, 8 */
    assert_int_equal(mt_replay_step(replay, 0), 2);
    assert_int_equal(mt_replay_step(replay, 5), 8);
    const double want_ns =
        (made_run_step_ns(&profile, 2, 3) + made_run_step_ns(&profile, 6, 3)) / 2;
    assert_true(fabs(mt_replay_measured_ns(replay) / want_ns - 1) < 1e-9);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);

    run.detailed_from = run.n_step; /* sums only */
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_replay_create(&profile, 6, &replay), MT_OK);
    assert_int_equal(mt_replay_n_step(replay), 0);
    assert_true(mt_replay_run(replay, &(struct mt_change){.kind = MT_CHANGE_NOTHING}) == 0);
    assert_int_equal(mt_replay_critical(replay, NULL, 0), 0);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

static void a_rank_with_more_sequences_is_not_slow(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    struct made_run run = made_run_plain();
    run.slow_rank = 1;
    run.slowdown = 1.5;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    for (int s = 0; s < profile.n_step; ++s) {
        mt_profile_step(&profile, s, 1)->n_token *= 3;
        mt_profile_step(&profile, s, 1)->n_token /= 2;
        mt_profile_step(&profile, s, 2)->n_token /= 2; /* as long for half of the tokens */
    }
    assert_int_equal(mt_replay_create(&profile, 8, &replay), MT_OK);
    assert_true(fabs(mt_replay_slowness(replay, 1, MT_PHASE_ATTENTION) - 1) < 1e-6);
    assert_true(fabs(mt_replay_slowness(replay, 1, MT_PHASE_EXPERT) - 1.5) < 1e-6);
    assert_true(fabs(mt_replay_slowness(replay, 2, MT_PHASE_ATTENTION) - 2) < 1e-6);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

/* Sources are who sends something, at some time; who came after the wait was over cannot have been
 * needed for it. */
static void who_arrived_after_the_wait_was_not_needed(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    assert_int_equal(mt_profile_init(&profile, 2, 1, 1), MT_OK);
    for (int r = 0; r < 2; ++r) {
        struct mt_profile_step *step = mt_profile_step(&profile, 0, r);
        assert_int_equal(mt_profile_reserve_collectives(step, 1), MT_OK);
        step->is_there = true;
        step->until_ns = r == 0 ? 2000 : 1200;
        step->collective[0] = (struct mt_profile_collective){.phase = MT_PHASE_REDUCE,
                                                             .last_peer = -1,
                                                             .busy_phase = MT_PHASE_HEAD,
                                                             .layer = -1,
                                                             .begin_ns = r == 0 ? 10 : 1000,
                                                             .need_ns = r == 0 ? 20 : 1050,
                                                             .done_ns = r == 0 ? 100 : 1100,
                                                             .n_source = 1,
                                                             .sources = r == 0 ? 2 : 1};
    }
    assert_int_equal(mt_replay_create(&profile, 8, &replay), MT_OK);
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    assert_true(fabs(mt_replay_run(replay, &nothing) - 2000) < 1e-6);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

/* Each step a start of its own, whose collectives count from 24 again. */
static void starts_of_one_step_each_are_replayed_one_by_one(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    int64_t work_ns[4 * (MT_N_PHASE + 1)];
    int64_t transfer_ns[4 * (MT_N_PHASE + 1)];
    double sum_ns = 0;
    struct made_run run = made_run_plain();
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    for (int s = 0; s < profile.n_step; ++s) {
        const int64_t first = mt_profile_step(&profile, s, 0)->collective[0].number;
        for (int r = 0; r < profile.n_rank; ++r) {
            struct mt_profile_step *step = mt_profile_step(&profile, s, r);
            step->session = s + 1;
            for (int i = 0; i < step->n_collective; ++i) {
                step->collective[i].number += 24 - first;
            }
        }
    }
    mt_profile_step(&profile, 3, 1)->session = 77; /* its file lacks this start */
    assert_int_equal(mt_replay_create(&profile, 1000, &replay), MT_OK);
    assert_int_equal(mt_replay_n_step(replay), profile.n_step - 1);
    const double ns = mt_replay_run(replay, &nothing);
    assert_true(fabs(ns / mt_replay_measured_ns(replay) - 1) < 1e-3);
    mt_replay_critical_sums(replay, work_ns, transfer_ns);
    for (int i = 0; i < run.n_rank * (MT_N_PHASE + 1); ++i) {
        sum_ns += (double)(work_ns[i] + transfer_ns[i]);
    }
    assert_true(fabs(sum_ns / (profile.n_step - 1) / ns - 1) < 1e-2);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

/* Rank 0 waits for what rank 1 posts in its own wait for what rank 0 posts in that: no program can
 * do that, but a damaged file can say so. */
static void ranks_that_wait_for_one_another_come_to_an_end(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_replay *replay = NULL;
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    int64_t work_ns[2 * (MT_N_PHASE + 1)];
    int64_t transfer_ns[2 * (MT_N_PHASE + 1)];
    assert_int_equal(mt_profile_init(&profile, 2, 1, 1), MT_OK);
    for (int r = 0; r < 2; ++r) {
        struct mt_profile_step *step = mt_profile_step(&profile, 0, r);
        assert_int_equal(mt_profile_reserve_collectives(step, 2), MT_OK);
        step->is_there = true;
        step->until_ns = 2000;
        for (int i = 0; i < 2; ++i) {
            const bool waits = i == r;
            step->collective[i] = (struct mt_profile_collective){.number = i,
                                                                 .phase = MT_PHASE_REDUCE,
                                                                 .busy_phase = MT_PHASE_HEAD,
                                                                 .layer = -1,
                                                                 .last_peer = -1,
                                                                 .begin_ns = waits ? 50 : 500,
                                                                 .need_ns = waits ? 100 : 1000,
                                                                 .done_ns = 1000,
                                                                 .n_source = 1,
                                                                 .sources = r == 0 ? 2 : 1};
        }
    }
    assert_int_equal(mt_replay_create(&profile, 8, &replay), MT_OK);
    assert_int_equal(mt_replay_n_step(replay), 1);
    assert_true(mt_replay_run(replay, &nothing) > 0);
    mt_replay_critical_sums(replay, work_ns, transfer_ns);
    mt_replay_destroy(replay);
    mt_profile_clear(&profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changed_gives_what_was_measured),
        cmocka_unit_test(a_slow_rank_made_median_gives_the_run_without_it),
        cmocka_unit_test(who_sends_to_a_slow_rank_waits_until_it_receives),
        cmocka_unit_test(without_spans_gaps_count_as_their_longest_phase),
        cmocka_unit_test(balanced_experts_give_the_run_with_even_rows),
        cmocka_unit_test(a_change_helps_only_where_somebody_waits_for_it),
        cmocka_unit_test(the_critical_path_is_as_long_as_the_steps_and_lies_on_the_slow_rank),
        cmocka_unit_test(a_timeline_is_a_rank_s_whole_step),
        cmocka_unit_test(spans_of_a_device_do_not_change_the_chain),
        cmocka_unit_test(what_was_not_recorded_is_not_replayed),
        cmocka_unit_test(a_rank_with_more_sequences_is_not_slow),
        cmocka_unit_test(who_arrived_after_the_wait_was_not_needed),
        cmocka_unit_test(starts_of_one_step_each_are_replayed_one_by_one),
        cmocka_unit_test(ranks_that_wait_for_one_another_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
