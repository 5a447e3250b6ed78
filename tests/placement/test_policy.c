/* Every policy of the table, on random inputs: a valid placement within its limits. */
#include "support/test.h"

#include "base/random.h"
#include "placement/placement.h"

#include <string.h>

enum { MAX_RANK = 16, MAX_EXPERT = 40, WINDOW = 3 };

static void policies_are_found_by_name(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < mt_n_policy; ++i) {
        assert_ptr_equal(mt_policy_find(mt_policies[i].name), &mt_policies[i]);
        assert_true(strlen(mt_policies[i].description) > 0);
    }
    assert_non_null(mt_policy_find("ep"));
    assert_null(mt_policy_find("EP"));
    assert_null(mt_policy_find(""));
}

struct scene {
    int node[MAX_RANK];
    int64_t history[WINDOW * MAX_EXPERT];
    struct mt_policy_input input;
    struct mt_placement placement;
};

static void make(struct scene *scene, uint64_t seed)
{
    const int n_rank = 1 + (int)(mt_random_u64(seed, 1, 0) % MAX_RANK);
    const int n_expert = 1 + (int)(mt_random_u64(seed, 1, 1) % MAX_EXPERT);
    const int slots = (int)(mt_random_u64(seed, 1, 2) % 4);
    for (int i = 0; i < WINDOW * n_expert; ++i) {
        scene->history[i] = (int64_t)(mt_random_u64(seed, 2, (uint64_t)i) % 1000);
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        scene->node[rank] = rank / 4;
    }
    scene->input = (struct mt_policy_input){.n_rank = n_rank,
                                            .n_expert = n_expert,
                                            .layer = (int)(seed % 7),
                                            .n_history = (int)(seed % (WINDOW + 1)),
                                            .history = scene->history,
                                            .node = scene->node,
                                            .slots = slots};
    MT_TEST_OK(mt_placement_init(&scene->placement, n_rank, n_expert, n_expert + n_rank * slots));
}

static void check_slots(const struct scene *scene)
{
    const struct mt_placement *placement = &scene->placement;
    int n_copy[MAX_RANK] = {0};
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
             ++i) {
            n_copy[placement->rank[i]] += placement->rank[i] != placement->owner[expert];
        }
    }
    for (int rank = 0; rank < placement->n_rank; ++rank) {
        assert_in_range(n_copy[rank], 0, scene->input.slots);
    }
}

static void every_policy_gives_valid_placements_within_the_slots(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (int i = 0; i < mt_n_policy; ++i) {
        for (uint64_t seed = 0; seed < 500; ++seed) {
            make(&scene, seed);
            mt_policies[i].plan(&scene.input, &scene.placement);
            mt_placement_check(&scene.placement);
            check_slots(&scene);
            mt_placement_clear(&scene.placement);
        }
    }
}

static void ep_has_owners_only(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    make(&scene, 11);
    mt_policy_find("ep")->plan(&scene.input, &scene.placement);
    assert_int_equal(mt_placement_n_instance(&scene.placement), scene.input.n_expert);
    struct mt_placement want;
    MT_TEST_OK(
        mt_placement_init(&want, scene.input.n_rank, scene.input.n_expert, scene.input.n_expert));
    mt_placement_owners_only(&want, scene.input.layer);
    assert_memory_equal(scene.placement.owner, want.owner,
                        (size_t)want.n_expert * sizeof(want.owner[0]));
    mt_placement_clear(&want);
    mt_placement_clear(&scene.placement);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_found_by_name),
        cmocka_unit_test(every_policy_gives_valid_placements_within_the_slots),
        cmocka_unit_test(ep_has_owners_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
