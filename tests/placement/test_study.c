/* Studies: they ask a policy what a trainer would ask, and add up what mt_predict says. */
#include "base/memory.h"
#include "base/random.h"
#include "placement/study.h"
#include "support/test.h"

#include <string.h>

enum { N_RANK = 5, N_EXPERT = 7, N_LAYER = 3, FIRST_LAYER = 1, N_MICRO = 2, WINDOW = 3 };

struct world {
    struct mt_cluster cluster;
    struct mt_study study;
    struct mt_arena scratch;
};

/* What the policy below was last asked. */
static struct mt_policy_input asked;
static int64_t asked_history, asked_recent;
static bool saw_counts;

/* Expert 0 on every rank, and late on none. */
static void everywhere(const struct mt_policy_input *input, struct mt_arena *scratch,
                       struct mt_placement *placement)
{
    MT_UNUSED(scratch);
    asked = *input;
    asked_history =
        input->n_history > 0 ? input->history[(input->n_history - 1) * input->n_expert] : -1;
    asked_recent =
        input->n_recent > 0 ? input->recent[(input->n_recent - 1) * input->n_expert] : -1;
    assert_null(input->count);
    mt_placement_owners_only(placement);
    for (int rank = 0; rank < placement->n_rank && input->slots > 0; ++rank) {
        if (rank != placement->owner[0]) {
            mt_placement_add(placement, 0, rank, false);
        }
    }
}

/* Expert 1 late on the last rank. */
static void late(const struct mt_policy_input *input, struct mt_arena *scratch,
                 struct mt_placement *placement)
{
    MT_UNUSED(scratch);
    saw_counts = input->count != NULL;
    if (mt_placement_find(placement, 1, placement->n_rank - 1) < 0) {
        mt_placement_add(placement, 1, placement->n_rank - 1, true);
    }
}

/* Every owner to the next rank. */
static void turn(const struct mt_reshard_input *input, struct mt_arena *scratch, int *owner)
{
    MT_UNUSED(scratch);
    assert_int_equal(input->capacity, 3); /* 2 layers x 7 experts over 5 ranks */
    for (int i = input->first_layer * N_EXPERT; i < input->n_layer * N_EXPERT; ++i) {
        owner[i] = (owner[i] + 1) % input->cluster->n_rank;
    }
}

static const struct mt_policy plain = {.name = "plain",
                                       .before_gate = mt_policy_owners_only,
                                       .split = MT_SPLIT_LOCAL_FIRST,
                                       .slots = MT_SLOTS_NONE};
static const struct mt_policy busy = {.name = "busy",
                                      .before_gate = everywhere,
                                      .after_gate = late,
                                      .reshard = turn,
                                      .split = MT_SPLIT_SETTLED,
                                      .slots = MT_SLOTS_FEW};

static struct mt_study_options options_of(const struct world *world, const struct mt_policy *policy)
{
    return (struct mt_study_options){.policy = policy,
                                     .cluster = &world->cluster,
                                     .n_layer = N_LAYER,
                                     .first_layer = FIRST_LAYER,
                                     .n_expert = N_EXPERT,
                                     .n_micro = N_MICRO,
                                     .slots = 2,
                                     .overlap = -1,
                                     .rematerialize = true,
                                     .load_window = WINDOW};
}

/* 5 ranks on nodes of 3 and 2. */
static void make(struct world *world, const struct mt_policy *policy, int64_t interval)
{
    static const int node[N_RANK] = {0, 0, 0, 1, 1};
    int64_t n_bytes = 0;
    MT_TEST_OK(mt_cluster_init(&world->cluster, N_RANK, node));
    world->cluster.costs = (struct mt_costs){.row_ps = 10,
                                             .instance_ps = 100,
                                             .attention_ps = 1000,
                                             .alpha_ps = {0, 7, 20},
                                             .kib_ps = {0, 1, 4}};
    world->cluster.row_bytes = 1024;
    world->cluster.expert_bytes = 102400;
    struct mt_study_options options = options_of(world, policy);
    options.reshard_interval = interval;
    MT_TEST_OK(mt_study_init(&world->study, &options));
    assert_true(mt_study_scratch_bytes(&options, &n_bytes));
    MT_TEST_OK(mt_arena_init(&world->scratch, n_bytes, "scratch"));
}

static void clear(struct world *world)
{
    mt_study_clear(&world->study);
    mt_arena_clear(&world->scratch);
    mt_cluster_clear(&world->cluster);
    assert_int_equal(mt_memory_n_live(), 0);
}

/* A rank without rows, an expert without, another with most. */
static void fill(int64_t *counts, int64_t salt)
{
    for (int64_t i = 0; i < N_RANK * N_EXPERT; ++i) {
        counts[i] = (int64_t)(mt_random_u64(7, (uint64_t)salt, (uint64_t)i) % 100);
        counts[i] *= i % N_EXPERT == 2 ? 0 : 1;
        counts[i] *= i % N_EXPERT == 0 ? 20 : 1;
        counts[i] *= i / N_EXPERT == 1 ? 0 : 1;
    }
}

static int64_t total_of(const int64_t *counts, int expert)
{
    int64_t n = 0;
    for (int rank = 0; rank < N_RANK; ++rank) {
        n += counts[rank * N_EXPERT + expert];
    }
    return n;
}

static void run_step(struct world *world, int64_t *counts)
{
    for (int micro = 0; micro < N_MICRO; ++micro) {
        for (int layer = FIRST_LAYER; layer < N_LAYER; ++layer) {
            fill(counts, world->study.step * 100 + micro * 10 + layer);
            mt_study_layer(&world->study, layer, counts, &world->scratch, NULL);
        }
    }
    mt_study_end_step(&world->study, &world->scratch);
}

static void sums_are_those_of_the_layers(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    struct mt_prediction one;
    int64_t total_ps = 0;
    int64_t n_row = 0;
    make(&world, &plain, 0);
    for (int step = 1; step <= 3; ++step) {
        for (int layer = FIRST_LAYER; layer < N_LAYER; ++layer) {
            fill(counts, step * 10 + layer);
            mt_study_layer(&world.study, layer, counts, &world.scratch, &one);
            total_ps += one.total_ps;
            for (int e = 0; e < N_EXPERT; ++e) {
                n_row += total_of(counts, e);
            }
        }
        mt_study_end_step(&world.study, &world.scratch);
    }
    const struct mt_study_sum *sum = &world.study.sum;
    assert_int_equal(sum->n_step, 3);
    assert_int_equal(sum->n_layer, 6);
    assert_true(total_ps > 0);
    assert_int_equal(sum->prediction.total_ps, total_ps);
    assert_int_equal(sum->n_row, n_row);
    assert_int_equal(sum->n_sent_row[MT_LEVEL_RANK] + sum->n_sent_row[MT_LEVEL_NODE] +
                         sum->n_sent_row[MT_LEVEL_NETWORK],
                     n_row);
    assert_true(sum->worst_load_ratio >= sum->load_ratio / 6 && sum->load_ratio / 6 >= 1);
    mt_study_forget(&world.study);
    assert_int_equal(sum->n_layer, 0);
    clear(&world);
}

/* The literature's split leaves the last rank what it has of expert 0, however full it is. */
static void rows_are_split_as_the_policy_does_or_as_is_wanted(void **state)
{
    static const enum mt_split_rule rule[] = {MT_SPLIT_AUTO, MT_SPLIT_LOCAL_FIRST,
                                              MT_SPLIT_SETTLED};
    MT_UNUSED(state);
    int64_t counts[N_RANK * N_EXPERT];
    int64_t quota[N_RANK * (N_EXPERT + N_RANK * 2)];
    int64_t wanted[N_RANK * (N_EXPERT + N_RANK * 2)];
    int64_t largest[3];
    for (int i = 0; i < 3; ++i) {
        struct world world = {0};
        struct mt_prediction one;
        make(&world, &busy, 0);
        world.study.options.split = rule[i];
        fill(counts, 5);
        mt_study_before_gate(&world.study, FIRST_LAYER, &world.scratch);
        mt_study_after_gate(&world.study, FIRST_LAYER, counts, &world.scratch, quota, &one);
        mt_split(i == 1 ? MT_SPLIT_LOCAL_FIRST : MT_SPLIT_SETTLED, &world.cluster, &world.study.now,
                 counts, &world.scratch, wanted);
        const int n = mt_placement_n_instance(&world.study.now);
        assert_memory_equal(quota, wanted, (size_t)(N_RANK * n) * sizeof(*quota));
        largest[i] = one.largest_row;
        clear(&world);
    }
    assert_int_equal(largest[0], largest[2]);
    assert_true(largest[1] > largest[2]);
}

static void the_policy_sees_what_a_trainer_would_show_it(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    make(&world, &busy, 0);
    fill(counts, 111);
    mt_study_layer(&world.study, FIRST_LAYER, counts, &world.scratch, NULL);
    assert_int_equal(asked.n_history, 0);
    assert_int_equal(asked.n_recent, 0);
    assert_int_equal(asked.slots, 2);
    assert_true(saw_counts);
    const int64_t first = total_of(counts, 0);
    fill(counts, 112);
    mt_study_layer(&world.study, FIRST_LAYER, counts, &world.scratch, NULL);
    assert_int_equal(asked.n_recent, 1);
    assert_int_equal(asked_recent, first);
    const int64_t second = total_of(counts, 0);
    mt_study_end_step(&world.study, &world.scratch);
    fill(counts, 113);
    mt_study_layer(&world.study, FIRST_LAYER, counts, &world.scratch, NULL);
    assert_int_equal(asked.step, 2);
    assert_int_equal(asked.n_history, 1);
    assert_int_equal(asked_history, first + second);
    assert_int_equal(asked_recent, second);
    for (int step = 0; step < 6; ++step) {
        run_step(&world, counts);
    }
    assert_int_equal(asked.n_history, WINDOW);
    assert_int_equal(asked.n_recent, MT_STUDY_RECENT);
    clear(&world);
}

static void copies_and_moves_are_counted(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    make(&world, &busy, 2);
    run_step(&world, counts);
    assert_int_equal(world.study.sum.n_move, 0);
    /* In layer 2 the shares have turned by 2 * (7 % 5): the last rank owns experts 0 and 1. */
    assert_int_equal(world.study.sum.prediction.n_copy, N_MICRO * (2 * (N_RANK - 1) + 1));
    assert_int_equal(world.study.sum.prediction.n_late, N_MICRO);
    const int before = world.study.placement[FIRST_LAYER].owner[3];
    run_step(&world, counts);
    assert_int_equal(world.study.sum.n_move, 2 * N_EXPERT);
    assert_int_equal(world.study.placement[FIRST_LAYER].owner[3], (before + 1) % N_RANK);
    mt_placement_check(&world.study.placement[FIRST_LAYER]);
    run_step(&world, counts);
    mt_placement_check(&world.study.now);
    clear(&world);
}

/* Expert 0 is everywhere before the gate, expert 1 late on the last rank: the
 * second micro-batch gathers only that again. */
static void copies_stay_through_a_step_and_no_longer(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    struct mt_prediction one;
    make(&world, &busy, 0);
    struct mt_study_options options = options_of(&world, &busy);
    options.rematerialize = false;
    mt_study_clear(&world.study);
    MT_TEST_OK(mt_study_init(&world.study, &options));
    for (int step = 1; step <= 2; ++step) {
        /* 4 copies of expert 0 and a late one of expert 1; gradients stay */
        fill(counts, step);
        mt_study_layer(&world.study, FIRST_LAYER, counts, &world.scratch, &one);
        assert_false(asked.is_held);
        assert_int_equal(one.copy_bytes, 5 * 102400);
        /* the policy drops what was late, and wants it late again; then all gradients */
        mt_study_layer(&world.study, FIRST_LAYER, counts, &world.scratch, &one);
        assert_true(asked.is_held);
        assert_int_equal(one.n_copy, 5);
        assert_int_equal(one.copy_bytes, (2 + 5) * 102400);
        mt_study_end_step(&world.study, &world.scratch);
    }
    clear(&world);
}

/* After each of four steps another study takes over; both then say and see the same. */
static void a_study_goes_on_from_its_numbers(void **state)
{
    MT_UNUSED(state);
    static const char *const names[] = {"flexmoe", "eplb", "adaptive", "fsdp"};
    int64_t counts[N_RANK * N_EXPERT];
    for (int p = 0; p < 4; ++p) {
        struct world whole = {0};
        struct world parts = {0};
        int64_t *numbers = NULL;
        make(&whole, mt_policy_find(names[p]), 2);
        make(&parts, mt_policy_find(names[p]), 2);
        const int64_t n = mt_study_state_length(&whole.study);
        assert_int_equal(mt_study_state_length(&parts.study), n);
        MT_TEST_OK(MT_ALLOCATE(numbers, n, "numbers"));
        for (int step = 1; step <= 5; ++step) {
            mt_study_forget(&whole.study);
            mt_study_forget(&parts.study);
            run_step(&whole, counts);
            if (step > 1) {
                run_step(&parts, counts);
                const struct mt_study_sum *a = &whole.study.sum;
                const struct mt_study_sum *b = &parts.study.sum;
                assert_memory_equal(&a->prediction, &b->prediction, sizeof(a->prediction));
                assert_int_equal(a->n_move, b->n_move);
            }
            mt_study_write_state(&whole.study, numbers);
            struct mt_study_options options = parts.study.options;
            mt_study_clear(&parts.study);
            MT_TEST_OK(mt_study_init(&parts.study, &options));
            mt_study_read_state(&parts.study, numbers, &parts.scratch);
        }
        mt_memory_free(numbers);
        mt_study_clear(&parts.study);
        mt_arena_clear(&parts.scratch);
        mt_cluster_clear(&parts.cluster);
        clear(&whole);
    }
}

/* Zeros, and numbers of which one cannot be, change nothing. */
static void numbers_that_cannot_be_are_not_taken(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    int64_t *numbers = NULL;
    make(&world, mt_policy_find("adaptive"), 0);
    const int64_t n = mt_study_state_length(&world.study);
    const int64_t first = 2 + N_LAYER * WINDOW * N_EXPERT;
    const int64_t layer = first + (n - first) / N_LAYER * FIRST_LAYER;
    const int64_t owner = layer + 1 + MT_STUDY_RECENT * N_EXPERT;
    const int64_t at[] = {0, 1, 2, layer, layer + 1, owner};
    MT_TEST_OK(MT_ALLOCATE(numbers, n, "numbers"));
    mt_study_read_state(&world.study, numbers, &world.scratch);
    assert_int_equal(world.study.step, 1);
    run_step(&world, counts);
    for (int i = 0; i < (int)(sizeof(at) / sizeof(at[0])); ++i) {
        mt_study_write_state(&world.study, numbers);
        numbers[0] += 5;
        numbers[at[i]] = -1;
        mt_study_read_state(&world.study, numbers, &world.scratch);
        assert_int_equal(world.study.step, 2);
    }
    mt_study_write_state(&world.study, numbers);
    numbers[owner] = N_RANK;
    numbers[0] += 5;
    mt_study_read_state(&world.study, numbers, &world.scratch);
    assert_int_equal(world.study.step, 2);
    mt_memory_free(numbers);
    clear(&world);
}

static void nothing_is_allocated_after_init(void **state)
{
    MT_UNUSED(state);
    struct world world = {0};
    int64_t counts[N_RANK * N_EXPERT];
    make(&world, &busy, 1);
    const int64_t n = mt_memory_n_allocated();
    for (int step = 0; step < 5; ++step) {
        run_step(&world, counts);
    }
    assert_int_equal(mt_memory_n_allocated(), n);
    assert_int_equal(mt_arena_mark(&world.scratch), 0);
    clear(&world);
}

static void no_rows_and_one_rank_are_no_special_cases(void **state)
{
    MT_UNUSED(state);
    static const int node[1] = {0};
    static const int64_t none[N_EXPERT] = {0};
    struct world world = {0};
    int64_t n_bytes = 0;
    MT_TEST_OK(mt_cluster_init(&world.cluster, 1, node));
    const struct mt_study_options options = options_of(&world, &plain);
    MT_TEST_OK(mt_study_init(&world.study, &options));
    assert_true(mt_study_scratch_bytes(&options, &n_bytes));
    MT_TEST_OK(mt_arena_init(&world.scratch, n_bytes, "scratch"));
    mt_study_layer(&world.study, 2, none, &world.scratch, NULL);
    mt_study_end_step(&world.study, &world.scratch);
    mt_study_reshard(&world.study, &world.scratch);
    assert_int_equal(world.study.sum.prediction.total_ps, 0);
    assert_true(world.study.sum.load_ratio == 1.0);
    clear(&world);
}

static void spreading_keeps_totals_and_evens_out_remainders(void **state)
{
    MT_UNUSED(state);
    static const int64_t total[N_EXPERT] = {0, 1, 3, 12, 5, 4, (int64_t)1 << 40};
    int64_t counts[N_RANK * N_EXPERT];
    int64_t least = INT64_MAX;
    int64_t most = 0;
    mt_study_spread(total, N_RANK, N_EXPERT, counts);
    for (int e = 0; e < N_EXPERT; ++e) {
        assert_int_equal(total_of(counts, e), total[e]);
    }
    for (int rank = 0; rank < N_RANK; ++rank) {
        int64_t n = 0;
        for (int e = 0; e < N_EXPERT; ++e) {
            n += counts[rank * N_EXPERT + e];
        }
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    assert_true(most - least <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_layers),
        cmocka_unit_test(rows_are_split_as_the_policy_does_or_as_is_wanted),
        cmocka_unit_test(the_policy_sees_what_a_trainer_would_show_it),
        cmocka_unit_test(copies_and_moves_are_counted),
        cmocka_unit_test(copies_stay_through_a_step_and_no_longer),
        cmocka_unit_test(a_study_goes_on_from_its_numbers),
        cmocka_unit_test(numbers_that_cannot_be_are_not_taken),
        cmocka_unit_test(nothing_is_allocated_after_init),
        cmocka_unit_test(no_rows_and_one_rank_are_no_special_cases),
        cmocka_unit_test(spreading_keeps_totals_and_evens_out_remainders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
