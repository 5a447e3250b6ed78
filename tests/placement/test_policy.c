/* Every policy of the table, on random inputs: a valid placement within its limits. */
#include "support/test.h"

#include "base/random.h"
#include "placement/policy.h"

#include <string.h>

enum {
    MAX_RANK = 16,
    MAX_EXPERT = 40,
    MAX_LAYER = 4,
    WINDOW = 3,
    MAX_INSTANCE = MAX_RANK * MAX_EXPERT + MAX_EXPERT,
    N_SEED = 2000
};

static void policies_are_found_by_name(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < mt_n_policy; ++i) {
        assert_ptr_equal(mt_policy_find(mt_policies[i].name), &mt_policies[i]);
        assert_true(strlen(mt_policies[i].description) > 0);
    }
    assert_non_null(mt_policy_find("ep"));
    assert_non_null(mt_policy_find("fssdp"));
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

/* values [n_row, n]; now and then all in one column, a row without any, or beyond 2^31. */
static void fill(int64_t *values, int n_row, int n, uint64_t seed, uint64_t stream)
{
    const uint64_t kind = mt_random_u64(seed, stream, 1u << 20);
    const uint64_t most = kind % 7 == 0 ? (uint64_t)1 << 40 : 1 + kind % 100000;
    const bool is_one_column = kind / 7 % 6 == 0;
    const int empty = kind / 42 % 3 == 0 ? (int)(kind / 126 % (uint64_t)n_row) : -1;
    for (int i = 0; i < n_row * n; ++i) {
        const int64_t value = (int64_t)(mt_random_u64(seed, stream, (uint64_t)i) % most);
        const bool is_zero = value % 3 == 0 || i / n == empty || (is_one_column && i % n != n - 1);
        values[i] = is_zero ? 0 : value;
    }
}

/* In nodes of any sizes, members anywhere; costs at which copies are now cheap, now dear. */
static void make_cluster(struct mt_cluster *cluster, int n_rank, uint64_t seed)
{
    int node[MAX_RANK];
    int n_node = 0;
    const uint64_t most = 1 + mt_random_u64(seed, 5, 0) % (uint64_t)n_rank;
    for (int rank = 0; rank < n_rank; ++rank) {
        const int pick = (int)(mt_random_u64(seed, 5, 1 + (uint64_t)rank) % most);
        node[rank] = pick < n_node ? pick : n_node;
        n_node += node[rank] == n_node ? 1 : 0;
    }
    MT_TEST_OK(mt_cluster_init(cluster, n_rank, node));
    cluster->costs = (struct mt_costs){.row_ps = 40000,
                                       .instance_ps = 5000000,
                                       .attention_ps = 80000000,
                                       .alpha_ps = {0, 1000000, 5000000},
                                       .kib_ps = {0, 5000, 20000}};
    cluster->row_bytes = 4100;
    cluster->expert_bytes = seed % 3 == 0 ? 6 << 20 : 6 << 8;
}

/* Owners by default, or anywhere. */
static void make_owners(struct mt_placement *placement, int layer, uint64_t seed)
{
    mt_placement_default_owners(placement, layer);
    for (int e = 0; e < placement->n_expert && seed % 4 == 0; ++e) {
        placement->owner[e] =
            (int)(mt_random_u64(seed, 6, (uint64_t)e) % (uint64_t)placement->n_rank);
    }
    mt_placement_owners_only(placement);
}

/* Of any number of ranks, experts and slots; `policy` decides about slots. */
static void make(struct scene *scene, const struct mt_policy *policy, uint64_t seed)
{
    const int n_rank = 1 + (int)(mt_random_u64(seed, 1, 0) % MAX_RANK);
    const int n_expert = 1 + (int)(mt_random_u64(seed, 1, 1) % MAX_EXPERT);
    const int64_t wanted = (int64_t)(mt_random_u64(seed, 1, 2) % 4);
    const int slots = mt_policy_slot_count(policy, n_rank, n_expert, wanted);
    int64_t scratch_bytes = 0;
    fill(scene->history, WINDOW, n_expert, seed, 2);
    fill(scene->recent, WINDOW, n_expert, seed, 3);
    fill(scene->count, n_rank, n_expert, seed, 4);
    make_cluster(&scene->cluster, n_rank, seed);
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
    make_owners(&scene->placement, scene->input.layer, seed);
    assert_true(mt_policy_scratch_bytes(n_rank, n_expert, MAX_LAYER, scene->placement.max_instance,
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

/* Nothing that was there before the gate is gone or late, owners least of all. */
static void check_kept(const struct mt_placement *before, const struct mt_placement *after)
{
    for (int e = 0; e < before->n_expert; ++e) {
        for (int i = before->instance_start[e]; i < before->instance_start[e + 1]; ++i) {
            const int at = mt_placement_find(after, e, before->rank[i]);
            assert_true(at >= 0);
            assert_false(after->is_late[at]);
            assert_false(before->is_late[i]);
        }
    }
}

static void plan_micro(struct scene *scene, const struct mt_policy *policy)
{
    struct mt_placement before;
    scene->input.count = NULL;
    policy->before_gate(&scene->input, &scene->scratch, &scene->placement);
    mt_placement_check(&scene->placement);
    check_slots(scene);
    MT_TEST_OK(mt_placement_init(&before, scene->placement.n_rank, scene->placement.n_expert,
                                 scene->placement.max_instance));
    mt_placement_copy(&before, &scene->placement);
    scene->input.count = scene->count;
    if (policy->after_gate != NULL) {
        policy->after_gate(&scene->input, &scene->scratch, &scene->placement);
    }
    mt_placement_check(&scene->placement);
    check_slots(scene);
    check_kept(&before, &scene->placement);
    for (enum mt_split_rule wanted = MT_SPLIT_SETTLED; wanted + 1 > MT_SPLIT_AUTO; --wanted) {
        mt_split(mt_policy_split(policy, wanted), &scene->cluster, &scene->placement, scene->count,
                 &scene->scratch, scene->quota);
        mt_split_check(&scene->placement, scene->count, scene->quota);
    }
    assert_int_equal(mt_arena_mark(&scene->scratch), 0);
    mt_placement_copy(&scene->placement, &before);
    mt_placement_clear(&before);
}

/* Valid before and after the gate, for two micro-batches in a row, and every row computed once. */
static void every_policy_gives_valid_placements_within_the_slots(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (int i = 0; i < mt_n_policy; ++i) {
        for (uint64_t seed = 0; seed < N_SEED; ++seed) {
            make(&scene, &mt_policies[i], seed);
            plan_micro(&scene, &mt_policies[i]);
            fill(scene.history, WINDOW, scene.input.n_expert, seed, 7); /* a step later */
            plan_micro(&scene, &mt_policies[i]);
            clear(&scene);
        }
    }
}

static void fill_with_junk(struct mt_arena *junk, int64_t n_bytes)
{
    if (junk->capacity_bytes < n_bytes) {
        mt_arena_clear(junk);
        MT_TEST_OK(mt_arena_init(junk, n_bytes, "junk"));
    }
    memset(junk->base, 0xA5, (size_t)n_bytes);
}

/* Plans of two calls with the same input are the same, whatever lay in the scratch. */
static void a_plan_is_a_function_of_its_input(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    static struct scene twin;
    struct mt_arena junk = {0}; /* kept: fresh pages, all written, were most of this test's time */
    for (int i = 0; i < mt_n_policy; ++i) {
        for (uint64_t seed = 0; seed < N_SEED / 4; ++seed) {
            make(&scene, &mt_policies[i], seed);
            make(&twin, &mt_policies[i], seed);
            fill_with_junk(&junk, twin.scratch.capacity_bytes);
            plan_micro(&scene, &mt_policies[i]);
            char *const own = twin.scratch.base;
            twin.scratch.base = junk.base;
            plan_micro(&twin, &mt_policies[i]);
            twin.scratch.base = own;
            const int n = mt_placement_n_instance(&scene.placement);
            assert_int_equal(mt_placement_n_instance(&twin.placement), n);
            assert_memory_equal(scene.placement.rank, twin.placement.rank, (size_t)n * sizeof(int));
            assert_memory_equal(scene.quota, twin.quota, sizeof(scene.quota[0]) * (size_t)n);
            clear(&scene);
            clear(&twin);
        }
    }
    mt_arena_clear(&junk);
}

/* owner [n_layer, E] by default; returns what the fullest rank owns, or the fair share. */
static int make_layers(struct scene *scene, struct mt_reshard_input *input, int *owner)
{
    int n_own[MAX_RANK] = {0};
    int capacity = 0;
    for (int layer = 0; layer < input->n_layer; ++layer) {
        mt_placement_default_owners(&scene->placement, layer);
        memcpy(&owner[layer * input->n_expert], scene->placement.owner,
               (size_t)input->n_expert * sizeof(*owner));
        for (int e = 0; e < input->n_expert && layer >= input->first_layer; ++e) {
            const int n = ++n_own[scene->placement.owner[e]];
            capacity = n > capacity ? n : capacity;
        }
    }
    return capacity;
}

static void check_owners(const struct mt_reshard_input *input, const int *owner)
{
    int n_own[MAX_RANK] = {0};
    for (int i = input->first_layer * input->n_expert; i < input->n_layer * input->n_expert; ++i) {
        assert_in_range(owner[i], 0, input->cluster->n_rank - 1);
        assert_true(++n_own[owner[i]] <= input->capacity);
    }
}

/* Dense layers are left alone, no rank owns more than it has room for, and doing it again with the
 * same history changes nothing. */
static void every_reshard_keeps_capacity_and_is_idempotent(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    static int owner[MAX_LAYER * MAX_EXPERT];
    static int before[MAX_LAYER * MAX_EXPERT];
    static int64_t counts[MAX_LAYER * MAX_EXPERT];
    for (int i = 0; i < mt_n_policy; ++i) {
        int64_t n_move = 0;
        for (uint64_t seed = 0; seed < N_SEED && mt_policies[i].reshard != NULL; ++seed) {
            struct mt_history history;
            make(&scene, &mt_policies[i], seed);
            struct mt_reshard_input input = {.cluster = &scene.cluster,
                                             .n_layer = 1 + (int)(seed % MAX_LAYER),
                                             .n_expert = scene.input.n_expert,
                                             .slots = scene.input.slots,
                                             .overlap = scene.input.overlap,
                                             .step = 1,
                                             .n_micro = 1,
                                             .history = &history};
            input.first_layer = (int)(seed / 5 % 3) < input.n_layer ? (int)(seed / 5 % 3) : 0;
            MT_TEST_OK(mt_history_init(&history, input.n_layer, input.n_expert, WINDOW));
            for (uint64_t step = 0; step < seed % 3; ++step) {
                fill(counts, input.n_layer, input.n_expert, seed, 20 + step);
                mt_history_record(&history, counts);
            }
            input.capacity = make_layers(&scene, &input, owner);
            memcpy(before, owner, sizeof(owner));
            mt_policies[i].reshard(&input, &scene.scratch, owner);
            assert_int_equal(mt_arena_mark(&scene.scratch), 0);
            check_owners(&input, owner);
            n_move += memcmp(owner, before, sizeof(owner)) != 0;
            assert_memory_equal(owner, before,
                                (size_t)(input.first_layer * input.n_expert) * sizeof(*owner));
            memcpy(before, owner, sizeof(owner));
            mt_policies[i].reshard(&input, &scene.scratch, owner);
            assert_memory_equal(owner, before, sizeof(owner));
            mt_history_clear(&history);
            clear(&scene);
        }
        assert_true(mt_policies[i].reshard == NULL || n_move > N_SEED / 40);
    }
}

static void before_any_history_owners_work_alone_or_copies_are_even(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (int i = 0; i < mt_n_policy; ++i) {
        make(&scene, &mt_policies[i], 40); /* 40 % 4 = 0 steps of history */
        scene.input.n_history = 0;
        scene.input.n_recent = 0;
        mt_placement_default_owners(&scene.placement, 0);
        mt_policies[i].before_gate(&scene.input, &scene.scratch, &scene.placement);
        int least = MAX_INSTANCE;
        int most = 0;
        for (int e = 0; e < scene.input.n_expert; ++e) {
            const int n = scene.placement.instance_start[e + 1] - scene.placement.instance_start[e];
            least = n < least ? n : least;
            most = n > most ? n : most;
        }
        assert_in_range(most - least, 0, 1);
        clear(&scene);
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
        cmocka_unit_test(a_plan_is_a_function_of_its_input),
        cmocka_unit_test(every_reshard_keeps_capacity_and_is_idempotent),
        cmocka_unit_test(before_any_history_owners_work_alone_or_copies_are_even),
        cmocka_unit_test(ep_has_owners_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
