/* The check of plans finds every planted fault, and nothing where there is none. */
#include "support/test.h"

#include "comm/cases.h"

#include <string.h>

enum { N_RANK = 4, BLOCK = 64 };

/* Plans of all ranks for one collective with equal blocks, and the sizes of their buffers. */
struct set {
    struct mt_topology topology;
    struct mt_plan plan[N_RANK];
    int64_t buffer_bytes[N_RANK][MT_N_BUFFER];
};

static void make(struct set *set, enum test_kind kind)
{
    MT_TEST_OK(mt_topology_init(&set->topology, N_RANK, 3));
    for (int rank = 0; rank < N_RANK; ++rank) {
        struct test_case test;
        test_case_create(&test,
                         (struct test_spec){.kind = kind, .shape = TEST_EVEN, .scale = BLOCK + 1},
                         &set->topology, rank);
        memcpy(set->buffer_bytes[rank], test.buffer_bytes, sizeof(test.buffer_bytes));
        MT_TEST_OK(mt_plan_init(&set->plan[rank], test.plan.n_op + 4));
        const struct mt_plan storage = set->plan[rank];
        memcpy(storage.op, test.plan.op, (size_t)test.plan.n_op * sizeof(storage.op[0]));
        set->plan[rank] = test.plan;
        set->plan[rank].op = storage.op;
        set->plan[rank].max_op = storage.max_op;
        test_case_clear(&test);
    }
}

static void clear(struct set *set)
{
    for (int rank = 0; rank < N_RANK; ++rank) {
        mt_plan_clear(&set->plan[rank]);
    }
    mt_topology_clear(&set->topology);
}

static enum mt_status check(const struct set *set)
{
    return mt_plan_check(set->plan, N_RANK, set->buffer_bytes);
}

/* The first op of a kind in a rank's plan. */
static struct mt_op *find(struct set *set, int rank, enum mt_op_kind kind)
{
    struct mt_plan *plan = &set->plan[rank];
    for (int64_t i = 0; i < plan->n_op; ++i) {
        if (plan->op[i].kind == kind) {
            return &plan->op[i];
        }
    }
    fail_msg("no op of kind %d", (int)kind);
    return NULL;
}

static void drop(struct mt_plan *plan, const struct mt_op *op)
{
    for (int64_t i = op - plan->op; i + 1 < plan->n_op; ++i) {
        plan->op[i] = plan->op[i + 1];
    }
    --plan->n_op;
}

static void every_algorithm_passes_the_check(void **state)
{
    MT_UNUSED(state);
    for (int kind = 0; kind < TEST_N_KIND; ++kind) {
        struct set set;
        make(&set, (enum test_kind)kind);
        MT_TEST_OK(check(&set));
        MT_TEST_OK(mt_plan_check(set.plan, N_RANK, NULL));
        clear(&set);
    }
}

static void a_missing_receive_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLTOALLV);
    drop(&set.plan[2], find(&set, 2, MT_OP_RECV));
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "rank 2 does not receive");
    clear(&set);
}

static void a_missing_send_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLTOALLV);
    drop(&set.plan[3], find(&set, 3, MT_OP_SEND));
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "rank 3 does not send");
    clear(&set);
}

static void a_size_mismatch_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLGATHERV);
    find(&set, 1, MT_OP_SEND)->n_bytes -= 1;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "both ends must agree");
    clear(&set);
}

static void another_round_at_one_end_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLREDUCE);
    /* rank 1's last op is the result's arrival in round 2: receive it in round 1 */
    set.plan[1].op[set.plan[1].n_op - 1].round = 1;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "both ends must agree");
    clear(&set);
}

static void messages_of_a_pair_in_another_order_are_caught(void **state)
{
    MT_UNUSED(state);
    struct mt_plan plan[2];
    MT_TEST_OK(mt_plan_init(&plan[0], 2));
    MT_TEST_OK(mt_plan_init(&plan[1], 2));
    mt_plan_reset(&plan[0], "pair", MT_ELEMENT_BYTE);
    mt_plan_send(&plan[0], 0, 1, MT_BUFFER_SEND, 0, 10);
    mt_plan_send(&plan[0], 0, 1, MT_BUFFER_SEND, 10, 20);
    mt_plan_reset(&plan[1], "pair", MT_ELEMENT_BYTE);
    mt_plan_recv(&plan[1], 0, 0, MT_BUFFER_RECV, 10, 20);
    mt_plan_recv(&plan[1], 0, 0, MT_BUFFER_RECV, 0, 10);
    MT_TEST_FAILS(mt_plan_check(plan, 2, NULL), MT_ERR_INTERNAL, "both ends must agree");
    mt_plan_clear(&plan[0]);
    mt_plan_clear(&plan[1]);
}

static void rounds_out_of_order_are_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLREDUCE);
    struct mt_op *op = set.plan[0].op;
    const int64_t last = set.plan[0].n_op - 1;
    const struct mt_op first = op[0];
    op[0] = op[last];
    op[last] = first;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "out of order");
    clear(&set);
}

static void overlapping_receives_are_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLTOALLV);
    struct mt_op *op = find(&set, 0, MT_OP_RECV);
    op[1].offset_bytes = op[0].offset_bytes - BLOCK + 1;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "is received (op");
    clear(&set);
}

static void a_copy_over_a_receive_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLTOALLV);
    find(&set, 0, MT_OP_COPY)->offset_bytes = find(&set, 0, MT_OP_RECV)->offset_bytes;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "written by a copy");
    clear(&set);
}

static void writing_what_is_sent_is_caught(void **state)
{
    static const enum mt_op_kind kinds[] = {MT_OP_RECV, MT_OP_COPY};
    MT_UNUSED(state);
    for (int i = 0; i < 2; ++i) {
        struct set set;
        make(&set, TEST_ALLTOALLV);
        struct mt_op *op = find(&set, 1, kinds[i]);
        op->buffer = MT_BUFFER_SEND;
        op->offset_bytes = find(&set, 1, MT_OP_SEND)->offset_bytes + BLOCK - 1;
        MT_TEST_FAILS(mt_plan_check(set.plan, N_RANK, NULL), MT_ERR_INTERNAL, "sent (op");
        clear(&set);
    }
}

static void adding_to_what_is_sent_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_REDUCE_SCATTER);
    struct mt_op *op = find(&set, 1, MT_OP_ADD);
    op->buffer = MT_BUFFER_SEND;
    op->offset_bytes = find(&set, 1, MT_OP_SEND)->offset_bytes;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "added to");
    clear(&set);
}

static void a_copy_of_what_arrives_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLGATHERV);
    struct mt_op *op = find(&set, 1, MT_OP_COPY);
    op->from_buffer = MT_BUFFER_RECV;
    op->from_offset_bytes = find(&set, 1, MT_OP_RECV)->offset_bytes;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "read by a copy");
    clear(&set);
}

static void a_copy_of_what_is_added_to_is_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_REDUCE_SCATTER);
    struct mt_plan *plan = &set.plan[0];
    plan->op[plan->n_op] = (struct mt_op){.kind = MT_OP_COPY,
                                          .peer = -1,
                                          .buffer = MT_BUFFER_STAGE,
                                          .offset_bytes = 1 << 20,
                                          .from_buffer = MT_BUFFER_RECV,
                                          .n_bytes = 4};
    ++plan->n_op;
    MT_TEST_FAILS(mt_plan_check(set.plan, N_RANK, NULL), MT_ERR_INTERNAL, "read by a copy");
    clear(&set);
}

static void sums_to_one_place_pass_and_to_half_of_it_are_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_REDUCE_SCATTER);
    MT_TEST_OK(check(&set)); /* three adds to one block */
    struct mt_op *op = find(&set, 0, MT_OP_ADD);
    op->n_bytes -= 8;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "added to");
    clear(&set);
}

/* Moves every op of a kind in rank 2's plan: 1 = one byte too far, else to that offset. */
static void move_out(struct set *set, enum mt_op_kind kind, int64_t offset)
{
    for (int64_t at = 0; at < set->plan[2].n_op; ++at) {
        struct mt_op *op = &set->plan[2].op[at];
        if (op->kind == kind) {
            const int64_t end = set->buffer_bytes[2][op->buffer] - op->n_bytes;
            op->offset_bytes = offset == 1 ? end + 1 : offset;
        }
    }
}

static void ops_out_of_bounds_are_caught(void **state)
{
    static const int64_t offsets[] = {1, -1000000, INT64_MAX};
    MT_UNUSED(state);
    for (int i = 0; i < 3; ++i) {
        for (int kind = MT_OP_SEND; kind <= MT_OP_COPY; ++kind) {
            struct set set;
            make(&set, TEST_ALLTOALLV);
            move_out(&set, (enum mt_op_kind)kind, offsets[i]);
            MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "out of bounds");
            clear(&set);
        }
    }
}

static void nonsense_ops_are_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_ALLTOALLV);
    struct mt_op *op = find(&set, 1, MT_OP_SEND);
    const struct mt_op good = *op;
    op->peer = 1;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "names peer 1");
    op->peer = N_RANK;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "names peer 4");
    *op = good;
    op->buffer = MT_N_BUFFER;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "names buffer 3");
    *op = good;
    op->n_bytes = 0;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "0 bytes");
    *op = good;
    set.plan[1].name = "allgatherv";
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "same collective");
    clear(&set);
}

static void sums_of_parts_of_elements_are_caught(void **state)
{
    MT_UNUSED(state);
    struct set set;
    make(&set, TEST_REDUCE_SCATTER);
    find(&set, 1, MT_OP_ADD)->from_offset_bytes += 2;
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "added whole");
    for (int rank = 0; rank < N_RANK; ++rank) {
        set.plan[rank].element = MT_ELEMENT_BYTE;
    }
    MT_TEST_FAILS(check(&set), MT_ERR_INTERNAL, "adds bytes");
    clear(&set);
}

enum touch { SEND_READS, RECV_WRITES, COPY_READS, COPY_WRITES, ADD_READS, ADD_WRITES, N_TOUCH };

/* An op that touches 8 bytes of STAGE at `offset` in one way; what else it touches lies apart. */
static void append_touch(struct mt_plan *plan, enum touch touch, int64_t offset)
{
    const struct mt_place here = {MT_BUFFER_STAGE, offset};
    const struct mt_place apart = {MT_BUFFER_RECV, 100 * plan->n_op};
    switch (touch) {
    case SEND_READS:
        mt_plan_send(plan, 0, 1, here.buffer, here.offset_bytes, 8);
        break;
    case RECV_WRITES:
        mt_plan_recv(plan, 0, 1, here.buffer, here.offset_bytes, 8);
        break;
    case COPY_READS:
        mt_plan_copy(plan, 0, apart, here, 8);
        break;
    case COPY_WRITES:
        mt_plan_copy(plan, 0, here, apart, 8);
        break;
    case ADD_READS:
        mt_plan_add(plan, 0, apart, here, 8);
        break;
    default:
        mt_plan_add(plan, 0, here, apart, 8);
    }
}

/* Sends and copies run together with receives, adds after both and one after another. */
static void every_two_ways_to_touch_bytes_are_judged_right(void **state)
{
    static const bool is_allowed[N_TOUCH][N_TOUCH] = {
        [SEND_READS] = {[SEND_READS] = true, [COPY_READS] = true, [ADD_READS] = true},
        [RECV_WRITES] = {[ADD_READS] = true, [ADD_WRITES] = true},
        [COPY_READS] = {[SEND_READS] = true, [COPY_READS] = true, [ADD_READS] = true},
        [COPY_WRITES] = {[ADD_READS] = true, [ADD_WRITES] = true},
        [ADD_READS] = {[SEND_READS] = true,
                       [RECV_WRITES] = true,
                       [COPY_READS] = true,
                       [COPY_WRITES] = true,
                       [ADD_READS] = true},
        [ADD_WRITES] = {[RECV_WRITES] = true, [COPY_WRITES] = true}};
    MT_UNUSED(state);
    struct mt_plan plan[2];
    MT_TEST_OK(mt_plan_init(&plan[0], 2));
    MT_TEST_OK(mt_plan_init(&plan[1], 2));
    mt_plan_reset(&plan[1], "touch", MT_ELEMENT_F32);
    for (int i = 0; i < N_TOUCH * N_TOUCH * 3; ++i) {
        const enum touch first = (enum touch)(i % N_TOUCH);
        const enum touch second = (enum touch)(i / N_TOUCH % N_TOUCH);
        const int64_t distance = 4 * (int64_t)(i / (N_TOUCH * N_TOUCH) - 1); /* -4, 0, 4 */
        const bool is_sum = first == ADD_WRITES && second == ADD_WRITES && distance == 0;
        mt_plan_reset(&plan[0], "touch", MT_ELEMENT_F32);
        append_touch(&plan[0], first, 8);
        append_touch(&plan[0], second, 8 + distance);
        /* messages lack their other end here: only the clash is of interest */
        const bool is_clash = mt_plan_check(plan, 2, NULL) != MT_OK &&
                              strstr(mt_error_last()->text, "must not depend") != NULL;
        mt_error_clear();
        if (is_clash == (is_allowed[first][second] || is_sum)) {
            fail_msg("ways %d and %d at distance %d", (int)first, (int)second, (int)distance);
        }
    }
    mt_plan_clear(&plan[0]);
    mt_plan_clear(&plan[1]);
}

/* One random change to one random message of one rank never passes. */
static void any_change_to_a_message_is_caught(void **state)
{
    MT_UNUSED(state);
    for (uint64_t seed = 0; seed < 3000; ++seed) {
        struct set set;
        make(&set, (enum test_kind)(seed % TEST_N_KIND));
        struct mt_plan *plan = &set.plan[test_mix(seed, 1, 0) % N_RANK];
        struct mt_op *op = &plan->op[test_mix(seed, 2, 0) % (uint64_t)plan->n_op];
        const uint64_t change = test_mix(seed, 3, 0) % 5;
        if (op->kind != MT_OP_SEND && op->kind != MT_OP_RECV) {
            clear(&set);
            continue;
        }
        if (change == 0) {
            op->n_bytes -= 1;
        } else if (change == 1) {
            op->round += 1;
        } else if (change == 2) {
            op->peer = (op->peer + 1) % N_RANK;
        } else if (change == 3) {
            op->kind = op->kind == MT_OP_SEND ? MT_OP_RECV : MT_OP_SEND;
        } else {
            drop(plan, op);
        }
        if (check(&set) == MT_OK) {
            fail_msg("change %d of seed %d passed", (int)change, (int)seed);
        }
        mt_error_clear();
        clear(&set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_algorithm_passes_the_check),
        cmocka_unit_test(a_missing_receive_is_caught),
        cmocka_unit_test(a_missing_send_is_caught),
        cmocka_unit_test(a_size_mismatch_is_caught),
        cmocka_unit_test(another_round_at_one_end_is_caught),
        cmocka_unit_test(messages_of_a_pair_in_another_order_are_caught),
        cmocka_unit_test(rounds_out_of_order_are_caught),
        cmocka_unit_test(overlapping_receives_are_caught),
        cmocka_unit_test(a_copy_over_a_receive_is_caught),
        cmocka_unit_test(writing_what_is_sent_is_caught),
        cmocka_unit_test(adding_to_what_is_sent_is_caught),
        cmocka_unit_test(a_copy_of_what_arrives_is_caught),
        cmocka_unit_test(a_copy_of_what_is_added_to_is_caught),
        cmocka_unit_test(sums_to_one_place_pass_and_to_half_of_it_are_caught),
        cmocka_unit_test(ops_out_of_bounds_are_caught),
        cmocka_unit_test(nonsense_ops_are_caught),
        cmocka_unit_test(sums_of_parts_of_elements_are_caught),
        cmocka_unit_test(every_two_ways_to_touch_bytes_are_judged_right),
        cmocka_unit_test(any_change_to_a_message_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
