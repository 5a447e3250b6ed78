/* The published policies beside Hecate's, by cases small enough for a pencil. */
#include "support/test.h"

#include "base/random.h"
#include "base/size.h"
#include "placement/draft.h"
#include "placement/scene.h"

#include <string.h>

struct world {
    struct mt_scene scene;
    struct mt_policy_input input;
};

static void make(struct world *world, int n_rank, int per_node, int n_expert, int slots)
{
    mt_scene_init(&world->scene, n_rank, per_node, n_expert, slots);
    world->input = mt_scene_input(&world->scene, slots);
    world->input.count = world->scene.counts;
}

static void experts_are_ordered_by_load_ties_to_the_lower(void **state)
{
    int64_t load[50];
    int order[50];
    struct mt_arena scratch;
    MT_UNUSED(state);
    MT_TEST_OK(mt_arena_init(&scratch, sizeof(order) + 64, "test"));
    for (uint64_t seed = 0; seed < 2000; ++seed) {
        const int n = 1 + (int)(seed % 50);
        for (int i = 0; i < n; ++i) {
            load[i] = (int64_t)(mt_random_u64(seed, 1, (uint64_t)i) % (1 + seed % 30));
        }
        mt_load_order(load, n, &scratch, order);
        for (int i = 1; i < n; ++i) {
            const int64_t fall = load[order[i - 1]] - load[order[i]];
            assert_true(fall > 0 || (fall == 0 && order[i - 1] < order[i]));
        }
    }
    mt_arena_clear(&scratch);
}

/* ---- fsdp ---- */

static void fsdp_has_everything_everywhere_and_moves_no_rows(void **state)
{
    MT_UNUSED(state);
    struct world world;
    make(&world, 3, 2, 7, 7);
    struct mt_scene *scene = &world.scene;
    mt_policy_fsdp_before_gate(&world.input, &scene->scratch, &scene->placement);
    assert_int_equal(mt_placement_n_instance(&scene->placement), 3 * 7);
    for (int i = 0; i < 3 * 7; ++i) {
        scene->counts[i] = i;
    }
    mt_split(mt_policy_find("fsdp")->split, &scene->cluster, &scene->placement, scene->counts,
             &scene->scratch, scene->quota);
    for (int source = 0; source < 3; ++source) {
        for (int i = 0; i < 3 * 7; ++i) {
            const int64_t wanted =
                scene->placement.rank[i] == source ? scene->counts[source * 7 + i / 3] : 0;
            assert_int_equal(scene->quota[source * 21 + i], wanted);
        }
    }
    mt_scene_clear(scene);
}

/* ---- fastermoe ---- */

/* One row: 3 ns to compute three times, 4 ns to send four times; an expert: 700 ns. */
static void set_costs(struct mt_cluster *cluster)
{
    cluster->costs.row_ps = 1000;
    cluster->costs.kib_ps[MT_LEVEL_NODE] = 1000;
    cluster->row_bytes = 1024;
    cluster->expert_bytes = 1024 * 700;
}

struct shadow_case {
    int64_t load[4];
    int n_shadow; /* of the hottest */
};

/* T(k) = 7 B[k] + 700 k, in ns. */
static void fastermoe_shadows_while_the_predicted_time_falls(void **state)
{
    static const struct shadow_case cases[] = {
        {{400, 300, 200, 100}, 0}, /* 2800 | 2800: no gain ends it, whatever comes then */
        {{400, 299, 200, 100}, 1}, /* 2800 > 2793 | 2800 */
        {{500, 300, 100, 99}, 2},  /* 3500 > 2800 > 2100 | 2793 */
        {{900, 700, 500, 300}, 3}, /* 6300 > 5600 > 4900 > 4200, and none is left to compare */
        {{900, 0, 0, 0}, 1},       /* 6300 > 700 | 1400: all rows to one expert */
        {{0, 0, 0, 0}, 0},
    };
    MT_UNUSED(state);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        struct world world;
        make(&world, 4, 4, 4, 4);
        set_costs(&world.scene.cluster);
        for (int e = 0; e < 4; ++e) { /* the hottest is expert 3; two sources have half each */
            world.scene.counts[3 - e] = cases[i].load[e] / 2;
            world.scene.counts[8 + 3 - e] = cases[i].load[e] - cases[i].load[e] / 2;
        }
        mt_policy_owners_only(&world.input, &world.scene.scratch, &world.scene.placement);
        mt_policy_fastermoe_after_gate(&world.input, &world.scene.scratch, &world.scene.placement);
        for (int e = 0; e < 4; ++e) {
            assert_int_equal(mt_scene_n_copy(&world.scene.placement, 3 - e),
                             e < cases[i].n_shadow ? 3 : 0);
        }
        int n_late = 0;
        for (int j = 0; j < mt_placement_n_instance(&world.scene.placement); ++j) {
            n_late += world.scene.placement.is_late[j] ? 1 : 0;
        }
        assert_int_equal(n_late, 3 * cases[i].n_shadow);
        mt_scene_clear(&world.scene);
    }
}

static void fastermoe_shadows_everywhere_or_not_at_all(void **state)
{
    MT_UNUSED(state);
    struct world world;
    make(&world, 2, 2, 4, 1); /* a slot each: expert 3's copy is on rank 0, expert 0's on rank 1 */
    set_costs(&world.scene.cluster);
    static const int64_t load[4] = {7000, 3000, 5000, 9000};
    memcpy(world.scene.counts, load, sizeof(load));
    mt_policy_owners_only(&world.input, &world.scene.scratch, &world.scene.placement);
    mt_policy_fastermoe_after_gate(&world.input, &world.scene.scratch, &world.scene.placement);
    static const int wanted[4] = {1, 0, 0, 1}; /* expert 2 finds rank 0 full: the end */
    for (int e = 0; e < 4; ++e) {
        assert_int_equal(mt_scene_n_copy(&world.scene.placement, e), wanted[e]);
    }
    mt_scene_clear(&world.scene);
}

/* ---- smartmoe ---- */

static void rank_loads(const int *owner, const int64_t *load, int n_expert, int n_rank,
                       int64_t *rank_load, int *n_own)
{
    memset(rank_load, 0, (size_t)n_rank * sizeof(*rank_load));
    memset(n_own, 0, (size_t)n_rank * sizeof(*n_own));
    for (int e = 0; e < n_expert; ++e) {
        rank_load[owner[e]] += load[e];
        ++n_own[owner[e]];
    }
}

static int64_t largest(const int64_t *values, int n)
{
    int64_t most = 0;
    for (int i = 0; i < n; ++i) {
        most = mt_max_i64(most, values[i]);
    }
    return most;
}

static void reshard_once(mt_reshard_fn reshard, struct world *world, const int64_t *load,
                         int *owner)
{
    struct mt_history history;
    const int n_expert = world->input.n_expert;
    MT_TEST_OK(mt_history_init(&history, 1, n_expert, 1));
    mt_history_record(&history, load);
    const struct mt_reshard_input input = {.cluster = &world->scene.cluster,
                                           .n_layer = 1,
                                           .n_expert = n_expert,
                                           .slots = world->input.slots,
                                           .overlap = -1,
                                           .capacity = n_expert,
                                           .history = &history};
    reshard(&input, &world->scene.scratch, owner);
    mt_history_clear(&history);
}

static void smartmoe_swaps_by_hand(void **state)
{
    /* Ranks have 90, 30, 20. 50 for the 20 of rank 1 leaves 60, 60; others as good have higher ids.
     * Then rank 0 (20, 40): 40 for the 20 of rank 2 leaves 40, 40. Then rank 1 (50, 10): 50 for the
     * 40 of rank 2 leaves 50, 50. Now 40, 50, 50, and every swap of rank 1's leaves 60. */
    static const int64_t load[6] = {50, 40, 20, 10, 20, 0};
    static const int wanted[6] = {2, 1, 0, 1, 0, 2};
    int owner[6] = {0, 0, 1, 1, 2, 2};
    MT_UNUSED(state);
    struct world world;
    make(&world, 3, 3, 6, 0);
    reshard_once(mt_policy_smartmoe_reshard, &world, load, owner);
    assert_memory_equal(owner, wanted, sizeof(wanted));
    mt_scene_clear(&world.scene);
}

static void smartmoe_keeps_numbers_and_lowers_the_largest_load(void **state)
{
    enum { R = 6, E = 26 };
    int n_better = 0;
    MT_UNUSED(state);
    for (uint64_t seed = 0; seed < 2000; ++seed) {
        struct world world;
        int64_t load[E];
        int64_t before[R];
        int64_t after[R];
        int n_before[R];
        int n_after[R];
        make(&world, R, 4, E, 0);
        int *owner = world.scene.placement.owner;
        for (int e = 0; e < E; ++e) {
            const int64_t scale = e % 5 == 0 ? 1000 : 100;
            load[e] = (int64_t)mt_random_u64(seed, 3, (uint64_t)e) % scale;
            load[e] = load[e] < 0 ? -load[e] : load[e];
        }
        rank_loads(owner, load, E, R, before, n_before);
        reshard_once(mt_policy_smartmoe_reshard, &world, load, owner);
        rank_loads(owner, load, E, R, after, n_after);
        assert_memory_equal(n_before, n_after, sizeof(n_before));
        assert_true(largest(after, R) <= largest(before, R));
        n_better += largest(after, R) < largest(before, R) * 9 / 10 ? 1 : 0;
        mt_scene_clear(&world.scene);
    }
    assert_true(n_better > 1500);
}

/* ---- flexmoe ---- */

static void plan(struct world *world, const int64_t *load)
{
    world->input.history = load;
    mt_policy_flexmoe_before_gate(&world->input, &world->scene.scratch, &world->scene.placement);
}

/* 4 ranks, 4 experts each. */
static void flexmoe_acts_beyond_its_trigger_only(void **state)
{
    static const int64_t calm[16] = {30, 30, 25, 25, 25, 25, 25, 25,
                                     25, 25, 25, 25, 23, 23, 22, 22};
    static const int64_t hot[16] = {31, 30, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 23, 22, 22, 22};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 4, 16, 1);
    plan(&world, calm); /* 110 of 100 */
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 16);
    plan(&world, hot); /* 111, 100, 100, 89: expert 0 also on rank 3 leaves 95.5 and 104.5 */
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 17);
    assert_true(mt_placement_find(&world.scene.placement, 0, 3) >= 0);
    plan(&world, calm); /* stays */
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), 17);
    mt_scene_clear(&world.scene);
}

/* The heat moves from expert 0 to expert 3; both ranks that can help are full of copies of 0. */
static void flexmoe_shrinks_what_cooled_to_make_room(void **state)
{
    static const int64_t first[4] = {300, 20, 20, 20};
    static const int64_t then[4] = {20, 20, 20, 300};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 4, 4, 1);
    plan(&world, first);
    assert_int_equal(mt_scene_n_copy(&world.scene.placement, 0), 3);
    plan(&world, then);
    assert_int_equal(mt_scene_n_copy(&world.scene.placement, 3), 3);
    assert_true(mt_scene_n_copy(&world.scene.placement, 0) <= 1);
    const int n = mt_placement_n_instance(&world.scene.placement);
    plan(&world, then); /* nothing more to gain */
    assert_int_equal(mt_placement_n_instance(&world.scene.placement), n);
    mt_scene_clear(&world.scene);
}

/* ---- eplb ---- */

/* 2 nodes of 2 ranks, 8 experts, a slot each. Replicas of node 0 (experts 0 .. 3: 80 10 10 10): two
 * slots, one copy of expert 0, on rank 1; the other goes to expert 0 too, which has no rank left
 * for it. Node 1 (20 20 30 30): experts 6 and 7 a copy each, which both are on rank 3, so rank
 * 2. */
static void eplb_replicates_within_nodes(void **state)
{
    static const int64_t load[8] = {80, 10, 10, 10, 20, 20, 31, 30};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 2, 8, 1);
    world.input.history = load;
    struct mt_placement *placement = &world.scene.placement;
    mt_policy_eplb_before_gate(&world.input, &world.scene.scratch, placement);
    assert_true(mt_placement_find(placement, 0, 1) >= 0);
    assert_true(mt_placement_find(placement, 6, 2) >= 0);
    for (int e = 0; e < 8; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            assert_int_equal(placement->rank[i] / 2, placement->owner[e] / 2);
        }
    }
    static const int64_t one[8] = {80, 0, 0, 0, 0, 0, 0, 0};
    world.input.history = one;
    mt_policy_eplb_before_gate(&world.input, &world.scene.scratch, placement);
    assert_int_equal(mt_placement_n_instance(placement), 9); /* no copies of what nobody wants */
    mt_scene_clear(&world.scene);
}

/* Default owners put four hot experts on one node: new ones share them out. */
static void eplb_shares_hot_experts_out_over_nodes(void **state)
{
    static const int64_t load[8] = {90, 80, 70, 60, 5, 5, 5, 5};
    int owner[8] = {0, 0, 1, 1, 2, 2, 3, 3};
    int64_t rank_load[4];
    int n_own[4];
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 2, 8, 1);
    reshard_once(mt_policy_eplb_reshard, &world, load, owner);
    rank_loads(owner, load, 8, 4, rank_load, n_own);
    int64_t node_0 = 0;
    for (int rank = 0; rank < 4; ++rank) {
        assert_int_equal(n_own[rank], 2);
        node_0 += rank < 2 ? rank_load[rank] : 0;
    }
    assert_true(node_0 >= 155 && node_0 <= 165); /* 90 + 60 and 80 + 70, and the cold */
    mt_scene_clear(&world.scene);
}

/* ---- fsep ---- */

/* 2 nodes of 2 ranks, one slot each, experts 0 .. 3 with 100, 10, 10, 10: expert 0 is granted all
 * three copies, which the heap gives while 100 / n > 10 / 1. */
static void fsep_gives_replicas_by_load_a_replica_and_spreads_them_over_nodes(void **state)
{
    static const int64_t load[4] = {100, 10, 10, 10};
    static const int64_t two[4] = {100, 60, 10, 10};
    MT_UNUSED(state);
    struct world world;
    make(&world, 4, 2, 4, 1);
    struct mt_placement *placement = &world.scene.placement;
    world.input.history = load;
    mt_policy_fsep_before_gate(&world.input, &world.scene.scratch, placement);
    assert_int_equal(mt_scene_n_copy(placement, 0), 3);
    /* 100, 60 -> 50, 60 -> 50, 30 -> 33, 30 -> 25, 30. Expert 1 comes first and goes to node 1; the
     * third copy of expert 0 finds that rank full. */
    world.input.history = two;
    mt_policy_fsep_before_gate(&world.input, &world.scene.scratch, placement);
    assert_int_equal(mt_scene_n_copy(placement, 0), 2);
    assert_int_equal(mt_scene_n_copy(placement, 1), 1);
    assert_int_equal(mt_placement_n_instance(placement), 7);
    bool is_on_node[2] = {false, false};
    for (int i = placement->instance_start[1]; i < placement->instance_start[2]; ++i) {
        is_on_node[placement->rank[i] / 2] = true;
    }
    assert_true(is_on_node[0] && is_on_node[1]);
    mt_scene_clear(&world.scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_ordered_by_load_ties_to_the_lower),
        cmocka_unit_test(fsdp_has_everything_everywhere_and_moves_no_rows),
        cmocka_unit_test(fastermoe_shadows_while_the_predicted_time_falls),
        cmocka_unit_test(fastermoe_shadows_everywhere_or_not_at_all),
        cmocka_unit_test(smartmoe_swaps_by_hand),
        cmocka_unit_test(smartmoe_keeps_numbers_and_lowers_the_largest_load),
        cmocka_unit_test(flexmoe_acts_beyond_its_trigger_only),
        cmocka_unit_test(flexmoe_shrinks_what_cooled_to_make_room),
        cmocka_unit_test(eplb_replicates_within_nodes),
        cmocka_unit_test(eplb_shares_hot_experts_out_over_nodes),
        cmocka_unit_test(fsep_gives_replicas_by_load_a_replica_and_spreads_them_over_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
