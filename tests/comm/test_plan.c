/* Plans as data: hashed, printed, planned for sizes that no test allocates. */
#include "support/test.h"

#include "comm/collectives.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void the_hash_sees_every_field(void **state)
{
    MT_UNUSED(state);
    struct mt_plan plan;
    MT_TEST_OK(mt_plan_init(&plan, 8));
    mt_plan_reset(&plan, "sum", MT_ELEMENT_F32);
    mt_plan_recv(&plan, 0, 1, MT_BUFFER_STAGE, 0, 8);
    mt_plan_add(&plan, 0, (struct mt_place){MT_BUFFER_RECV, 0},
                (struct mt_place){MT_BUFFER_STAGE, 0}, 8);
    const uint64_t hash = mt_plan_hash(&plan);
    assert_true(mt_plan_hash(&plan) == hash);
    const struct mt_op op = plan.op[1];
    for (int field = 0; field < 8; ++field) {
        plan.op[1] = op;
        plan.op[1].kind = field == 0 ? MT_OP_COPY : op.kind;
        plan.op[1].round += field == 1;
        plan.op[1].peer += field == 2;
        plan.op[1].buffer += field == 3;
        plan.op[1].from_buffer += field == 4;
        plan.op[1].offset_bytes += field == 5;
        plan.op[1].from_offset_bytes += field == 6;
        plan.op[1].n_bytes += field == 7;
        assert_true(mt_plan_hash(&plan) != hash);
    }
    plan.op[1] = op;
    plan.element = MT_ELEMENT_F64;
    assert_true(mt_plan_hash(&plan) != hash);
    plan.element = MT_ELEMENT_F32;
    plan.name = "sun";
    assert_true(mt_plan_hash(&plan) != hash);
    plan.name = "sum";
    assert_true(mt_plan_hash(&plan) == hash);
    mt_plan_clear(&plan);
}

static void printing_names_what_moves_where(void **state)
{
    MT_UNUSED(state);
    char *text = NULL;
    size_t size = 0;
    static const int64_t blocks[4] = {256, 256, 256, 256};
    struct mt_topology topology;
    struct mt_plan plan;
    MT_TEST_OK(mt_topology_init(&topology, 4, 0));
    MT_TEST_OK(mt_plan_init(&plan, mt_plan_reduce_scatter_max_op(4)));
    mt_plan_reduce_scatter(&plan, &topology, 1, blocks, MT_ELEMENT_F32);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    mt_plan_print(&plan, out);
    (void)fclose(out);
    assert_non_null(strstr(text, "plan reduce_scatter: 9 ops in 1 rounds, element f32, sends 768"));
    assert_non_null(strstr(text, "recv 256 bytes RECV+0 from rank 0"));
    assert_non_null(strstr(text, "send 256 bytes SEND+512 to rank 2"));
    assert_non_null(strstr(text, "add 256 bytes RECV+0 <- SEND+256"));
    free(text);
    assert_int_equal(mt_plan_sent_bytes(&plan), 768);
    mt_plan_clear(&plan);
    mt_topology_clear(&topology);
}

/* 3 ranks, blocks of up to 5 GiB: sizes only. */
static void blocks_beyond_2_gib_are_planned(void **state)
{
    static const int64_t block = 5ll << 30;
    MT_UNUSED(state);
    struct mt_topology topology;
    struct mt_plan plan[3];
    int64_t bytes[3][MT_N_BUFFER];
    const int64_t blocks[3] = {block + 4, block + 8, block + 12};
    MT_TEST_OK(mt_topology_init(&topology, 3, 0));
    for (int rank = 0; rank < 3; ++rank) {
        MT_TEST_OK(mt_plan_init(&plan[rank], mt_plan_reduce_scatter_max_op(3)));
        mt_plan_reduce_scatter(&plan[rank], &topology, rank, blocks, MT_ELEMENT_F32);
        bytes[rank][MT_BUFFER_SEND] = 3 * block + 24;
        bytes[rank][MT_BUFFER_RECV] = blocks[rank];
        bytes[rank][MT_BUFFER_STAGE] = mt_plan_reduce_scatter_stage_bytes(3, rank, blocks);
        assert_int_equal(mt_plan_sent_bytes(&plan[rank]), 3 * block + 24 - blocks[rank]);
    }
    MT_TEST_OK(mt_plan_check(plan, 3, (const int64_t(*)[MT_N_BUFFER])bytes));
    bytes[2][MT_BUFFER_STAGE] -= 1;
    MT_TEST_FAILS(mt_plan_check(plan, 3, (const int64_t(*)[MT_N_BUFFER])bytes), MT_ERR_INTERNAL,
                  "out of bounds");
    for (int rank = 0; rank < 3; ++rank) {
        mt_plan_clear(&plan[rank]);
    }
    mt_topology_clear(&topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_sees_every_field),
        cmocka_unit_test(printing_names_what_moves_where),
        cmocka_unit_test(blocks_beyond_2_gib_are_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
