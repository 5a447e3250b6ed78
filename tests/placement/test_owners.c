/* Owners: contiguous shares that differ by at most one, the larger ones in turn over layers. */
#include "support/test.h"

#include "base/memory.h"
#include "placement/placement.h"

enum { MAX_RANK = 20, MAX_EXPERT = 70 };

static void shares_differ_by_at_most_one(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= MAX_RANK; ++n_rank) {
        for (int n_expert = 1; n_expert <= MAX_EXPERT; ++n_expert) {
            struct mt_placement placement;
            int n_own[MAX_RANK] = {0};
            MT_TEST_OK(mt_placement_init(&placement, n_rank, n_expert, n_expert));
            mt_placement_default_owners(&placement, n_expert % 5);
            mt_placement_check(&placement);
            assert_int_equal(mt_placement_n_instance(&placement), n_expert);
            for (int expert = 0; expert < n_expert; ++expert) {
                assert_int_equal(placement.rank[expert], placement.owner[expert]);
                ++n_own[placement.owner[expert]];
            }
            for (int rank = 0; rank < n_rank; ++rank) {
                assert_in_range(n_own[rank], n_expert / n_rank, (n_expert + n_rank - 1) / n_rank);
            }
            mt_placement_clear(&placement);
        }
    }
}

static void eight_experts_on_three_ranks_are_3_3_2(void **state)
{
    static const int layer_0[8] = {0, 0, 0, 1, 1, 1, 2, 2};
    static const int layer_1[8] = {2, 2, 2, 0, 0, 0, 1, 1};
    MT_UNUSED(state);
    struct mt_placement placement;
    MT_TEST_OK(mt_placement_init(&placement, 3, 8, 8));
    mt_placement_default_owners(&placement, 0);
    assert_memory_equal(placement.owner, layer_0, sizeof(layer_0));
    mt_placement_default_owners(&placement, 1);
    assert_memory_equal(placement.owner, layer_1, sizeof(layer_1));
    mt_placement_clear(&placement);
}

/* Largest minus smallest number of experts. */
static int spread_of(const int *n_own, int n_rank)
{
    int least = n_own[0];
    int most = n_own[0];
    for (int rank = 1; rank < n_rank; ++rank) {
        least = n_own[rank] < least ? n_own[rank] : least;
        most = n_own[rank] > most ? n_own[rank] : most;
    }
    return most - least;
}

static void check_layers(int n_rank, int n_expert)
{
    struct mt_placement placement;
    int n_own[MAX_RANK] = {0};
    MT_TEST_OK(mt_placement_init(&placement, n_rank, n_expert, n_expert));
    for (int layer = 0; layer < 12; ++layer) {
        mt_placement_default_owners(&placement, layer);
        for (int expert = 0; expert < n_expert; ++expert) {
            ++n_own[placement.owner[expert]];
        }
        assert_in_range(spread_of(n_own, n_rank), 0, 1);
    }
    mt_placement_clear(&placement);
}

static void over_layers_ranks_own_equally_many(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= MAX_RANK; ++n_rank) {
        for (int n_expert = 1; n_expert <= 40; ++n_expert) {
            check_layers(n_rank, n_expert);
        }
    }
}

static void fewer_experts_than_ranks_have_other_owners_in_the_next_layer(void **state)
{
    MT_UNUSED(state);
    struct mt_placement placement;
    MT_TEST_OK(mt_placement_init(&placement, 8, 3, 3));
    for (int layer = 0; layer < 8; ++layer) {
        mt_placement_default_owners(&placement, layer);
        for (int expert = 0; expert < 3; ++expert) {
            assert_int_equal(placement.owner[expert], (3 * layer + expert) % 8);
        }
    }
    mt_placement_default_owners(&placement, 2147483647); /* no overflow on the way */
    mt_placement_check(&placement);
    mt_placement_clear(&placement);
}

static void a_new_placement_is_valid(void **state)
{
    MT_UNUSED(state);
    struct mt_placement placement;
    const int64_t n_live = mt_memory_n_live();
    MT_TEST_OK(mt_placement_init(&placement, 4, 6, 20));
    mt_placement_check(&placement);
    mt_placement_clear(&placement);
    assert_int_equal(mt_memory_n_live(), n_live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_differ_by_at_most_one),
        cmocka_unit_test(eight_experts_on_three_ranks_are_3_3_2),
        cmocka_unit_test(over_layers_ranks_own_equally_many),
        cmocka_unit_test(fewer_experts_than_ranks_have_other_owners_in_the_next_layer),
        cmocka_unit_test(a_new_placement_is_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
