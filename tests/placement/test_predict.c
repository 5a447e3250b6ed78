/* Predicted times by hand, and what must hold for any placement. */
#include "support/test.h"

#include "base/size.h"
#include "placement/predict.h"
#include "placement/scene.h"

#include <string.h>

enum { N_SEED = 1500 };

/* 4 ranks in 2 nodes; a row takes 10, an instance 100, attention 1000; a message inside a node 7 +
 * 1 per KiB, between nodes 20 + 4 per KiB; rows of 1 KiB, experts of 100 KiB. So a copy takes 107
 * inside and 420 between nodes. */
static void make(struct mt_scene *scene, int n_expert)
{
    mt_scene_init(scene, 4, 2, n_expert, 2);
    scene->cluster.costs = (struct mt_costs){.row_ps = 10,
                                             .instance_ps = 100,
                                             .attention_ps = 1000,
                                             .alpha_ps = {0, 7, 20},
                                             .kib_ps = {0, 1, 4}};
    scene->cluster.row_bytes = 1024;
    scene->cluster.expert_bytes = 102400;
}

static struct mt_prediction predict_as(struct mt_scene *scene,
                                       const struct mt_predict_options *options)
{
    struct mt_prediction prediction;
    mt_split(MT_SPLIT_SETTLED, &scene->cluster, &scene->placement, scene->counts, &scene->scratch,
             scene->quota);
    mt_predict(&scene->cluster, &scene->placement, scene->quota, options, &scene->scratch,
               &prediction);
    assert_int_equal(mt_arena_mark(&scene->scratch), 0);
    return prediction;
}

static struct mt_prediction predict(struct mt_scene *scene, bool rematerialize)
{
    const struct mt_predict_options options = {.rematerialize = rematerialize};
    return predict_as(scene, &options);
}

/* Expert e at rank e; rank 0 has 6 rows for itself, 5 for rank 1, 3 for rank 2; the others none. */
static void owners_only_compute_and_exchange(void **state)
{
    static const int64_t counts[4] = {6, 5, 3, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 4);
    memcpy(scene.counts, counts, sizeof(counts));
    const struct mt_prediction prediction = predict(&scene, true);
    assert_int_equal(prediction.compute_ps, 3 * (6 * 10 + 100));
    /* rank 0 sends 7 + 5 inside and 20 + 12 between nodes; the busier link counts, four times */
    assert_int_equal(prediction.exchange_ps, 4 * 32);
    assert_int_equal(prediction.copies_ps, 0);
    assert_int_equal(prediction.total_ps, 3 * 160 + 4 * 32);
    assert_int_equal(prediction.ideal_ps, 3 * ((14 * 10 + 300) / 4) + 4 * (32 / 4));
    assert_int_equal(prediction.n_copy, 0);
    assert_int_equal(prediction.n_late, 0);
    mt_scene_clear(&scene);
}

/* The same, where halves take turns: 32 a way, of which attention covers 10, in backward 20, and
 * experts all. */
static void halves_expose_what_computation_does_not_cover(void **state)
{
    static const int64_t counts[4] = {6, 5, 3, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 4);
    memcpy(scene.counts, counts, sizeof(counts));
    scene.cluster.is_halved = true;
    assert_int_equal(predict(&scene, true).exchange_ps, 0);
    scene.cluster.costs.attention_ps = 10;
    const struct mt_prediction prediction = predict(&scene, true);
    assert_int_equal(prediction.exchange_ps, (32 - 10) + (32 - 20));
    assert_int_equal(prediction.total_ps, 3 * 160 + 34);
    mt_scene_clear(&scene);
}

/* 3 rows to rank 3 go straight in 20 + 12; by two levels they pass rank 1, or rank 2 back. */
static void rows_are_priced_as_they_travel(void **state)
{
    static const int64_t counts[4] = {0, 0, 0, 3};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 4);
    memcpy(scene.counts, counts, sizeof(counts));
    assert_int_equal(predict(&scene, true).exchange_ps, 4 * 32);
    scene.cluster.exchange = MT_EXCHANGE_TWO_LEVEL;
    assert_int_equal(predict(&scene, true).exchange_ps, 4 * (7 + 3 + 32));
    scene.cluster.chooses_exchange = true;
    assert_int_equal(predict(&scene, true).exchange_ps, 4 * 32);
    mt_scene_clear(&scene);
}

/* 9 of 14 rows at rank 0, 6 of them kept: 3 go through two products again. */
static void rows_that_were_not_kept_are_computed_again(void **state)
{
    static const int64_t counts[4] = {9, 5, 0, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 4);
    memcpy(scene.counts, counts, sizeof(counts));
    scene.cluster.slice_rows = 6;
    assert_int_equal(predict(&scene, true).compute_ps, 3 * (9 * 10 + 100) + 3 * 10 / 3 * 2);
    scene.cluster.slice_rows = 9;
    assert_int_equal(predict(&scene, true).compute_ps, 3 * (9 * 10 + 100));
    mt_scene_clear(&scene);
}

/* Expert 0 of rank 0 also on ranks 2 and 3: one crosses to node 1 and is handed on there. */
static void copies_that_fit_under_attention_are_free(void **state)
{
    static const int64_t counts[4] = {30, 0, 30, 30};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 1);
    memcpy(scene.counts, counts, sizeof(counts));
    mt_placement_add(&scene.placement, 0, 2, false);
    mt_placement_add(&scene.placement, 0, 3, false);
    struct mt_prediction prediction = predict(&scene, true);
    assert_int_equal(prediction.compute_ps, 3 * (30 * 10 + 100));
    assert_int_equal(prediction.exchange_ps, 0);
    assert_int_equal(prediction.copies_ps, 0);
    assert_int_equal(prediction.n_copy, 2);
    scene.cluster.costs.attention_ps = 400; /* rank 0 sends two rounds */
    assert_int_equal(predict(&scene, true).copies_ps, 20);
    scene.cluster.costs.attention_ps = 200; /* backward, both directions at once: 420 of 400 */
    assert_int_equal(predict(&scene, true).copies_ps, 220 + 20);
    mt_scene_clear(&scene);
}

/* Rank 0 lends expert 0 to rank 2 and borrows expert 1 of it: in each direction a gradient of 420,
 * and a copy of 420 where copies were dropped. */
static void dropped_copies_travel_twice_in_backward(void **state)
{
    static const int64_t counts[4 * 2] = {30, 0, 0, 0, 0, 30, 0, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 2);
    memcpy(scene.counts, counts, sizeof(counts));
    scene.placement.owner[1] = 2;
    mt_placement_owners_only(&scene.placement);
    mt_placement_add(&scene.placement, 0, 2, false);
    mt_placement_add(&scene.placement, 1, 0, false);
    scene.cluster.costs.attention_ps = 200;
    assert_int_equal(predict(&scene, true).copies_ps, 220 + 840 - 400);
    assert_int_equal(predict(&scene, false).copies_ps, 220 + 420 - 400);
    mt_scene_clear(&scene);
}

/* Expert 0 from rank 0 also on ranks 2 and 3 for four micro-batches, nothing hidden: a first copy
 * of 420 by network, handed on inside the node for 107, both at once. */
static void copies_that_stay_are_gathered_once_and_reduced_once(void **state)
{
    static const int64_t counts[4] = {30, 0, 30, 30};
    MT_UNUSED(state);
    struct mt_scene scene;
    struct mt_placement held;
    make(&scene, 1);
    memcpy(scene.counts, counts, sizeof(counts));
    scene.cluster.costs.attention_ps = 0;
    mt_placement_add(&scene.placement, 0, 2, false);
    mt_placement_add(&scene.placement, 0, 3, false);
    MT_TEST_OK(mt_placement_init(&held, 4, 1, 4));
    mt_placement_copy(&held, &scene.placement);
    struct mt_predict_options options = {.is_followed = true};
    struct mt_prediction prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.copies_ps, 420);
    assert_int_equal(prediction.copy_bytes, 2 * 102400);
    options.held = &held;
    prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.n_copy, 2);
    assert_int_equal(prediction.copies_ps, 0);
    assert_int_equal(prediction.copy_bytes, 0);
    options.is_followed = false;
    prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.copies_ps, 420);
    assert_int_equal(prediction.copy_bytes, 2 * 102400);
    mt_placement_clear(&held);
    mt_scene_clear(&scene);
}

/* A copy on rank 1 that is dropped returns its gradient in 107 that nothing hides, also if it comes
 * again late. */
static void gradients_of_copies_that_are_dropped_are_exposed(void **state)
{
    static const int64_t counts[4] = {60, 0, 0, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    struct mt_placement held;
    make(&scene, 1);
    memcpy(scene.counts, counts, sizeof(counts));
    MT_TEST_OK(mt_placement_init(&held, 4, 1, 4));
    mt_placement_copy(&held, &scene.placement);
    mt_placement_add(&held, 0, 1, false);
    const struct mt_predict_options options = {.is_followed = true, .held = &held};
    struct mt_prediction prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.copies_ps, 107);
    assert_int_equal(prediction.copy_bytes, 102400);
    mt_placement_add(&scene.placement, 0, 1, true);
    prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.n_late, 1);
    assert_int_equal(prediction.copies_ps, 107 + 107 - 37); /* beside 30 rows on their way */
    assert_int_equal(prediction.copy_bytes, 2 * 102400);
    mt_placement_clear(&held);
    mt_scene_clear(&scene);
}

/* Quarters of 25 KiB: each rank's expert comes as one of its node, 7 + 25, and two by network, 2 *
 * (20 + 4 * 25); with a copy on rank 2 twice as much arrives there. */
static void cut_experts_are_put_together_every_time(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 4);
    scene.counts[0] = 10;
    scene.cluster.costs.attention_ps = 0;
    struct mt_predict_options options = {.cuts_experts = true};
    struct mt_prediction prediction = predict_as(&scene, &options);
    assert_int_equal(prediction.copies_ps, 240 + 240);
    assert_int_equal(prediction.copy_bytes, 2 * 4 * 3 * 25600);
    options.rematerialize = true;
    assert_int_equal(predict_as(&scene, &options).copies_ps, 240 + 480);
    mt_placement_add(&scene.placement, 0, 2, false);
    options.rematerialize = false;
    prediction = predict_as(&scene, &options);
    /* two messages, one from each rank of the other node, of two pieces */
    assert_int_equal(prediction.copies_ps, 2 * (2 * 20 + 4 * 100));
    assert_int_equal(prediction.copy_bytes, 2 * 5 * 3 * 25600);
    scene.cluster.costs.attention_ps = 440;
    assert_int_equal(predict_as(&scene, &options).copies_ps, 0);
    mt_scene_clear(&scene);
}

static void a_late_copy_delays_only_its_own_rows(void **state)
{
    static const int64_t counts[2 * 4] = {40, 0, 0, 10, 0, 0, 0, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 2); /* expert 0 at rank 0, expert 1 at rank 1 */
    memcpy(scene.counts, counts, sizeof(counts));
    mt_placement_add(&scene.placement, 0, 2, true); /* over the network: 40 rows settle 20, 20 */
    struct mt_prediction prediction = predict(&scene, true);
    /* rank 0: 20 rows, 300; rank 2 waits 420 for its copy, then 20 rows: 720 */
    assert_int_equal(prediction.compute_ps, 3 * 300);
    assert_int_equal(prediction.copies_ps, 720 - 300);
    assert_int_equal(prediction.n_late, 1);
    scene.placement.is_late[mt_placement_find(&scene.placement, 0, 2)] = false;
    prediction = predict(&scene, true);
    assert_int_equal(prediction.copies_ps, 0);
    mt_scene_clear(&scene);
}

/* 20 rows of rank 2 to expert 1 of rank 0 take 20 + 80; the copy 0 -> 1 inside the node is there
 * after 107, 7 after them, and the copy 0 -> 2 over the network 420 after them. */
static void late_copies_queue_behind_rows_only_on_the_network(void **state)
{
    static const int64_t counts[4 * 2] = {60, 0, 0, 0, 0, 20, 0, 0};
    MT_UNUSED(state);
    struct mt_scene scene;
    make(&scene, 2);
    scene.cluster.costs.instance_ps = 0;
    scene.placement.owner[0] = scene.placement.owner[1] = 0;
    mt_placement_owners_only(&scene.placement);
    memcpy(scene.counts, counts, sizeof(counts));
    mt_placement_add(&scene.placement, 0, 1, true);
    struct mt_prediction prediction = predict(&scene, true);
    assert_int_equal(prediction.compute_ps, 3 * 400);
    assert_int_equal(prediction.exchange_ps, 4 * 100);
    assert_int_equal(prediction.copies_ps, 7);
    mt_placement_owners_only(&scene.placement);
    mt_placement_add(&scene.placement, 0, 2, true);
    prediction = predict(&scene, true);
    assert_int_equal(prediction.copies_ps, 420);
    mt_scene_clear(&scene);
}

static void parts_add_up_and_the_bound_is_below(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    for (uint64_t seed = 0; seed < N_SEED; ++seed) {
        mt_scene_make(&scene, 300000 + seed, 24, 24, (int)(seed % 4));
        const struct mt_prediction with = predict(&scene, true);
        const struct mt_prediction without = predict(&scene, false);
        const int64_t sum = with.compute_ps + with.exchange_ps + with.copies_ps;
        assert_int_equal(with.total_ps, mt_min_i64(sum, (int64_t)1 << 60));
        assert_true(with.copies_ps >= 0 && with.exchange_ps >= 0 && with.compute_ps >= 0);
        assert_true(with.ideal_ps <= with.total_ps);
        assert_true(without.total_ps <= with.total_ps);
        assert_true(with.n_late <= with.n_copy);
        struct mt_prediction early; /* the same rows, nothing late */
        memset(scene.placement.is_late, 0,
               (size_t)scene.placement.max_instance * sizeof(scene.placement.is_late[0]));
        mt_predict(&scene.cluster, &scene.placement, scene.quota,
                   &(struct mt_predict_options){.rematerialize = true}, &scene.scratch, &early);
        assert_int_equal(early.compute_ps, with.compute_ps);
        assert_int_equal(early.exchange_ps, with.exchange_ps);
        assert_int_equal(early.n_late, 0);
        mt_scene_clear(&scene);
    }
}

static void times_beyond_64_bits_saturate(void **state)
{
    enum { N_RANK = 300, N_EXPERT = 16 };
    MT_UNUSED(state);
    struct mt_scene scene;
    mt_scene_init(&scene, N_RANK, 8, N_EXPERT, 1);
    for (int i = 0; i < N_RANK * N_EXPERT; ++i) {
        scene.counts[i] = (int64_t)1 << 45;
    }
    scene.cluster.costs.row_ps = (int64_t)1 << 40;
    const struct mt_prediction prediction = predict(&scene, true);
    assert_int_equal(prediction.total_ps, (int64_t)1 << 60);
    assert_true(prediction.ideal_ps > 0 && prediction.ideal_ps <= prediction.total_ps);
    mt_scene_clear(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_only_compute_and_exchange),
        cmocka_unit_test(halves_expose_what_computation_does_not_cover),
        cmocka_unit_test(rows_are_priced_as_they_travel),
        cmocka_unit_test(rows_that_were_not_kept_are_computed_again),
        cmocka_unit_test(copies_that_fit_under_attention_are_free),
        cmocka_unit_test(dropped_copies_travel_twice_in_backward),
        cmocka_unit_test(copies_that_stay_are_gathered_once_and_reduced_once),
        cmocka_unit_test(gradients_of_copies_that_are_dropped_are_exposed),
        cmocka_unit_test(cut_experts_are_put_together_every_time),
        cmocka_unit_test(a_late_copy_delays_only_its_own_rows),
        cmocka_unit_test(late_copies_queue_behind_rows_only_on_the_network),
        cmocka_unit_test(parts_add_up_and_the_bound_is_below),
        cmocka_unit_test(times_beyond_64_bits_saturate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
