/* EPLB: its published example, and what the policy makes of it. */
#include "support/test.h"

#include "placement/eplb.h"

#include <string.h>

/* 2 layers, 12 experts in 4 groups, 16 slots on 8 ranks of 2 nodes: the example of its README. */
static void the_published_example_comes_out_exactly(void **state)
{
    static const int64_t load[2][12] = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                                        {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
    static const int wanted[2][16] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                      {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};
    static const struct mt_eplb_shape shape = {
        .n_expert = 12, .n_slot = 16, .n_group = 4, .n_node = 2, .n_rank = 8};
    MT_UNUSED(state);
    struct mt_arena scratch;
    MT_TEST_OK(mt_arena_init(&scratch, 1 << 16, "test"));
    for (int layer = 0; layer < 2; ++layer) {
        int expert[16];
        mt_eplb_pack(load[layer], &shape, &scratch, expert);
        assert_memory_equal(expert, wanted[layer], sizeof(expert));
        assert_int_equal(mt_arena_mark(&scratch), 0);
    }
    mt_arena_clear(&scratch);
}

/* The example has no ties; ranks must break them alike. */
static void ties_go_to_lower_experts_and_ranks(void **state)
{
    static const int64_t load[4] = {5, 5, 5, 5};
    static const int wanted_replica[4] = {2, 2, 1, 1};
    static const int wanted[4] = {0, 2, 1, 3};
    static const struct mt_eplb_shape shape = {
        .n_expert = 4, .n_slot = 4, .n_group = 1, .n_node = 1, .n_rank = 2};
    MT_UNUSED(state);
    struct mt_arena scratch;
    int n_replica[4];
    int expert[4];
    MT_TEST_OK(mt_arena_init(&scratch, 1 << 16, "test"));
    mt_eplb_replicate(load, 4, 6, 2, n_replica, NULL);
    assert_memory_equal(n_replica, wanted_replica, sizeof(n_replica));
    mt_eplb_pack(load, &shape, &scratch, expert);
    assert_memory_equal(expert, wanted, sizeof(expert));
    mt_arena_clear(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_example_comes_out_exactly),
        cmocka_unit_test(ties_go_to_lower_experts_and_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
