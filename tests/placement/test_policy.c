/* Every policy of the table, on random inputs: a valid placement within its limits. */
#include "support/test.h"

#include "base/random.h"
#include "placement/policy.h"

#include <string.h>

enum {
    MAX_RANK = 16,
    MAX_EXPERT = 40,
    WINDOW = 3,
    MAX_INSTANCE = MAX_RANK * MAX_EXPERT + MAX_EXPERT
};

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
    struct mt_cluster cluster;
    struct mt_arena scratch;
    int64_t history[WINDOW * MAX_EXPERT], recent[WINDOW * MAX_EXPERT];
    int64_t count[MAX_RANK * MAX_EXPERT], quota[MAX_RANK * MAX_INSTANCE];
    struct mt_policy_input input;
    struct mt_placement placement;
};

static void fill(int64_t *values, int n, uint64_t seed, uint64_t stream, int64_t most)
{
    for (int i = 0; i < n; ++i) {
        const int64_t value = (int64_t)(mt_random_u64(seed, stream, (uint64_t)i) % (uint64_t)most);
        values[i] = value % 3 == 0 ? 0 : value;
    }
}

static void make_cluster(struct mt_cluster *cluster, int n_rank)
{
    int node[MAX_RANK];
    for (int rank = 0; rank < n_rank; ++rank) {
        node[rank] = rank / 4;
    }
    MT_TEST_OK(mt_cluster_init(cluster, n_rank, node));
    cluster->costs = (struct mt_costs){.row_ps = 40000,
                                       .instance_ps = 5000000,
                                       .attention_ps = 80000000,
                                       .alpha_ps = {0, 1000000, 5000000},
                                       .kib_ps = {0, 5000, 20000}};
    cluster->row_bytes = 4100;
    cluster->expert_bytes = 6 << 20;
}

/* Of any number of ranks, experts and slots; `policy` decides about slots. */
static void make(struct scene *scene, const struct mt_policy *policy, uint64_t seed)
{
    const int n_rank = 1 + (int)(mt_random_u64(seed, 1, 0) % MAX_RANK);
    const int n_expert = 1 + (int)(mt_random_u64(seed, 1, 1) % MAX_EXPERT);
    const int64_t wanted = (int64_t)(mt_random_u64(seed, 1, 2) % 4);
    const int slots = mt_policy_slot_count(policy, n_rank, n_expert, wanted);
    int64_t scratch_bytes = 0;
    fill(scene->history, WINDOW * n_expert, seed, 2, 100000);
    fill(scene->recent, WINDOW * n_expert, seed, 3, 50000);
    fill(scene->count, n_rank * n_expert, seed, 4, 5000);
    make_cluster(&scene->cluster, n_rank);
    scene->input = (struct mt_policy_input){.cluster = &scene->cluster,
                                            .n_expert = n_expert,
                                            .layer = (int)(seed % 7),
                                            .step = 1 + (int64_t)(seed % 200),
                                            .n_micro = 1 + (int)(seed % 3),
                                            .slots = slots,
                                            .overlap = (int)(seed % 5) - 1,
                                            .calibrate = seed % 2 == 0,
                                            .n_history = (int)(seed % (WINDOW + 1)),
                                            .history = scene->history,
                                            .n_recent = (int)(seed % (WINDOW + 1)),
                                            .recent = scene->recent};
    MT_TEST_OK(mt_placement_init(&scene->placement, n_rank, n_expert, n_expert + n_rank * slots));
    mt_placement_default_owners(&scene->placement, scene->input.layer);
    assert_true(mt_policy_scratch_bytes(n_rank, n_expert, 1, scene->placement.max_instance,
                                        &scratch_bytes));
    MT_TEST_OK(mt_arena_init(&scene->scratch, scratch_bytes, "scratch"));
}

static void clear(struct scene *scene)
{
    mt_arena_clear(&scene->scratch);
    mt_placement_clear(&scene->placement);
    mt_cluster_clear(&scene->cluster);
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

/* Valid before and after the gate, for two micro-batches in a row, and every row computed once. */
static void every_policy_gives_valid_placements_within_the_slots(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (int i = 0; i < mt_n_policy; ++i) {
        const struct mt_policy *policy = &mt_policies[i];
        for (uint64_t seed = 0; seed < 500; ++seed) {
            make(&scene, policy, seed);
            for (int micro = 0; micro < 2; ++micro) {
                scene.input.count = NULL;
                policy->before_gate(&scene.input, &scene.scratch, &scene.placement);
                mt_placement_check(&scene.placement);
                check_slots(&scene);
                scene.input.count = scene.count;
                if (policy->after_gate != NULL) {
                    policy->after_gate(&scene.input, &scene.scratch, &scene.placement);
                }
                mt_placement_check(&scene.placement);
                check_slots(&scene);
                mt_split(policy->split, &scene.cluster, &scene.placement, scene.count,
                         &scene.scratch, scene.quota);
                mt_split_check(&scene.placement, scene.count, scene.quota);
                assert_int_equal(mt_arena_mark(&scene.scratch), 0);
            }
            clear(&scene);
        }
    }
}

static void ep_has_owners_only(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    const struct mt_policy *ep = mt_policy_find("ep");
    make(&scene, ep, 11);
    ep->before_gate(&scene.input, &scene.scratch, &scene.placement);
    assert_int_equal(mt_placement_n_instance(&scene.placement), scene.input.n_expert);
    clear(&scene);
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
