/* Synthetic loads: as skewed as wanted, drifting, repeatable; tokens choose as the weights say. */
#include "support/test.h"

#include "base/random.h"
#include "base/size.h"
#include "placement/placement.h"
#include "placement/workload.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANK = 64, MAX_EXPERT = 256, MAX_TOKEN = 8192, MAX_K = 8 };

struct scene {
    struct mt_placement owners;
    struct mt_arena scratch;
    struct mt_workload_input input;
    double weight[MAX_RANK * MAX_EXPERT];
    int64_t count[MAX_EXPERT];
    double load[MAX_RANK]; /* rows of all sources that a rank's experts get */
    int32_t expert[MAX_TOKEN * MAX_K];
};

static void make(struct scene *scene, const char *name, int n_rank, int n_expert, int top_k)
{
    MT_TEST_OK(mt_placement_init(&scene->owners, n_rank, n_expert, n_expert));
    MT_TEST_OK(mt_arena_init(&scene->scratch, mt_workload_scratch_bytes(n_rank, n_expert), "test"));
    scene->input = (struct mt_workload_input){.workload = mt_workload_find(name),
                                              .n_rank = n_rank,
                                              .n_expert = n_expert,
                                              .top_k = top_k,
                                              .owner = scene->owners.owner,
                                              .skew = 1.0,
                                              .seed = 17,
                                              .step = 1};
}

static void clear(struct scene *scene)
{
    assert_int_equal(mt_arena_mark(&scene->scratch), 0);
    mt_arena_clear(&scene->scratch);
    mt_placement_clear(&scene->owners);
}

/* Largest load of a rank over the mean, with n_token tokens a source. */
static double measure(struct scene *scene, int64_t n_token)
{
    const struct mt_workload_input *input = &scene->input;
    double total = 0.0;
    double largest = 0.0;
    memset(scene->load, 0, sizeof(scene->load));
    mt_workload_weights(input, &scene->scratch, scene->weight);
    for (int source = 0; source < input->n_rank; ++source) {
        mt_workload_counts(&scene->weight[source * input->n_expert], input->n_expert, input->top_k,
                           n_token, &scene->scratch, scene->count);
        for (int e = 0; e < input->n_expert; ++e) {
            scene->load[input->owner[e]] += (double)scene->count[e];
            total += (double)scene->count[e];
        }
    }
    for (int rank = 0; rank < input->n_rank; ++rank) {
        largest = fmax(largest, scene->load[rank]);
    }
    assert_true(total == (double)(n_token * input->n_rank * input->top_k));
    return largest / (total / input->n_rank);
}

static void names_are_those_of_the_configuration(void **state)
{
    static const char *const names[] = {"balanced",         "hot_set",       "hot_rank",
                                        "spread_heat",      "ragged_source", "zero_load_ranks",
                                        "rotating_hotspot", "burst"};
    MT_UNUSED(state);
    assert_int_equal(mt_n_workload, sizeof(names) / sizeof(names[0]));
    for (int i = 0; i < mt_n_workload; ++i) {
        assert_int_equal(mt_workload_find(names[i]), i);
        assert_true(strlen(mt_workloads[i].description) > 0);
    }
    assert_int_equal(mt_workload_find("hot"), -1);
}

struct shape_case {
    int n_rank, n_expert, top_k;
};

/* On average over 60 steps, wherever the hottest rank owns enough experts to be so hot. */
static void the_skew_under_default_owners_is_the_wanted_one(void **state)
{
    static const struct shape_case cases[] = {{3, 16, 2}, {8, 64, 8}, {8, 8, 1}, {64, 256, 8}};
    static const char *const names[] = {"hot_set", "hot_rank", "spread_heat", "ragged_source",
                                        "rotating_hotspot"};
    static const double skews[] = {1.0, 1.1, 1.3, 1.7, 2.0, 3.0, 4.0};
    static struct scene scene;
    MT_UNUSED(state);
    for (size_t i = 0; i < 4 * 5 * 7; ++i) {
        const struct shape_case *c = &cases[i % 4];
        make(&scene, names[i / 4 % 5], c->n_rank, c->n_expert, c->top_k);
        scene.input.skew = skews[i / 20];
        if (scene.input.skew > 0.9 * c->n_rank) {
            clear(&scene);
            continue;
        }
        double sum = 0.0;
        for (int step = 1; step <= 60; ++step) {
            scene.input.step = step;
            scene.input.micro = step % 4;
            scene.input.layer = step % 5;
            mt_placement_default_owners(&scene.owners, scene.input.layer);
            sum += measure(&scene, 4096) / 60;
        }
        if (fabs(sum / skews[i / 20] - 1.0) >= 0.03) {
            print_message("%s: %d ranks, wanted %.2f, got %.4f\n", names[i / 4 % 5], c->n_rank,
                          skews[i / 20], sum);
        }
        assert_true(fabs(sum / skews[i / 20] - 1.0) < 0.03);
        clear(&scene);
    }
}

static void a_wish_beyond_what_is_possible_ends_at_the_largest(void **state)
{
    static struct scene scene;
    MT_UNUSED(state);
    for (int workload = 0; workload < mt_n_workload; ++workload) {
        make(&scene, mt_workloads[workload].name, 1, 8, 2);
        scene.input.skew = 4.0;
        assert_true(measure(&scene, 1000) == 1.0);
        clear(&scene);
    }
    make(&scene, "hot_rank", 3, 16, 2);
    scene.input.skew = 100.0;
    assert_true(measure(&scene, 1000) > 2.9);
    clear(&scene);
    make(&scene, "hot_rank", 8, 8, 2); /* one expert a rank: half of the rows at most */
    scene.input.skew = 8.0;
    const double most = measure(&scene, 1000);
    assert_true(most > 3.9 && most <= 4.0);
    clear(&scene);
    make(&scene, "hot_rank", 4, 8, 8); /* all experts chosen by every token */
    scene.input.skew = 2.0;
    assert_true(measure(&scene, 1000) == 1.0);
    clear(&scene);
    make(&scene, "zero_load_ranks", 8, 3, 2); /* fewer experts than ranks */
    scene.input.skew = 3.5;
    assert_true(measure(&scene, 1000) > 2.6);
    clear(&scene);
}

static void bursts_are_a_quarter_of_the_time_and_balanced_between(void **state)
{
    static struct scene scene;
    MT_UNUSED(state);
    int n_burst = 0;
    make(&scene, "burst", 8, 64, 4);
    scene.input.skew = 3.0;
    for (int step = 1; step <= 800; ++step) {
        scene.input.step = step;
        const double skew = measure(&scene, 4096);
        assert_true(fabs(skew - 1.0) < 0.02 || fabs(skew - 3.0) < 0.05);
        n_burst += skew > 2.0 ? 1 : 0;
    }
    assert_in_range(n_burst, 140, 260);
    clear(&scene);
}

static void idle_ranks_get_no_rows_and_the_hottest_has_the_wanted_skew(void **state)
{
    static const double skews[] = {1.3, 2.0, 3.0};
    static const int wanted_idle[] = {1, 2, 2};
    static struct scene scene;
    MT_UNUSED(state);
    for (int i = 0; i < 3; ++i) {
        make(&scene, "zero_load_ranks", 8, 32, 2);
        scene.input.skew = skews[i];
        assert_true(fabs(measure(&scene, 8192) / skews[i] - 1.0) < 0.02);
        int n_idle = 0;
        for (int rank = 0; rank < 8; ++rank) {
            n_idle += scene.load[rank] == 0.0 ? 1 : 0;
        }
        assert_int_equal(n_idle, wanted_idle[i]);
        clear(&scene);
    }
}

static void sources_of_ragged_source_differ_and_those_of_others_do_not(void **state)
{
    static struct scene scene;
    MT_UNUSED(state);
    for (int workload = 0; workload < mt_n_workload; ++workload) {
        const char *name = mt_workloads[workload].name;
        make(&scene, name, 4, 16, 2);
        scene.input.skew = 2.0;
        (void)measure(&scene, 1000);
        for (int source = 1; source < 4; ++source) {
            const bool is_same =
                memcmp(scene.weight, &scene.weight[source * 16], 16 * sizeof(double)) == 0;
            assert_int_equal(is_same, strcmp(name, "ragged_source") != 0);
        }
        clear(&scene);
    }
}

/* Weights depend on nothing but the input: in any order, with other things asked between. */
static void weights_are_a_function_of_seed_step_micro_and_layer(void **state)
{
    enum { N = 8 * 32, N_CASE = 12 };
    static struct scene scene;
    static double first[N_CASE][N];
    MT_UNUSED(state);
    for (int workload = 1; workload < mt_n_workload; ++workload) {
        make(&scene, mt_workloads[workload].name, 8, 32, 2);
        scene.input.skew = 2.5;
        for (int round = 0; round < 2; ++round) {
            for (int j = 0; j < N_CASE; ++j) {
                const int i = round == 0 ? j : N_CASE - 1 - j;
                scene.input.seed = (uint64_t)(5 + i % 2);
                scene.input.step = i % 3 == 0 ? 1000 : 1 + i;
                scene.input.micro = i % 4;
                scene.input.layer = i / 6;
                mt_workload_weights(&scene.input, &scene.scratch, scene.weight);
                if (round == 0) {
                    memcpy(first[i], scene.weight, sizeof(first[i]));
                }
                assert_memory_equal(first[i], scene.weight, sizeof(first[i]));
                for (int other = 0; other < j && round == 0; ++other) {
                    assert_int_not_equal(memcmp(first[i], first[other], sizeof(first[i])), 0);
                }
            }
        }
        clear(&scene);
    }
}

/* Correlation over time of the logarithm of a weight with its value `lag` steps before, within the
 * stretches in which no ranks are swapped. */
static double correlation(struct scene *scene, int expert, int lag)
{
    double sum[5] = {0};
    int n = 0;
    for (int step = 1; step <= 2000; ++step) {
        double value[2];
        for (int i = 0; i < 2; ++i) {
            scene->input.step = step + i * lag;
            mt_workload_weights(&scene->input, &scene->scratch, scene->weight);
            const double other = scene->weight[(expert + 1) % 4];
            value[i] = log(scene->weight[expert] / other); /* free of what normalises */
        }
        if (step / 20 == (step + lag) / 20) {
            sum[0] += value[0];
            sum[1] += value[1];
            sum[2] += value[0] * value[0];
            sum[3] += value[1] * value[1];
            sum[4] += value[0] * value[1];
            ++n;
        }
    }
    const double covariance = sum[4] / n - sum[0] / n * sum[1] / n;
    const double variances =
        (sum[2] / n - sum[0] / n * sum[0] / n) * (sum[3] / n - sum[1] / n * sum[1] / n);
    return covariance / sqrt(variances);
}

static void loads_drift_with_the_correlation_of_real_training(void **state)
{
    static struct scene scene;
    MT_UNUSED(state);
    make(&scene, "spread_heat", 2, 8, 2);
    scene.input.skew = 1.5;
    const double one = correlation(&scene, 0, 1);
    const double ten = correlation(&scene, 0, 10);
    assert_true(one > 0.72 && one < 0.88);
    assert_true(ten < 0.5 && ten < one);
    clear(&scene);
}

static void tokens_choose_different_experts_as_often_as_the_weights_say(void **state)
{
    enum { R = 8, E = 64, K = 8, N = 8192 };
    static struct scene scene;
    int64_t seen[E] = {0};
    MT_UNUSED(state);
    make(&scene, "hot_rank", R, E, K);
    scene.input.skew = 3.0;
    (void)measure(&scene, N);
    mt_workload_counts(scene.weight, E, K, N, &scene.scratch, scene.count);
    mt_workload_choose(scene.weight, E, K, &(struct mt_workload_tokens){3, 4, 0, N}, &scene.scratch,
                       scene.expert);
    for (int token = 0; token < N; ++token) {
        uint64_t chosen = 0;
        for (int k = 0; k < K; ++k) {
            const int expert = scene.expert[token * K + k];
            assert_in_range(expert, 0, E - 1);
            assert_int_equal(chosen >> expert & 1, 0);
            chosen |= (uint64_t)1 << expert;
            ++seen[expert];
        }
    }
    for (int e = 0; e < E; ++e) {
        const double p = (double)scene.count[e] / N;
        const double deviation = sqrt(N * p * (1.0 - p));
        assert_true(fabs((double)(seen[e] - scene.count[e])) <= 5.0 * deviation + 2.0);
    }
    clear(&scene);
}

static void choices_do_not_depend_on_how_tokens_are_cut(void **state)
{
    enum { E = 12, K = 3, N = 100 };
    static struct scene scene;
    static int32_t parts[N * K];
    MT_UNUSED(state);
    make(&scene, "spread_heat", 4, E, K);
    scene.input.skew = 1.5;
    (void)measure(&scene, N);
    mt_workload_choose(scene.weight, E, K, &(struct mt_workload_tokens){3, 4, 1000, N},
                       &scene.scratch, scene.expert);
    mt_workload_choose(scene.weight, E, K, &(struct mt_workload_tokens){3, 4, 1000, 37},
                       &scene.scratch, parts);
    mt_workload_choose(scene.weight, E, K, &(struct mt_workload_tokens){3, 4, 1037, N - 37},
                       &scene.scratch, &parts[37 * K]);
    assert_memory_equal(scene.expert, parts, sizeof(parts));
    mt_workload_choose(scene.weight, E, K, &(struct mt_workload_tokens){3, 5, 1000, N},
                       &scene.scratch, parts);
    assert_memory_not_equal(scene.expert, parts, sizeof(parts));
    clear(&scene);
}

static void only_experts_with_weight_are_chosen(void **state)
{
    static const double weight[6] = {0.0, 1e-12, 0.0, 5.0, 1e-9, 0.0};
    MT_UNUSED(state);
    struct mt_arena scratch;
    int32_t expert[50 * 3];
    int64_t count[6];
    MT_TEST_OK(mt_arena_init(&scratch, mt_workload_scratch_bytes(1, 6), "test"));
    mt_workload_choose(weight, 6, 3, &(struct mt_workload_tokens){1, 1, 0, 50}, &scratch, expert);
    for (int token = 0; token < 50; ++token) {
        int seen = 0;
        for (int k = 0; k < 3; ++k) {
            seen |= 1 << expert[token * 3 + k];
        }
        assert_int_equal(seen, 1 << 1 | 1 << 3 | 1 << 4);
    }
    mt_workload_counts(weight, 6, 3, UINT32_MAX, &scratch, count);
    for (int e = 0; e < 6; ++e) {
        assert_true(count[e] == (weight[e] > 0.0 ? UINT32_MAX : 0));
    }
    mt_workload_counts(weight, 6, 1, 7, &scratch, count);
    assert_int_equal(count[3], 7);
    mt_workload_counts(weight, 6, 1, 0, &scratch, count); /* a rank without tokens */
    assert_int_equal(count[3], 0);
    mt_arena_clear(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_configuration),
        cmocka_unit_test(the_skew_under_default_owners_is_the_wanted_one),
        cmocka_unit_test(a_wish_beyond_what_is_possible_ends_at_the_largest),
        cmocka_unit_test(bursts_are_a_quarter_of_the_time_and_balanced_between),
        cmocka_unit_test(idle_ranks_get_no_rows_and_the_hottest_has_the_wanted_skew),
        cmocka_unit_test(sources_of_ragged_source_differ_and_those_of_others_do_not),
        cmocka_unit_test(weights_are_a_function_of_seed_step_micro_and_layer),
        cmocka_unit_test(loads_drift_with_the_correlation_of_real_training),
        cmocka_unit_test(tokens_choose_different_experts_as_often_as_the_weights_say),
        cmocka_unit_test(choices_do_not_depend_on_how_tokens_are_cut),
        cmocka_unit_test(only_experts_with_weight_are_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
