/* Settling against the cut bound over all sets of ranks, which is exact; and sources of rows. */
#include "support/test.h"

#include "base/size.h"
#include "placement/scene.h"
#include "placement/settle.h"

#include <string.h>

enum { N_SEED = 3000, MAX_SMALL_RANK = 9, MAX_RANK = 64 };

/* The largest of ceil(rows that must stay within a set of ranks / its size), over all sets. */
static int64_t cut_bound(const struct mt_scene *scene)
{
    const struct mt_placement *placement = &scene->placement;
    int64_t bound = 0;
    for (unsigned set = 1; set < 1U << placement->n_rank; ++set) {
        int64_t n_row = 0;
        for (int expert = 0; expert < placement->n_expert; ++expert) {
            unsigned holders = 0;
            for (int i = placement->instance_start[expert];
                 i < placement->instance_start[expert + 1]; ++i) {
                holders |= 1U << placement->rank[i];
            }
            n_row += (holders & ~set) == 0 ? scene->total[expert] : 0;
        }
        bound = mt_max_i64(bound, mt_ceil_div(n_row, __builtin_popcount(set)));
    }
    return bound;
}

/* Quotas sum to the totals; returns the largest load. */
static int64_t check_quota(const struct mt_scene *scene)
{
    const struct mt_placement *placement = &scene->placement;
    int64_t load[MAX_RANK] = {0};
    int64_t largest = 0;
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        int64_t n_row = 0;
        for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
             ++i) {
            assert_true(scene->instance_quota[i] >= 0);
            n_row += scene->instance_quota[i];
            load[placement->rank[i]] += scene->instance_quota[i];
        }
        assert_int_equal(n_row, scene->total[expert]);
    }
    for (int rank = 0; rank < placement->n_rank; ++rank) {
        largest = mt_max_i64(largest, load[rank]);
    }
    return largest;
}

static void the_largest_load_is_the_least_possible(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    for (uint64_t seed = 0; seed < N_SEED; ++seed) {
        mt_scene_make(&scene, seed, MAX_SMALL_RANK, 12, (int)(seed % 4));
        const int64_t largest =
            mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota);
        assert_int_equal(largest, check_quota(&scene));
        assert_int_equal(largest, cut_bound(&scene));
        assert_int_equal(mt_arena_mark(&scene.scratch), 0);
        mt_scene_clear(&scene);
    }
}

static void every_row_has_a_source_and_a_target_up_to_64_ranks(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    int64_t load[MAX_RANK];
    for (uint64_t seed = 0; seed < N_SEED / 4; ++seed) {
        mt_scene_make(&scene, seed, MAX_RANK, 40, (int)(seed % 3));
        const int64_t largest =
            mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota);
        int64_t most = 0;
        mt_split(MT_SPLIT_SETTLED, &scene.cluster, &scene.placement, scene.counts, &scene.scratch,
                 scene.quota);
        mt_split_check(&scene.placement, scene.counts, scene.quota);
        mt_split_load(&scene.placement, scene.quota, load);
        for (int rank = 0; rank < scene.placement.n_rank; ++rank) {
            most = mt_max_i64(most, load[rank]);
        }
        assert_int_equal(most, largest);
        assert_int_equal(mt_arena_mark(&scene.scratch), 0);
        mt_scene_clear(&scene);
    }
}

/* What an instance takes from nearer sources is all that they have, unless it is full with it. */
static void check_nearness(const struct mt_scene *scene, int expert, int i)
{
    const struct mt_placement *placement = &scene->placement;
    const int n_instance = mt_placement_n_instance(placement);
    const int rank = placement->rank[i];
    const int64_t own = scene->quota[(int64_t)rank * n_instance + i];
    const int64_t wanted = scene->counts[rank * placement->n_expert + expert];
    int64_t foreign = 0;
    for (int source = 0; source < placement->n_rank; ++source) {
        foreign += source != rank ? scene->quota[(int64_t)source * n_instance + i] : 0;
    }
    assert_true(own <= wanted);
    assert_true(foreign == 0 || own == wanted);
    assert_int_equal(own + foreign, scene->instance_quota[i]);
}

static void an_instance_takes_rows_of_its_own_rank_first(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    for (uint64_t seed = 0; seed < N_SEED / 4; ++seed) {
        mt_scene_make(&scene, seed, 20, 20, (int)(seed % 4));
        (void)mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota);
        mt_settle_sources(&scene.cluster, &scene.placement, scene.counts, scene.instance_quota,
                          &scene.scratch, scene.quota);
        for (int expert = 0; expert < scene.placement.n_expert; ++expert) {
            for (int i = scene.placement.instance_start[expert];
                 i < scene.placement.instance_start[expert + 1]; ++i) {
                check_nearness(&scene, expert, i);
            }
        }
        mt_scene_clear(&scene);
    }
}

/* 4 ranks in 2 nodes, expert 0 on ranks 1 and 2, expert 1 on 3: 20 rows, no rank can have fewer
 * than 7 (14 on two). */
static void a_small_case_by_hand(void **state)
{
    static const int64_t counts[4 * 2] = {5, 0, 1, 2, 3, 0, 5, 4};
    static const int64_t want[4 * 3] = {5, 0, 0, 1, 0, 2, 0, 3, 0, 1, 4, 4};
    MT_UNUSED(state);
    struct mt_scene scene;
    mt_scene_init(&scene, 4, 2, 2, 1);
    scene.placement.owner[0] = 1;
    scene.placement.owner[1] = 3;
    mt_placement_owners_only(&scene.placement);
    mt_placement_add(&scene.placement, 0, 2, false);
    memcpy(scene.counts, counts, sizeof(counts));
    mt_scene_sum(&scene);
    assert_int_equal(mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota),
                     7);
    mt_split(MT_SPLIT_SETTLED, &scene.cluster, &scene.placement, scene.counts, &scene.scratch,
             scene.quota);
    assert_memory_equal(scene.quota, want, sizeof(want));
    mt_scene_clear(&scene);
}

/* Expert e on ranks N-2-e and N-1-e; the last expert has twice the rows of the others. Every rank
 * can have 100, in one way only: each expert passes the excess on to its higher rank. */
static void rows_move_along_chains_of_any_length(void **state)
{
    enum { N = 600 };
    MT_UNUSED(state);
    struct mt_scene scene;
    mt_scene_init(&scene, N, 8, N - 1, 1);
    for (int expert = 0; expert < N - 1; ++expert) {
        scene.placement.owner[expert] = N - 2 - expert;
        scene.placement.instance_start[expert] = 2 * expert;
        scene.placement.rank[2 * expert] = N - 2 - expert;
        scene.placement.rank[2 * expert + 1] = N - 1 - expert;
        scene.total[expert] = expert == N - 2 ? 200 : 100;
    }
    scene.placement.instance_start[N - 1] = 2 * (N - 1);
    mt_placement_check(&scene.placement);
    const int64_t largest =
        mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota);
    assert_int_equal(largest, 100);
    for (int expert = 0; expert < N - 2; ++expert) {
        assert_int_equal(scene.instance_quota[2 * expert], 0);
    }
    mt_scene_clear(&scene);
}

static void settling_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    mt_scene_make(&scene, 5, 30, 30, 1);
    const int64_t n_allocated = mt_memory_n_allocated();
    mt_split(MT_SPLIT_SETTLED, &scene.cluster, &scene.placement, scene.counts, &scene.scratch,
             scene.quota);
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    mt_scene_clear(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_load_is_the_least_possible),
        cmocka_unit_test(every_row_has_a_source_and_a_target_up_to_64_ranks),
        cmocka_unit_test(an_instance_takes_rows_of_its_own_rank_first),
        cmocka_unit_test(a_small_case_by_hand),
        cmocka_unit_test(rows_move_along_chains_of_any_length),
        cmocka_unit_test(settling_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
