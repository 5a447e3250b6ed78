/* A whole MoE layer, forward and backward, on 1 to 8 ranks against the naive reference: outputs,
 * gradients of inputs and of every weight, balance and z-loss included. */
#include "base/job.h"
#include "layer_world.h"
#include "support/compare.h"
#include "support/mpi_main.h"

#include <math.h>
#include <string.h>

/* Float32 against double, relative to the largest element. The worst of all cases on 1, 2, 3, 4 and
 * 8 ranks, measured 2026-11-22: outputs 3.6e-7, d_x 1.0e-6. Of the weights' gradients the
 * router's is worst, 6.8e-6 in "top-1, normalised": the weight is constant there, so that terms of
 * rounding size stand beside the balance loss alone. The smallest planted error gave 3.6e-4. */
static const double ROW_BOUND = 5e-6;
static const double GRAD_BOUND = 2e-5;

static const struct world_case CASES[] = {
    {.name = "top-2 of 8", .n_expert = 8, .top_k = 2, .normalize = true, .loss_coef = 0.1},
    {.name = "with z-loss and shared experts",
     .n_expert = 8,
     .top_k = 2,
     .n_shared = 2,
     .normalize = true,
     .loss_coef = 0.1,
     .z_loss_coef = 0.05},
    {.name = "not normalised, top-4 of 8",
     .n_expert = 8,
     .top_k = 4,
     .n_shared = 1,
     .loss_coef = 0.1,
     .tokens = TOKENS_UNEVEN},
    {.name = "shared experts behind a gate",
     .n_expert = 8,
     .top_k = 2,
     .n_shared = 1,
     .has_shared_gate = true,
     .loss_coef = 0.1,
     .tokens = TOKENS_EMPTY},
    {.name = "top-1, not normalised", .n_expert = 3, .top_k = 1, .z_loss_coef = 0.01},
    {.name = "top-1, normalised", .n_expert = 3, .top_k = 1, .normalize = true, .loss_coef = 1.0},
    {.name = "one expert", .n_expert = 1, .top_k = 1, .normalize = true, .loss_coef = 0.1},
    {.name = "every expert chosen",
     .n_expert = 3,
     .top_k = 3,
     .normalize = true,
     .loss_coef = 0.1,
     .tokens = TOKENS_UNEVEN},
    {.name = "ranks without tokens",
     .n_expert = 8,
     .top_k = 2,
     .n_shared = 1,
     .normalize = true,
     .loss_coef = 0.1,
     .tokens = TOKENS_EMPTY},
    {.name = "all tokens to expert 0", .n_expert = 8, .top_k = 1, .loss_coef = 0.1, .is_hot = true},
    {.name = "all first choices to expert 0",
     .n_expert = 8,
     .top_k = 2,
     .normalize = true,
     .n_shared = 1,
     .is_hot = true,
     .tokens = TOKENS_EMPTY},
    {.name = "balance loss per micro-batch",
     .n_expert = 8,
     .top_k = 2,
     .normalize = true,
     .loss = MT_BALANCE_MICRO,
     .loss_coef = 0.5,
     .tokens = TOKENS_EMPTY},
    {.name = "no balance loss",
     .n_expert = 8,
     .top_k = 2,
     .normalize = true,
     .loss = MT_BALANCE_NONE,
     .loss_coef = 0.5},
    {.name = "replicas", .n_expert = 8, .top_k = 2, .normalize = true, .placement_seed = 3},
    {.name = "replicas, uneven, shared",
     .n_expert = 7,
     .top_k = 4,
     .n_shared = 1,
     .has_shared_gate = true,
     .loss_coef = 0.1,
     .z_loss_coef = 0.01,
     .tokens = TOKENS_UNEVEN,
     .placement_seed = 11},
    {.name = "replicas of a hot expert",
     .n_expert = 3,
     .top_k = 1,
     .is_hot = true,
     .tokens = TOKENS_EMPTY,
     .placement_seed = 5},
};
enum { N_CASE = sizeof(CASES) / sizeof(CASES[0]) };

/* The reference of one step with one micro-batch. */
static void reference_step(struct world *world)
{
    int64_t count[WORLD_MAX_EXPERT] = {0};
    double f[WORLD_MAX_EXPERT] = {0};
    bool has_f = false;
    for (int r = 0; r < world->n_rank && world->shape.loss == MT_BALANCE_GLOBAL; ++r) {
        world_reference_count(world, r, 0, 1, count, NULL, NULL);
        has_f = world_share(world, count, f);
    }
    for (int r = 0; r < world->n_rank; ++r) {
        if (world->shape.loss == MT_BALANCE_MICRO) {
            memset(count, 0, sizeof(count));
            world_reference_count(world, r, 0, 1, count, NULL, NULL);
            has_f = world_share(world, count, f);
        }
        world_reference(world, r, 0, 1, has_f ? f : NULL);
    }
}

static void layer_agrees_with_the_reference(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_CASE; ++i) {
        struct world world;
        struct mt_moe_stats stats;
        struct world_case shape = CASES[i / 2];
        shape.is_halved = i % 2 == 1;
        world_create(&world, &shape);
        world_begin_step(&world);
        world_run_micro(&world, 0, 1);
        world_end_step(&world, &stats);
        reference_step(&world);
        world_check(&world, ROW_BOUND, GRAD_BOUND);
        world_destroy(&world);
    }
}

/* A step of two micro-batches, counted first when the window is exact. */
static void run_step(struct world *world)
{
    struct mt_moe_stats stats;
    world_begin_step(world);
    if (world->shape.window == MT_WINDOW_EXACT) {
        mt_moe_set_counting(world->moe, true);
        world_count_micro(world, 0, 2);
        world_count_micro(world, 1, 2);
        mt_moe_set_counting(world->moe, false);
    }
    world_run_micro(world, 0, 2);
    world_run_micro(world, 1, 2);
    world_end_step(world, &stats);
}

/* Copies only change where rows are computed and in which order an expert's gradient is summed; so
 * do slices of a few rows. */
static void compare_with_owners_only(const struct world_case *shape)
{
    struct world owners;
    struct world copies;
    world_create(&owners, &CASES[1]);
    world_create(&copies, shape);
    for (int step = 0; step < 2; ++step) {
        run_step(&owners);
        run_step(&copies);
    }
    const int64_t n = world_n_own(&owners) * owners.moe->width;
    MT_TEST_CLOSE_F32(copies.out, owners.out, n, 1e-6);
    MT_TEST_CLOSE_F32(copies.d_x, owners.d_x, n, 1e-6);
    for (int i = 0; i < mt_store_n_part(owners.store); ++i) {
        const struct mt_part *want = mt_store_part(owners.store, i);
        MT_TEST_CLOSE_F32(mt_store_part(copies.store, i)->grad, want->grad, want->n_element, 1e-6);
    }
    world_destroy(&copies);
    world_destroy(&owners);
}

static void replicas_change_nothing_but_rounding(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; ++seed) {
        struct world_case shape = CASES[1];
        shape.placement_seed = seed;
        shape.is_sticky = seed % 2 == 0;
        shape.slice_rows = seed % 3 == 0 ? (int64_t)seed : 0;
        shape.is_halved = seed > 3;
        compare_with_owners_only(&shape);
    }
}

static void slices_change_nothing_but_rounding(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 16; rows += 5) {
        struct world_case shape = CASES[1];
        shape.slice_rows = rows;
        compare_with_owners_only(&shape);
        shape.is_halved = true;
        compare_with_owners_only(&shape);
    }
}

/* The same in the reference; f of each micro-batch as the window says, from its own counts. */
static void reference_windows(struct world *world, bool has_previous_step)
{
    const enum mt_balance_window window = world->shape.window;
    const bool has_f = window != MT_WINDOW_LAGGED || has_previous_step;
    int64_t count[WORLD_MAX_EXPERT] = {0};
    double f[WORLD_MAX_EXPERT] = {0};
    for (int i = 0; i < 2 * world->n_rank && window != MT_WINDOW_RUNNING; ++i) {
        world_reference_count(world, i / 2, i % 2, 2, count, NULL, NULL);
    }
    for (int micro = 0; micro < 2; ++micro) {
        for (int r = 0; r < world->n_rank && window == MT_WINDOW_RUNNING; ++r) {
            world_reference_count(world, r, micro, 2, count, NULL, NULL);
        }
        (void)world_share(world, count, f);
        for (int r = 0; r < world->n_rank; ++r) {
            world_reference(world, r, micro, 2, has_f ? f : NULL);
        }
    }
}

static void window_agrees(enum mt_balance_window window, bool has_previous_step, bool is_halved)
{
    struct world world;
    struct world_case shape = CASES[1];
    shape.window = window;
    shape.is_halved = is_halved;
    shape.loss_coef = 1.0;
    world_create(&world, &shape);
    for (int step = has_previous_step ? 0 : 1; step < 2; ++step) {
        run_step(&world);
    }
    reference_windows(&world, has_previous_step);
    world_check(&world, ROW_BOUND, GRAD_BOUND);
    world_destroy(&world);
}

/* Halves share the window of their micro-batch. */
static void windows_agree_with_the_reference(enum mt_balance_window window, bool has_previous_step)
{
    window_agrees(window, has_previous_step, false);
    window_agrees(window, has_previous_step, true);
}

static void running_window_agrees_with_the_reference(void **state)
{
    (void)state;
    windows_agree_with_the_reference(MT_WINDOW_RUNNING, false);
    windows_agree_with_the_reference(MT_WINDOW_RUNNING, true);
}

static void lagged_window_agrees_with_the_reference(void **state)
{
    (void)state;
    windows_agree_with_the_reference(MT_WINDOW_LAGGED, false);
    windows_agree_with_the_reference(MT_WINDOW_LAGGED, true);
}

static void exact_window_agrees_with_the_reference(void **state)
{
    (void)state;
    windows_agree_with_the_reference(MT_WINDOW_EXACT, false);
    windows_agree_with_the_reference(MT_WINDOW_EXACT, true);
}

/* E sum_i f_i P_i of the whole step; for "micro" of each rank's micro-batches, by tokens. */
static double expected_balance_loss(struct world *world, double *z_loss, int64_t *count)
{
    const int64_t n_expert = world->shape.n_expert;
    const double n_token = (double)world->first[world->n_rank];
    double p[WORLD_MAX_EXPERT] = {0};
    double f[WORLD_MAX_EXPERT] = {0};
    double micro_loss = 0.0;
    double loss = 0.0;
    *z_loss = 0.0;
    for (int i = 0; i < 2 * world->n_rank; ++i) {
        int64_t own[WORLD_MAX_EXPERT] = {0};
        double own_p[WORLD_MAX_EXPERT] = {0};
        world_reference_count(world, i / 2, i % 2, 2, own, own_p, z_loss);
        const bool has_f = world_share(world, own, f);
        for (int e = 0; e < n_expert; ++e) {
            micro_loss += has_f ? (double)n_expert * f[e] * own_p[e] / n_token : 0.0;
            count[e] += own[e];
            p[e] += own_p[e] / n_token;
        }
    }
    (void)world_share(world, count, f);
    for (int e = 0; e < n_expert; ++e) {
        loss += (double)n_expert * f[e] * p[e];
    }
    *z_loss /= n_token;
    return world->shape.loss == MT_BALANCE_MICRO ? micro_loss : loss;
}

static void check_statistics_of(const struct world_case *shape)
{
    struct world world;
    struct mt_moe_stats stats;
    int64_t count[WORLD_MAX_EXPERT] = {0};
    double z_loss = 0.0;
    world_create(&world, shape);
    world_begin_step(&world);
    world_run_micro(&world, 0, 2);
    world_count_micro(&world, 0, 1); /* an evaluation in between leaves no trace */
    world_run_micro(&world, 1, 2);
    world_end_step(&world, &stats);
    const double balance_loss = expected_balance_loss(&world, &z_loss, count);
    int64_t largest = 0;
    int64_t n_dead = 0;
    for (int e = 0; e < shape->n_expert; ++e) {
        largest = count[e] > largest ? count[e] : largest;
        n_dead += count[e] == 0;
    }
    const double n_pair = (double)(world.first[world.n_rank] * shape->top_k);
    assert_true(fabs(stats.balance_loss - balance_loss) < 1e-5 * balance_loss);
    assert_true(fabs(stats.z_loss - z_loss) < 1e-5 * z_loss);
    assert_true(fabs(stats.load_max_over_mean -
                     (double)largest * (double)shape->n_expert / n_pair) < 1e-12);
    assert_int_equal(stats.n_moe_layer, 1);
    assert_true(stats.load_max_over_mean_layer[0] == stats.load_max_over_mean);
    assert_int_equal(stats.n_dead, n_dead);
    assert_true(stats.dropped_fraction == 0.0);
    assert_true(stats.rank_max_over_mean >= 1.0 - 1e-12);
    assert_true(stats.rank_max_over_mean <= world.n_rank + 1e-12);
    struct mt_state_array array[8];
    int n_array = 0;
    mt_moe_state(world.moe, array, &n_array);
    assert_true(n_array <= 8 && array[0].n == WORLD_N_LAYER * shape->n_expert);
    assert_memory_equal(array[0].values + WORLD_LAYER * shape->n_expert, count,
                        (size_t)shape->n_expert * sizeof(int64_t));
    assert_int_equal(array[2].values[0], 1);
    world_destroy(&world);
}

static void check_statistics(const struct world_case *shape)
{
    struct world_case halved = *shape;
    halved.is_halved = true;
    check_statistics_of(shape);
    check_statistics_of(&halved);
}

static void statistics_are_those_of_the_whole_step(void **state)
{
    (void)state;
    struct world_case shape = CASES[1];
    shape.tokens = TOKENS_UNEVEN;
    check_statistics(&shape);
    shape.loss = MT_BALANCE_MICRO;
    check_statistics(&shape);
    shape.is_hot = true;
    shape.top_k = 1;
    shape.loss = MT_BALANCE_NONE;
    check_statistics(&shape);
}

static void evaluation_gives_the_same_bits_and_leaves_the_arena(void **state)
{
    (void)state;
    struct world world;
    float kept[64 * 16];
    world_create(&world, &CASES[2]);
    world_begin_step(&world);
    world_run_micro(&world, 0, 1);
    const int64_t n = world_n_own(&world) * world.moe->width;
    assert_true(n <= (int64_t)(sizeof(kept) / sizeof(kept[0])));
    memcpy(kept, world.out, (size_t)n * sizeof(float));
    const int64_t mark = mt_arena_mark(&world.arena[0]);
    world_count_micro(&world, 0, 1);
    assert_int_equal(mt_arena_mark(&world.arena[0]), mark);
    MT_TEST_SAME_BITS(world.out, kept, n);
    world_destroy(&world);
}

/* What debug builds check after every split: on the last rank one row goes elsewhere. */
static void plans_that_differ_between_ranks_are_found(void **state)
{
    (void)state;
    struct world world;
    struct mt_moe_stats stats;
    world_create(&world, &CASES[0]);
    world_begin_step(&world);
    world_run_micro(&world, 0, 1);
    assert_int_equal(mt_moe_check_plan(world.moe, WORLD_LAYER), MT_OK);
    if (world.n_rank > 1) {
        world.moe->quota[0] += world.rank == world.n_rank - 1 ? 1 : 0;
        assert_int_equal(mt_moe_check_plan(world.moe, WORLD_LAYER), MT_ERR_INTERNAL);
        mt_error_clear();
    }
    world_end_step(&world, &stats);
    world_destroy(&world);
}

static void a_warm_step_allocates_nothing_and_repeats_bit_for_bit(void **state)
{
    (void)state;
    struct world world;
    struct mt_moe_stats stats;
    float out[64 * 16];
    float d_x[64 * 16];
    struct world_case shape = CASES[13];
    world_create(&world, &shape);
    const int64_t n = world_n_own(&world) * world.moe->width;
    int64_t n_allocated = 0;
    for (int step = 0; step < 3; ++step) {
        world_begin_step(&world);
        world_run_micro(&world, 0, 1);
        world_end_step(&world, &stats);
        if (step == 0) {
            n_allocated = mt_memory_n_allocated();
            memcpy(out, world.out, (size_t)n * sizeof(float));
            memcpy(d_x, world.d_x, (size_t)n * sizeof(float));
        }
        MT_TEST_SAME_BITS(world.out, out, n);
        MT_TEST_SAME_BITS(world.d_x, d_x, n);
    }
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    world_destroy(&world);
}

/* Logits of NaN still choose experts: the exchange stays whole, other tokens are untouched. */
static void a_nan_token_spoils_only_itself(void **state)
{
    (void)state;
    struct world world;
    world_create(&world, &CASES[1]);
    const int64_t width = world.moe->width;
    const int64_t own = world.first[world.rank];
    reference_step(&world);
    world.x[3] = NAN; /* in token 0 of rank 0 */
    world_begin_step(&world);
    world_run_micro(&world, 0, 1);
    const int64_t skip = world.rank == 0 ? 1 : 0;
    MT_TEST_CLOSE(world.out + skip * width, world.out_wide + (own + skip) * width,
                  (world_n_own(&world) - skip) * width, ROW_BOUND);
    world_destroy(&world);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_agrees_with_the_reference),
        cmocka_unit_test(slices_change_nothing_but_rounding),
        cmocka_unit_test(replicas_change_nothing_but_rounding),
        cmocka_unit_test(running_window_agrees_with_the_reference),
        cmocka_unit_test(lagged_window_agrees_with_the_reference),
        cmocka_unit_test(exact_window_agrees_with_the_reference),
        cmocka_unit_test(statistics_are_those_of_the_whole_step),
        cmocka_unit_test(evaluation_gives_the_same_bits_and_leaves_the_arena),
        cmocka_unit_test(plans_that_differ_between_ranks_are_found),
        cmocka_unit_test(a_warm_step_allocates_nothing_and_repeats_bit_for_bit),
        cmocka_unit_test(a_nan_token_spoils_only_itself),
    };
    return mt_test_mpi_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
