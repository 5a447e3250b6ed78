/* The split of rows over instances, on thousands of random placements. */
#include "support/test.h"

#include "base/random.h"
#include "placement/placement.h"

#include <string.h>

enum { MAX_RANK = 12, MAX_EXPERT = 10, MAX_INSTANCE = MAX_RANK * MAX_EXPERT, N_SEED = 4000 };

struct scene {
    struct mt_placement placement;
    int node[MAX_RANK];
    int64_t counts[MAX_RANK * MAX_EXPERT];
    int64_t quota[MAX_RANK * MAX_INSTANCE];
    int64_t load[MAX_RANK];
};

static uint64_t draw(uint64_t seed, uint64_t *at, uint64_t bound)
{
    return mt_random_u64(seed, 77, (*at)++) % bound;
}

static void make_instances(struct mt_placement *placement, uint64_t seed, uint64_t *at)
{
    int n = 0;
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        placement->instance_start[expert] = n;
        placement->owner[expert] = (int)draw(seed, at, (uint64_t)placement->n_rank);
        for (int rank = 0; rank < placement->n_rank; ++rank) {
            if (rank == placement->owner[expert] || draw(seed, at, 3) == 0) {
                placement->rank[n++] = rank;
            }
        }
    }
    placement->instance_start[placement->n_expert] = n;
}

/* Random placement, nodes and counts; now and then all rows to one expert, a source without rows,
 * counts beyond 2^31. */
static void make(struct scene *scene, uint64_t seed)
{
    uint64_t at = 0;
    const int n_rank = 1 + (int)draw(seed, &at, MAX_RANK);
    const int n_expert = 1 + (int)draw(seed, &at, MAX_EXPERT);
    const int n_node = 1 + (int)draw(seed, &at, (uint64_t)n_rank);
    const uint64_t bound = draw(seed, &at, 5) == 0 ? 1ull << 40 : 30;
    const bool is_one_expert = draw(seed, &at, 6) == 0;
    memset(scene, 0, sizeof(*scene));
    MT_TEST_OK(mt_placement_init(&scene->placement, n_rank, n_expert, MAX_INSTANCE));
    make_instances(&scene->placement, seed, &at);
    mt_placement_check(&scene->placement);
    for (int rank = 0; rank < n_rank; ++rank) {
        const bool is_empty = draw(seed, &at, 6) == 0;
        scene->node[rank] = (int)draw(seed, &at, (uint64_t)n_node);
        for (int expert = 0; expert < n_expert; ++expert) {
            const bool is_zero = is_empty || (is_one_expert && expert > 0);
            scene->counts[rank * n_expert + expert] = is_zero ? 0 : (int64_t)draw(seed, &at, bound);
        }
    }
    mt_split_local_first(&scene->placement, scene->counts, scene->node, scene->quota);
}

static void every_row_goes_to_exactly_one_instance(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (uint64_t seed = 0; seed < N_SEED; ++seed) {
        make(&scene, seed);
        int64_t n_row = 0;
        int64_t n_load = 0;
        mt_split_check(&scene.placement, scene.counts, scene.quota);
        mt_split_load(&scene.placement, scene.quota, scene.load);
        for (int i = 0; i < scene.placement.n_rank * scene.placement.n_expert; ++i) {
            n_row += scene.counts[i];
        }
        for (int rank = 0; rank < scene.placement.n_rank; ++rank) {
            n_load += scene.load[rank];
        }
        assert_int_equal(n_row, n_load);
        mt_placement_clear(&scene.placement);
    }
}

/* 0: same rank, 1: same node, 2: elsewhere. */
static int distance(const struct scene *scene, int source, int rank)
{
    const bool is_node_mate = scene->node[rank] == scene->node[source];
    return rank == source ? 0 : is_node_mate ? 1 : 2;
}

static void check_row_of(const struct scene *scene, int source, int expert)
{
    const struct mt_placement *placement = &scene->placement;
    const int start = placement->instance_start[expert];
    const int end = placement->instance_start[expert + 1];
    const int64_t *quota = &scene->quota[(int64_t)source * mt_placement_n_instance(placement)];
    int nearest = 2;
    for (int i = start; i < end; ++i) {
        const int d = distance(scene, source, placement->rank[i]);
        nearest = d < nearest ? d : nearest;
    }
    int64_t before = -1;
    int64_t first = -1;
    for (int i = start; i < end; ++i) {
        if (distance(scene, source, placement->rank[i]) != nearest) {
            assert_int_equal(quota[i], 0);
            continue;
        }
        first = first < 0 ? quota[i] : first;
        assert_true(before < 0 || quota[i] <= before); /* the remainder is at the lower ones */
        assert_in_range(first - quota[i], 0, 1);
        before = quota[i];
    }
}

static void rows_stay_as_near_as_they_can_and_are_spread_evenly(void **state)
{
    MT_UNUSED(state);
    static struct scene scene;
    for (uint64_t seed = 0; seed < N_SEED; ++seed) {
        make(&scene, seed);
        for (int source = 0; source < scene.placement.n_rank; ++source) {
            for (int expert = 0; expert < scene.placement.n_expert; ++expert) {
                check_row_of(&scene, source, expert);
            }
        }
        mt_placement_clear(&scene.placement);
    }
}

/* 4 ranks in 2 nodes; expert 0 on ranks 0 1 2, expert 1 on rank 3 only. */
static void a_small_case_by_hand(void **state)
{
    static const int node[4] = {0, 0, 1, 1};
    static const int64_t counts[4 * 2] = {5, 1, 7, 0, 9, 2, 4, 3};
    static const int64_t want[4 * 4] = {5, 0, 0, 1, 0, 7, 0, 0, 0, 0, 9, 2, 0, 0, 4, 3};
    static const int64_t want_load[4] = {5, 7, 13, 6};
    MT_UNUSED(state);
    struct mt_placement placement;
    int64_t quota[4 * 4];
    int64_t load[4];
    MT_TEST_OK(mt_placement_init(&placement, 4, 2, 4));
    placement.owner[0] = 1;
    placement.owner[1] = 3;
    placement.instance_start[1] = 3;
    placement.instance_start[2] = 4;
    for (int i = 0; i < 4; ++i) {
        placement.rank[i] = i;
    }
    mt_placement_check(&placement);
    mt_split_local_first(&placement, counts, node, quota);
    assert_memory_equal(quota, want, sizeof(want));
    mt_split_load(&placement, quota, load);
    assert_memory_equal(load, want_load, sizeof(want_load));
    mt_placement_clear(&placement);
}

/* 5 ranks, each a node; expert 0 on ranks 0 2 4; sources 1 and 3 have 8 and 2 rows. */
static void remote_rows_are_shared_by_all_instances(void **state)
{
    static const int node[5] = {0, 1, 2, 3, 4};
    static const int64_t counts[5] = {0, 8, 0, 2, 0};
    static const int64_t want[5 * 3] = {0, 0, 0, 3, 3, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0};
    MT_UNUSED(state);
    struct mt_placement placement;
    int64_t quota[5 * 3];
    MT_TEST_OK(mt_placement_init(&placement, 5, 1, 3));
    placement.owner[0] = 4;
    placement.instance_start[1] = 3;
    for (int i = 0; i < 3; ++i) {
        placement.rank[i] = 2 * i;
    }
    mt_split_local_first(&placement, counts, node, quota);
    assert_memory_equal(quota, want, sizeof(want));
    mt_placement_clear(&placement);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_goes_to_exactly_one_instance),
        cmocka_unit_test(rows_stay_as_near_as_they_can_and_are_spread_evenly),
        cmocka_unit_test(a_small_case_by_hand),
        cmocka_unit_test(remote_rows_are_shared_by_all_instances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
