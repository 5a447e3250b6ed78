/* Which token comes: hand-made logits, what temperature, top-k and top-p allow, how often each
 * comes, and that a choice does not depend on how candidates are found. */
#include "base/memory.h"
#include "model/sampling.h"
#include "support/test.h"

#include <math.h>

enum { V = 6, N_DRAW = 20000 };

/* Probabilities 0.05, 0.4, 0.1, 0.25, 0.15, 0.05. */
static const double PROBABILITY[V] = {0.05, 0.4, 0.1, 0.25, 0.15, 0.05};

static void make_logits(float logits[V])
{
    for (int v = 0; v < V; v++) {
        logits[v] = (float)(log(PROBABILITY[v]) + 3.0);
    }
}

static int32_t draw(const float *logits, int64_t vocab, struct mt_sampling sampling, int64_t index)
{
    struct mt_sampler sampler;
    int32_t token = -1;
    MT_TEST_OK(mt_sampler_init(&sampler, &sampling, vocab));
    MT_TEST_OK(mt_sampler_draw(&sampler, logits, index, &token));
    mt_sampler_clear(&sampler);
    return token;
}

/* share [V] of each token over N_DRAW indices. */
static void count(const float *logits, struct mt_sampling sampling, double share[V])
{
    struct mt_sampler sampler;
    int64_t n[V] = {0};
    MT_TEST_OK(mt_sampler_init(&sampler, &sampling, V));
    for (int64_t i = 0; i < N_DRAW; i++) {
        int32_t token = -1;
        MT_TEST_OK(mt_sampler_draw(&sampler, logits, i, &token));
        assert_true(token >= 0 && token < V);
        n[token]++;
    }
    mt_sampler_clear(&sampler);
    for (int v = 0; v < V; v++) {
        share[v] = (double)n[v] / N_DRAW;
    }
}

/* Five deviations of a share that is drawn N_DRAW times: 0.018 at most. */
static void expect_shares(const double share[V], const double want[V])
{
    for (int v = 0; v < V; v++) {
        const double deviation = sqrt(want[v] * (1.0 - want[v]) / N_DRAW);
        if (!(fabs(share[v] - want[v]) <= 5.0 * deviation)) {
            fail_msg("token %d came in %.4f of the draws, expected %.4f", v, share[v], want[v]);
        }
    }
}

static void temperature_zero_takes_the_likeliest_and_of_equals_the_lowest(void **state)
{
    MT_UNUSED(state);
    const float logits[V] = {-1.0F, 2.0F, 0.0F, 2.0F, -5.0F, 1.0F};
    const float zeros[V] = {0.0F, -0.0F, 0.0F, -0.0F, 0.0F, 0.0F};
    const struct mt_sampling greedy = {.temperature = 0.0, .top_k = 3, .top_p = 0.5, .seed = 9};
    assert_int_equal(draw(logits, V, greedy, 0), 1);
    assert_int_equal(draw(logits, V, greedy, 77), 1);
    assert_int_equal(draw(zeros, V, greedy, 0), 0);
    assert_int_equal(draw(logits, 1, greedy, 0), 0);
}

static void tokens_come_as_often_as_the_softmax_says(void **state)
{
    MT_UNUSED(state);
    float logits[V];
    double share[V];
    double want[V];
    make_logits(logits);
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_p = 1.0, .seed = 1}, share);
    expect_shares(share, PROBABILITY);
    double sum = 0.0;
    for (int v = 0; v < V; v++) {
        want[v] = PROBABILITY[v] * PROBABILITY[v];
        sum += want[v];
    }
    for (int v = 0; v < V; v++) {
        want[v] /= sum;
    }
    count(logits, (struct mt_sampling){.temperature = 0.5, .top_p = 1.0, .seed = 2}, share);
    expect_shares(share, want);
}

static void top_k_keeps_the_likeliest_and_of_equals_the_lowest(void **state)
{
    MT_UNUSED(state);
    float logits[V];
    double share[V];
    make_logits(logits);
    const double three[V] = {0.0, 0.4 / 0.8, 0.0, 0.25 / 0.8, 0.15 / 0.8, 0.0};
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_k = 3, .top_p = 1.0, .seed = 3},
          share);
    expect_shares(share, three);
    const double five[V] = {0.05 / 0.95, 0.4 / 0.95, 0.1 / 0.95, 0.25 / 0.95, 0.15 / 0.95, 0.0};
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_k = 5, .top_p = 1.0, .seed = 4},
          share);
    expect_shares(share, five);
    const float zeros[V] = {0.0F, -0.0F, 0.0F, -0.0F, 0.0F, 0.0F};
    const double half[V] = {0.5, 0.5, 0.0, 0.0, 0.0, 0.0};
    count(zeros, (struct mt_sampling){.temperature = 1.0, .top_k = 2, .top_p = 1.0, .seed = 5},
          share);
    expect_shares(share, half);
}

static void top_p_keeps_the_fewest_that_reach_it_after_top_k(void **state)
{
    MT_UNUSED(state);
    float logits[V];
    double share[V];
    make_logits(logits);
    const double two[V] = {0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0, 0.0};
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_p = 0.6, .seed = 6}, share);
    expect_shares(share, two);
    const double one[V] = {0.0, 1.0, 0.0, 0.0, 0.0, 0.0};
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_p = 1e-9, .seed = 7}, share);
    expect_shares(share, one);
    /* Of the three likeliest, 0.8 together, two have 0.81 of it, one has a half. */
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_k = 3, .top_p = 0.8, .seed = 8},
          share);
    expect_shares(share, two);
    count(logits, (struct mt_sampling){.temperature = 1.0, .top_k = 3, .top_p = 0.49, .seed = 8},
          share);
    expect_shares(share, one);
}

/* A token that may come and wins among all wins among fewer: limits that all tokens pass, or that
 * the winner passes, change nothing. */
static void a_choice_depends_on_seed_index_and_logits_alone(void **state)
{
    MT_UNUSED(state);
    float logits[V];
    int n_same = 0;
    int n_kept = 0;
    make_logits(logits);
    for (int64_t i = 0; i < 500; i++) {
        const int32_t all =
            draw(logits, V, (struct mt_sampling){.temperature = 1.0, .top_p = 1.0, .seed = 11}, i);
        const int32_t again = draw(
            logits, V,
            (struct mt_sampling){.temperature = 1.0, .top_k = V, .top_p = 0.999999, .seed = 11}, i);
        const int32_t few =
            draw(logits, V,
                 (struct mt_sampling){.temperature = 1.0, .top_k = 2, .top_p = 1.0, .seed = 11}, i);
        const int32_t other =
            draw(logits, V, (struct mt_sampling){.temperature = 1.0, .top_p = 1.0, .seed = 12}, i);
        assert_int_equal(all, again);
        const bool may_come = all == 1 || all == 3;
        assert_true(!may_come || few == all);
        n_kept += may_come ? 1 : 0;
        n_same += other == all ? 1 : 0;
    }
    assert_in_range(n_kept, 250, 400);
    assert_in_range(n_same, 50, 250); /* 0.265 of the draws of two seeds agree */
}

static void logits_that_are_no_numbers_are_refused(void **state)
{
    MT_UNUSED(state);
    const struct mt_sampling sampling = {.temperature = 1.0, .top_p = 1.0};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        const float logits[3] = {0.0F, bad[i], 1.0F};
        struct mt_sampler sampler;
        int32_t token = -1;
        MT_TEST_OK(mt_sampler_init(&sampler, &sampling, 3));
        MT_TEST_FAILS(mt_sampler_draw(&sampler, logits, 0, &token), MT_ERR_INPUT,
                      "the logit of token 1 is");
        mt_sampler_clear(&sampler);
    }
    assert_int_equal(mt_memory_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_zero_takes_the_likeliest_and_of_equals_the_lowest),
        cmocka_unit_test(tokens_come_as_often_as_the_softmax_says),
        cmocka_unit_test(top_k_keeps_the_likeliest_and_of_equals_the_lowest),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it_after_top_k),
        cmocka_unit_test(a_choice_depends_on_seed_index_and_logits_alone),
        cmocka_unit_test(logits_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
