/* Hecate's policy and LAER's: what is materialised where, and how even that makes the load. */
#include "support/test.h"

#include "base/size.h"
#include "placement/fssdp.h"
#include "placement/scene.h"
#include "placement/workload.h"

#include <string.h>

/* What a test wants beside a scene. */
struct world {
    struct mt_scene scene;
    struct mt_policy_input input;
};

static void make(struct world *world, int n_rank, int per_node, int n_expert, int slots)
{
    mt_scene_init(&world->scene, n_rank, per_node, n_expert, slots);
    world->input = mt_scene_input(&world->scene, slots);
}

static void the_overlap_degree_is_what_travels_under_attention(void **state)
{
    MT_UNUSED(state);
    struct world world;
    make(&world, 8, 4, 16, 2);
    struct mt_cluster *cluster = &world.scene.cluster;
    /* 36864 KiB at 25600 ps are 944 us between nodes, 94 us inside */
    cluster->costs.attention_ps = 2 * (int64_t)943718400;
    assert_int_equal(mt_fssdp_overlap(cluster, -1, 16), 2);
    cluster->costs.attention_ps -= 1;
    assert_int_equal(mt_fssdp_overlap(cluster, -1, 16), 1);
    assert_int_equal(mt_fssdp_overlap(cluster, 3, 16), 3);
    assert_int_equal(mt_fssdp_overlap(cluster, 99, 16), 16);
    cluster->n_node = 1;
    assert_int_equal(mt_fssdp_overlap(cluster, -1, 99), 19);
    cluster->n_node = 2;
    cluster->costs.kib_ps[MT_LEVEL_NETWORK] = 0;
    assert_int_equal(mt_fssdp_overlap(cluster, -1, 16), 16);
    mt_scene_clear(&world.scene);
}

/* t within the slots: exactly the t hottest, on every rank. */
static void the_t_hottest_are_everywhere_if_memory_allows(void **state)
{
    static const int64_t load[8] = {5, 70, 5, 60, 0, 5, 5, 50};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 2, 8, 3);
    world.input.history = load;
    world.input.overlap = 2;
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    for (int e = 0; e < 8; ++e) {
        assert_int_equal(mt_scene_n_copy(&world.scene.placement, e), e == 1 || e == 3 ? 3 : 0);
    }
    world.input.overlap = 0;
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 8);
    mt_scene_clear(&world.scene);
}

/* 4 ranks of 2 experts: 110 is within 1.10 of 100, 111 is not. */
static void an_even_load_gets_no_copies(void **state)
{
    static const int64_t even[8] = {60, 50, 50, 50, 50, 50, 45, 45};
    static const int64_t uneven[8] = {61, 50, 50, 50, 50, 50, 45, 44};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 2, 8, 3);
    world.input.overlap = 2;
    world.input.history = even;
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 8);
    world.input.history = uneven;
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 14);
    mt_scene_clear(&world.scene);
}

/* 8 slots for 4 experts of 8 ranks: in proportion to 50, 30, 10, 10, the others none. */
static void scarce_slots_are_shared_in_proportion_to_load(void **state)
{
    static const int64_t load[8] = {10, 10, 50, 1, 1, 30, 1, 1};
    MT_UNUSED(state);
    struct world world;
    make(&world, 8, 4, 8, 1);
    world.input.history = load;
    world.input.overlap = 4;
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    static const int wanted[8] = {1, 1, 4, 0, 0, 2, 0, 0};
    for (int e = 0; e < 8; ++e) {
        assert_int_equal(mt_scene_n_copy(&world.scene.placement, e), wanted[e]);
    }
    mt_scene_clear(&world.scene);
}

/* Nodes of 1, 2 and 3 ranks; the owner is on the first. */
static void nodes_without_the_expert_then_with_more_free_slots_come_first(void **state)
{
    static const int node[6] = {0, 1, 1, 2, 2, 2};
    static const int64_t load[2] = {90, 90};
    MT_UNUSED(state);
    struct world world;
    make(&world, 6, 6, 2, 1);
    mt_cluster_clear(&world.scene.cluster);
    MT_TEST_OK(mt_cluster_init(&world.scene.cluster, 6, node));
    struct mt_placement *placement = &world.scene.placement;
    placement->owner[0] = 0;
    placement->owner[1] = 0;
    world.input.history = load;
    world.input.overlap = 2;
    /* 6 slots, 3 each. Expert 0: node 2 (3 slots free) rank 3, node 1 (2) rank 1; now all nodes
     * hold it: node 2 (2) rank 4. Expert 1: nodes 1 and 2 have one slot each, ranks 2 and 5. */
    mt_policy_fssdp_before_gate(&world.input, &world.scene.scratch, placement);
    static const int wanted[7] = {0, 1, 3, 4, 0, 2, 5};
    assert_int_equal(placement->instance_start[1], 4);
    assert_int_equal(placement->instance_start[2], 7);
    assert_memory_equal(placement->rank, wanted, sizeof(wanted));
    mt_scene_clear(&world.scene);
}

/* History knows nothing of expert 3, which has nearly all rows now. */
static void calibration_adds_late_copies_only_where_they_pay(void **state)
{
    static const int64_t history[4] = {10, 10, 10, 0};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 4, 4, 1);
    struct mt_scene *scene = &world.scene;
    world.input.history = history;
    world.input.overlap = 0;
    world.input.count = scene->counts;
    for (int source = 0; source < 4; ++source) {
        scene->counts[source * 4 + 3] = 4000; /* 16000 rows: 1.5 ms at their owner, a copy 94 us */
    }
    mt_policy_fssdp_before_gate(&world.input, &scene->scratch, &scene->placement);
    mt_policy_fssdp_after_gate(&world.input, &scene->scratch, &scene->placement);
    assert_int_equal(mt_placement_n_instance(&scene->placement), 4); /* not wanted */
    world.input.calibrate = true;
    mt_policy_fssdp_after_gate(&world.input, &scene->scratch, &scene->placement);
    assert_int_equal(mt_scene_n_copy(&scene->placement, 3), 3);
    assert_int_equal(mt_placement_n_instance(&scene->placement), 7);
    for (int i = 3; i < 7; ++i) {
        assert_int_equal(scene->placement.is_late[i], scene->placement.rank[i] != 3);
    }
    mt_policy_fssdp_before_gate(&world.input, &scene->scratch, &scene->placement);
    scene->cluster.expert_bytes *= 30; /* a copy takes 2.8 ms, three of them two rounds */
    mt_policy_fssdp_after_gate(&world.input, &scene->scratch, &scene->placement);
    assert_int_equal(mt_placement_n_instance(&scene->placement), 4);
    mt_scene_clear(scene);
}

/* ---- balance on drifting loads ---- */

enum { R = 8, E = 64, K = 8, N_TOKEN = 4096, WINDOW = 5, MAX_MICRO = 4 };

struct drift {
    struct world world;
    struct mt_history history;
    struct mt_workload_input workload;
    struct mt_arena arena;
    double weight[R * E];
    int32_t expert[N_TOKEN * K];
    int64_t count[E]; /* of the step */
};

/* counts [R,E] of one micro-batch, tokens drawn one by one. */
static void draw_counts(struct drift *drift, int step, int micro)
{
    int64_t *counts = drift->world.scene.counts;
    drift->workload.step = step;
    drift->workload.micro = micro;
    memset(counts, 0, R * E * sizeof(*counts));
    mt_workload_weights(&drift->workload, &drift->arena, drift->weight);
    for (int source = 0; source < R; ++source) {
        const struct mt_workload_tokens tokens = {9, (uint64_t)(step * MAX_MICRO + micro),
                                                  source * N_TOKEN, N_TOKEN};
        mt_workload_choose(&drift->weight[source * E], E, K, &tokens, &drift->arena, drift->expert);
        for (int i = 0; i < N_TOKEN * K; ++i) {
            ++counts[source * E + drift->expert[i]];
            ++drift->count[drift->expert[i]];
        }
    }
}

/* Largest load of a rank over the mean after the policy's placement and split. */
static double place_micro(struct drift *drift, const struct mt_policy *policy)
{
    struct mt_scene *scene = &drift->world.scene;
    struct mt_policy_input *input = &drift->world.input;
    int64_t load[R];
    int64_t largest = 0;
    input->n_history = drift->history.n_step;
    input->history = mt_history_layer(&drift->history, 0);
    input->count = NULL;
    policy->before_gate(input, &scene->scratch, &scene->placement);
    input->count = scene->counts;
    if (policy->after_gate != NULL) {
        policy->after_gate(input, &scene->scratch, &scene->placement);
    }
    mt_split(policy->split, &scene->cluster, &scene->placement, scene->counts, &scene->scratch,
             scene->quota);
    mt_split_load(&scene->placement, scene->quota, load);
    for (int rank = 0; rank < R; ++rank) {
        largest = mt_max_i64(largest, load[rank]);
    }
    memset(scene->placement.is_late, 0, (size_t)scene->placement.max_instance);
    return (double)largest / ((double)N_TOKEN * K);
}

/* Mean over steps after the first WINDOW, a hot rank, 8 ranks in nodes of 4, 2 slots. */
static double mean_imbalance(const char *name, double skew, bool calibrate, int n_step)
{
    static struct drift drift;
    double sum = 0.0;
    const struct mt_policy *policy = mt_policy_find(name);
    make(&drift.world, R, 4, E, 2);
    drift.world.input.overlap = 8;
    drift.world.input.calibrate = calibrate;
    MT_TEST_OK(mt_history_init(&drift.history, 1, E, WINDOW));
    MT_TEST_OK(mt_arena_init(&drift.arena, mt_workload_scratch_bytes(R, E), "test"));
    drift.workload = (struct mt_workload_input){.workload = mt_workload_find("hot_rank"),
                                                .n_rank = R,
                                                .n_expert = E,
                                                .top_k = K,
                                                .owner = drift.world.scene.placement.owner,
                                                .skew = skew,
                                                .seed = 3};
    for (int step = 1; step <= n_step; ++step) {
        memset(drift.count, 0, sizeof(drift.count));
        for (int micro = 0; micro < 2; ++micro) {
            draw_counts(&drift, step, micro);
            const double imbalance = place_micro(&drift, policy);
            sum += step > WINDOW ? imbalance : 0.0;
        }
        mt_history_record(&drift.history, drift.count);
    }
    mt_arena_clear(&drift.arena);
    mt_history_clear(&drift.history);
    mt_scene_clear(&drift.world.scene);
    return sum / (2 * (n_step - WINDOW));
}

/* 1.04 to 1.09 over seeds and 200 steps; worst is the step after two ranks swapped their heat. */
static void at_skew_3_fssdp_is_within_115_percent_of_even(void **state)
{
    MT_UNUSED(state);
    assert_true(mean_imbalance("ep", 3.0, false, 20) > 2.9);
    assert_true(mean_imbalance("fssdp", 3.0, false, 150) <= 1.15);
    assert_true(mean_imbalance("fssdp", 3.0, true, 150) <= 1.15);
    assert_true(mean_imbalance("fsep", 3.0, true, 150) <= 1.15);
}

/* Not so fsdp with two slots nor eplb: their local-first splits fill ranks with copies. */
static void at_balance_these_make_nothing_worse(void **state)
{
    static const char *const names[] = {"ep", "smartmoe", "flexmoe", "fastermoe", "fssdp", "fsep"};
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
        assert_true(mean_imbalance(names[i], 1.0, true, 25) <= 1.03);
    }
}

/* ---- heterogeneous sharding ---- */

/* 2 layers of 4 experts on 2 ranks; t = 1. Layer 1 has the largest expert load, so it comes first:
 * without its hottest, expert 0, experts 1, 2, 3 (6, 5, 4) go to ranks 0, 1, 1. Layer 0, hottest
 * expert 3, has experts 2, 1, 0 (30, 20, 10). Each rank a node: to ranks 0, 1, 1 - which has its 4
 * then, so that both hottest go to rank 0. One node: ties go to the rank with fewer free places, so
 * 1, 0, 0, and the hottest where there is room: layer 1's on rank 0, layer 0's on rank 1. */
static void sharding_by_hand(void **state)
{
    static const int64_t counts[8] = {10, 20, 30, 40, 99, 6, 5, 4};
    static const int wanted[2][8] = {{1, 1, 0, 0, 0, 0, 1, 1}, {0, 0, 1, 1, 0, 0, 1, 1}};
    MT_UNUSED(state);
    for (int per_node = 1; per_node <= 2; ++per_node) {
        int owner[8] = {1, 0, 0, 1, 0, 0, 0, 1};
        struct world world;
        struct mt_history history;
        make(&world, 2, per_node, 4, 1);
        MT_TEST_OK(mt_history_init(&history, 2, 4, 3));
        mt_history_record(&history, counts);
        const struct mt_reshard_input input = {.cluster = &world.scene.cluster,
                                               .n_layer = 2,
                                               .n_expert = 4,
                                               .overlap = 1,
                                               .capacity = 5,
                                               .history = &history};
        mt_policy_fssdp_reshard(&input, &world.scene.scratch, owner);
        assert_memory_equal(owner, wanted[per_node - 1], sizeof(owner));
        mt_history_clear(&history);
        mt_scene_clear(&world.scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_overlap_degree_is_what_travels_under_attention),
        cmocka_unit_test(the_t_hottest_are_everywhere_if_memory_allows),
        cmocka_unit_test(an_even_load_gets_no_copies),
        cmocka_unit_test(scarce_slots_are_shared_in_proportion_to_load),
        cmocka_unit_test(nodes_without_the_expert_then_with_more_free_slots_come_first),
        cmocka_unit_test(calibration_adds_late_copies_only_where_they_pay),
        cmocka_unit_test(at_skew_3_fssdp_is_within_115_percent_of_even),
        cmocka_unit_test(at_balance_these_make_nothing_worse),
        cmocka_unit_test(sharding_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
