/* The analysis against simulated runs whose causes are known. */
#include "support/test.h"

#include "base/memory.h"
#include "base/random.h"
#include "profile/analysis.h"
#include "profile/synthetic.h"

#include <math.h>
#include <string.h>

/* The caller clears both. */
static void study(const struct synth *synth, struct mt_profile *profile,
                  struct mt_analysis *analysis)
{
    synth_make(synth, profile);
    MT_TEST_OK(mt_analysis_make(profile, 0, profile->n_step, analysis));
}

static void clear(struct mt_profile *profile, struct mt_analysis *analysis)
{
    mt_analysis_clear(analysis);
    mt_profile_clear(profile);
    assert_int_equal(mt_memory_n_live(), 0);
}

static bool finds(const struct synth *synth, int rank, enum mt_cause cause)
{
    struct mt_profile profile;
    struct mt_analysis analysis;
    study(synth, &profile, &analysis);
    const bool is_right = analysis.n_finding > 0 && analysis.finding[0].rank == rank &&
                          analysis.finding[0].cause == cause;
    if (!is_right && analysis.n_finding > 0) {
        print_message("seed %llu: rank %d %s %.1f %%, slowdown of %d: %.3f\n",
                      (unsigned long long)synth->seed, analysis.finding[0].rank,
                      mt_cause_name(analysis.finding[0].cause), 100 * analysis.finding[0].share,
                      rank, analysis.slowdown[rank]);
    }
    clear(&profile, &analysis);
    return is_right;
}

static struct synth random_world(uint64_t seed)
{
    struct synth synth = synth_usual(seed);
    synth.n_rank = 2 + (int)(mt_random_u64(seed, 7, 0) % 15);
    synth.n_layer = 1 + (int)(mt_random_u64(seed, 7, 1) % 4);
    synth.victim = (int)(mt_random_u64(seed, 7, 2) % (uint64_t)synth.n_rank);
    synth.noise = 0.03;
    synth.hiccup = 0.02;
    synth.row_noise = 0.02;
    return synth;
}

static void a_slow_device_is_found_in_noise(void **state)
{
    MT_UNUSED(state);
    static const double slowdown[] = {1.1, 1.2, 1.5};
    int n_wrong = 0;
    for (uint64_t seed = 1; seed <= 120; ++seed) {
        struct synth synth = random_world(seed);
        synth.slowdown = slowdown[seed % 3];
        n_wrong += finds(&synth, synth.victim, MT_CAUSE_SLOW_DEVICE) ? 0 : 1;
    }
    assert_true(n_wrong <= 1);
}

static void more_rows_are_no_slow_device(void **state)
{
    MT_UNUSED(state);
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        struct synth synth = random_world(seed);
        synth.skew = 1.3 + 0.1 * (double)(seed % 5);
        assert_true(finds(&synth, synth.victim, MT_CAUSE_ROUTING_LOAD));
    }
}

/* The line through rows and time must not be bent by the one that is slow. */
static void a_slow_device_with_fewer_rows_is_still_slow(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(5);
    struct mt_profile profile;
    struct mt_analysis analysis;
    synth.victim = 2;
    synth.slowdown = 1.4;
    synth.skew = 0.8;
    synth.row_noise = 0.1;
    study(&synth, &profile, &analysis);
    assert_int_equal(analysis.finding[0].rank, 2);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    assert_true(fabs(analysis.slowdown[2] - 1.4) < 0.03);
    assert_true(fabs(analysis.row_ns - 3000) < 150);
    assert_int_equal(analysis.finding[0].persistence, MT_PERMANENT);
    clear(&profile, &analysis);
}

static void clean_runs_have_no_finding(void **state)
{
    MT_UNUSED(state);
    for (uint64_t seed = 1; seed <= 200; ++seed) {
        struct synth synth = random_world(seed);
        struct mt_profile profile;
        struct mt_analysis analysis;
        synth.victim = -1;
        study(&synth, &profile, &analysis);
        assert_int_equal(analysis.n_finding, 0);
        clear(&profile, &analysis);
    }
}

/* A machine on which chance often costs more than the slow device does. */
static void a_slow_device_is_found_where_chance_costs_more(void **state)
{
    MT_UNUSED(state);
    int n_wrong = 0;
    for (uint64_t seed = 1; seed <= 60; ++seed) {
        struct synth synth = random_world(seed);
        synth.slowdown = 1.2;
        synth.noise = 0.1;
        synth.hiccup = 0.1;
        synth.tail = 1.2;
        n_wrong += finds(&synth, synth.victim, MT_CAUSE_SLOW_DEVICE) ? 0 : 1;
    }
    if (n_wrong > 3) {
        fail_msg("%d of 60 slow devices were not found", n_wrong);
    }
}

/* Rows that scatter by 10 %, and a machine on which every fifth piece of work is held up; or every
 * twentieth, by any time. */
static void no_rank_is_named_for_what_any_rank_has_at_times(void **state)
{
    MT_UNUSED(state);
    for (uint64_t seed = 1; seed <= 120; ++seed) {
        struct synth synth = random_world(seed);
        struct mt_profile profile;
        struct mt_analysis analysis;
        synth.victim = -1;
        synth.row_noise = seed % 2 == 0 ? 0.02 : 0.1;
        synth.hiccup = seed % 2 == 0 ? 0.05 : 0.2;
        synth.tail = seed % 2 == 0 ? 1.5 : 0;
        study(&synth, &profile, &analysis);
        if (analysis.n_finding > 0) {
            fail_msg("seed %llu: rank %d %s %.1f %%, noise %.1f %%", (unsigned long long)seed,
                     analysis.finding[0].rank, mt_cause_name(analysis.finding[0].cause),
                     100 * analysis.finding[0].share, 100 * analysis.noise_share);
        }
        clear(&profile, &analysis);
    }
}

static void late_data_saves_and_links_are_told_apart(void **state)
{
    MT_UNUSED(state);
    struct synth synth = random_world(11);
    synth.n_rank = 5; /* not a power of two */
    synth.victim = 3;
    synth.data_ns = 4000000;
    assert_true(finds(&synth, 3, MT_CAUSE_LATE_DATA));
    synth = random_world(12);
    synth.victim = 0;
    synth.save_ns = 50000000;
    assert_true(finds(&synth, 0, MT_CAUSE_CHECKPOINT));
    synth.save_ns = 1000000;
    synth.stall_ns = 50000000; /* and one of them alone */
    assert_true(finds(&synth, 0, MT_CAUSE_CHECKPOINT));
    synth = random_world(13);
    synth.n_rank = 6;
    synth.victim = 4;
    synth.link_ns = 1000000;
    assert_true(finds(&synth, 4, MT_CAUSE_COMMUNICATION));
}

/* The finding about messages between nodes; -1, -1: there is none. */
static void expect_link(const struct synth *synth, int node, int to_node)
{
    struct mt_profile profile;
    struct mt_analysis analysis;
    study(synth, &profile, &analysis);
    if (node < 0) {
        assert_int_equal(analysis.n_finding, 0);
    } else {
        assert_true(analysis.n_finding > 0);
        assert_int_equal(analysis.finding[0].cause, MT_CAUSE_COMMUNICATION);
        assert_int_equal(analysis.finding[0].node, node);
        assert_int_equal(analysis.finding[0].to_node, to_node);
        assert_int_equal(profile.rank[analysis.finding[0].rank].node, node);
        assert_int_equal(analysis.finding[0].persistence, MT_PERMANENT);
    }
    clear(&profile, &analysis);
}

static void a_slow_node_and_a_slow_link_are_named(void **state)
{
    MT_UNUSED(state);
    for (int n_node = 2; n_node <= 5; ++n_node) {
        for (int n_rank = n_node; n_rank <= 11; n_rank += 3) { /* often not as many on each */
            struct synth synth = synth_usual((uint64_t)(n_node * 100 + n_rank));
            synth.n_rank = n_rank;
            synth.n_node = n_node;
            expect_link(&synth, -1, -1);
            synth.slow_node = n_node - 1;
            synth.slow_ns = 2000000;
            expect_link(&synth, n_node > 2 ? n_node - 1 : -1, -1);
            synth.slow_node = 1;
            synth.slow_to = n_node - 1;
            if (n_node > 3) {
                expect_link(&synth, 1, n_node - 1);
            }
        }
    }
}

/* Rank 1 is slow; the others wait for it through one another only. */
static void inherited_lateness_is_blamed_on_its_origin(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(3);
    struct mt_profile profile;
    struct mt_analysis analysis;
    synth.n_rank = 6;
    synth.is_pairwise = true;
    synth.noise = 0;
    synth.victim = 1;
    synth.slowdown = 1.5;
    study(&synth, &profile, &analysis);
    assert_int_equal(analysis.finding[0].rank, 1);
    for (int r = 0; r < synth.n_rank; ++r) {
        assert_true(analysis.wait_ns[r] >= 0);
        assert_true(r == 1 || analysis.caused_ns[r] * 20 < analysis.caused_ns[1]);
    }
    clear(&profile, &analysis);
}

/* Wait and blame are two ways to count the same time. */
static void all_waiting_is_blamed_on_somebody(void **state)
{
    MT_UNUSED(state);
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        struct synth synth = random_world(seed);
        struct mt_profile profile;
        struct mt_analysis analysis;
        double wait = 0;
        double caused = 0;
        double phases = 0;
        double layers = 0;
        study(&synth, &profile, &analysis);
        for (int r = 0; r < synth.n_rank; ++r) {
            wait += (double)analysis.wait_ns[r];
            caused += (double)analysis.caused_ns[r];
            for (int p = 0; p <= MT_N_PHASE; ++p) {
                phases += (double)analysis.caused_by_phase_ns[r * (MT_N_PHASE + 1) + p];
            }
            for (int l = 0; l <= synth.n_layer; ++l) {
                layers += (double)analysis.caused_by_layer_ns[r * (synth.n_layer + 1) + l];
            }
        }
        assert_true(fabs(caused - wait) <= 0.01 * wait);
        assert_true(fabs(phases - caused) <= 1e-6 * caused);
        assert_true(fabs(layers - caused) <= 1e-6 * caused);
        clear(&profile, &analysis);
    }
}

static void nothing_is_claimed_below_the_error_of_the_clocks(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(4);
    struct mt_profile profile;
    struct mt_analysis analysis;
    synth.victim = 1;
    synth.slowdown = 1.5;
    synth.error_ns = 1000000000;
    study(&synth, &profile, &analysis);
    assert_int_equal(analysis.n_finding, 0);
    assert_int_equal(analysis.error_ns, 2000000000);
    for (int r = 0; r < synth.n_rank; ++r) {
        assert_int_equal(analysis.caused_ns[r], 0);
    }
    clear(&profile, &analysis);
}

static void persistence_is_permanent_periodic_or_transient(void **state)
{
    MT_UNUSED(state);
    double cost[60] = {0};
    int period = -1;
    for (int s = 0; s < 60; ++s) {
        cost[s] = s % 3 == 0 ? 0.06 : 0.05;
    }
    assert_int_equal(mt_analysis_persistence(cost, 60, &period), MT_PERMANENT);
    for (int s = 0; s < 60; ++s) {
        cost[s] = s % 7 == 3 ? 0.2 : 0.001;
    }
    assert_int_equal(mt_analysis_persistence(cost, 60, &period), MT_PERIODIC);
    assert_int_equal(period, 7);
    for (int s = 0; s < 60; ++s) {
        cost[s] = s >= 20 && s < 31 ? 0.2 : 0.001;
    }
    assert_int_equal(mt_analysis_persistence(cost, 60, &period), MT_TRANSIENT);
    assert_int_equal(period, 0);
    assert_int_equal(mt_analysis_persistence(cost, 0, &period), MT_TRANSIENT);
}

static void what_is_permanent_has_a_first_step(void **state)
{
    MT_UNUSED(state);
    double cost[60] = {0};
    for (int s = 0; s < 60; ++s) {
        cost[s] = s >= 25 && s % 9 != 0 ? 0.2 : 0.001; /* now and then it has a good one */
    }
    assert_int_equal(mt_analysis_since(cost, 60), 25);
    cost[3] = 0.2; /* one bad step alone is no beginning */
    assert_int_equal(mt_analysis_since(cost, 60), 25);
    for (int s = 0; s < 60; ++s) {
        cost[s] = s >= 4 ? 0.2 : 0.001; /* as good as from the first on */
    }
    assert_int_equal(mt_analysis_since(cost, 60), 0);
    assert_int_equal(mt_analysis_since(cost, 0), 0);
}

static void a_device_that_is_slow_every_fifth_step_is_periodic(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(8);
    struct mt_profile profile;
    struct mt_analysis analysis;
    synth.victim = 2;
    synth.slowdown = 1.6;
    synth.every = 5;
    study(&synth, &profile, &analysis);
    assert_true(analysis.n_finding > 0);
    assert_int_equal(analysis.finding[0].rank, 2);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    assert_int_equal(analysis.finding[0].persistence, MT_PERIODIC);
    assert_int_equal(analysis.finding[0].period, 5);
    clear(&profile, &analysis);
    synth.hiccup = 0.05; /* others are held up as well, in no time */
    study(&synth, &profile, &analysis);
    assert_true(analysis.n_finding > 0);
    assert_int_equal(analysis.finding[0].rank, 2);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    assert_int_equal(analysis.finding[0].period, 5);
    clear(&profile, &analysis);
}

/* A source that fills its cache every fourth step; a disk that is slow at every save. */
static void late_data_and_stalls_that_repeat_are_periodic(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_analysis analysis;
    struct synth synth = synth_usual(21);
    synth.victim = 1;
    synth.data_ns = 8000000;
    synth.every = 4;
    study(&synth, &profile, &analysis);
    assert_int_equal(analysis.finding[0].rank, 1);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_LATE_DATA);
    assert_int_equal(analysis.finding[0].persistence, MT_PERIODIC);
    assert_int_equal(analysis.finding[0].period, 4);
    clear(&profile, &analysis);
    synth = synth_usual(22);
    synth.victim = 3;
    synth.save_ns = 1000000;
    synth.stall_ns = 40000000;
    study(&synth, &profile, &analysis);
    assert_int_equal(analysis.finding[0].rank, 3);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_CHECKPOINT);
    assert_int_equal(analysis.finding[0].persistence, MT_PERIODIC);
    assert_int_equal(analysis.finding[0].period, 10);
    clear(&profile, &analysis);
}

static void a_device_that_is_slow_for_a_while_is_transient(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_analysis analysis;
    struct synth synth = synth_usual(23);
    synth.victim = 0;
    synth.slowdown = 2;
    synth.from = 18;
    synth.until = 30;
    study(&synth, &profile, &analysis);
    assert_true(analysis.n_finding > 0);
    assert_int_equal(analysis.finding[0].rank, 0);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    assert_int_equal(analysis.finding[0].persistence, MT_TRANSIENT);
    clear(&profile, &analysis);
}

static void odd_shapes_are_analysed(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_analysis analysis;
    struct synth synth = synth_usual(1);
    char text[100];
    synth.n_rank = 1; /* nobody to wait for */
    study(&synth, &profile, &analysis);
    mt_analysis_print_finding(&analysis, text, sizeof(text));
    assert_string_equal(text, "finding: none");
    clear(&profile, &analysis);
    synth = synth_usual(2);
    synth.is_tokenless = true; /* a rank without tokens is not a quick device */
    synth.n_rank = 3;
    study(&synth, &profile, &analysis);
    for (int i = 0; i < analysis.n_finding; ++i) {
        assert_int_equal(analysis.finding[i].cause, MT_CAUSE_ROUTING_LOAD);
    }
    clear(&profile, &analysis);
    synth = synth_usual(3);
    synth.n_layer = 0; /* no experts at all */
    synth.victim = 1;
    synth.slowdown = 1.2;
    assert_true(!finds(&synth, 0, MT_CAUSE_SLOW_DEVICE));
    synth = synth_usual(4);
    synth.n_rank = 64;
    synth.victim = 63;
    synth.slowdown = 1.3;
    synth.n_step = 10;
    assert_true(finds(&synth, 63, MT_CAUSE_SLOW_DEVICE));
    MT_TEST_OK(mt_profile_init(&profile, 3, 0, 2)); /* no step */
    MT_TEST_OK(mt_analysis_make(&profile, 0, 0, &analysis));
    assert_int_equal(analysis.n_finding, 0);
    clear(&profile, &analysis);
}

/* A killed rank leaves steps without its part. */
static void steps_that_a_rank_lacks_are_left_out(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(6);
    struct mt_profile profile;
    struct mt_analysis analysis;
    synth.victim = 1;
    synth.slowdown = 1.5;
    synth_make(&synth, &profile);
    for (int s = 30; s < profile.n_step; ++s) {
        struct mt_profile_step *step = mt_profile_step(&profile, s, 3);
        MT_TEST_OK(mt_profile_reserve_collectives(step, 0));
        step->is_there = false;
    }
    MT_TEST_OK(mt_analysis_make(&profile, 0, profile.n_step, &analysis));
    assert_int_equal(analysis.n_detailed, 30);
    assert_int_equal(analysis.finding[0].rank, 1);
    assert_int_equal(analysis.finding[0].cause, MT_CAUSE_SLOW_DEVICE);
    clear(&profile, &analysis);
}

static void the_finding_is_one_line(void **state)
{
    MT_UNUSED(state);
    struct synth synth = synth_usual(9);
    struct mt_profile profile;
    struct mt_analysis analysis;
    char text[100];
    synth.victim = 3;
    synth.slowdown = 1.5;
    study(&synth, &profile, &analysis);
    mt_analysis_print_finding(&analysis, text, sizeof(text));
    assert_true(strncmp(text, "finding: rank 3 slow-device ", 28) == 0);
    assert_int_equal(text[strlen(text) - 1], '%');
    clear(&profile, &analysis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_device_is_found_in_noise),
        cmocka_unit_test(a_slow_device_is_found_where_chance_costs_more),
        cmocka_unit_test(more_rows_are_no_slow_device),
        cmocka_unit_test(a_slow_device_with_fewer_rows_is_still_slow),
        cmocka_unit_test(clean_runs_have_no_finding),
        cmocka_unit_test(no_rank_is_named_for_what_any_rank_has_at_times),
        cmocka_unit_test(late_data_saves_and_links_are_told_apart),
        cmocka_unit_test(a_slow_node_and_a_slow_link_are_named),
        cmocka_unit_test(inherited_lateness_is_blamed_on_its_origin),
        cmocka_unit_test(all_waiting_is_blamed_on_somebody),
        cmocka_unit_test(nothing_is_claimed_below_the_error_of_the_clocks),
        cmocka_unit_test(persistence_is_permanent_periodic_or_transient),
        cmocka_unit_test(what_is_permanent_has_a_first_step),
        cmocka_unit_test(a_device_that_is_slow_every_fifth_step_is_periodic),
        cmocka_unit_test(late_data_and_stalls_that_repeat_are_periodic),
        cmocka_unit_test(a_device_that_is_slow_for_a_while_is_transient),
        cmocka_unit_test(odd_shapes_are_analysed),
        cmocka_unit_test(steps_that_a_rank_lacks_are_left_out),
        cmocka_unit_test(the_finding_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
