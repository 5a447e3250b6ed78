/* Every algorithm on 1 to 64 virtual ranks, messages arriving in seeded random order. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/world.h"

static const int rank_matrix[] = {1, 2, 3, 4, 6, 7, 8, 16, 64};
enum { N_RANK_MATRIX = (int)(sizeof(rank_matrix) / sizeof(rank_matrix[0])), SCALE = 40 };

/* A message takes one delivery, a delivery at least one poll of some rank. */
static int64_t enough_steps(int n_rank, int n_job)
{
    return 20000 + 400 * (int64_t)n_rank * n_rank * n_job;
}

static void run_one(struct test_world *world, struct test_spec spec)
{
    test_world_add(world, spec);
    MT_TEST_OK(test_world_check(world, 0));
    if (!test_world_drive(world, enough_steps(world->n_rank, 1))) {
        fail_msg("%s is stuck: shape %d, seed %llu, %d ranks", test_kind_name(spec.kind),
                 (int)spec.shape, (unsigned long long)spec.seed, world->n_rank);
    }
    test_world_finish(world);
}

static void run_matrix(enum test_kind kind)
{
    const int64_t n_live = mt_memory_n_live();
    for (int i = 0; i < N_RANK_MATRIX; ++i) {
        const int n_rank = rank_matrix[i];
        for (int ranks_per_node = 0; ranks_per_node <= 4; ++ranks_per_node) {
            const int n_seed = n_rank > 16 ? 1 : 6;
            struct test_world world;
            test_world_create(&world, n_rank, ranks_per_node, NULL, 100 + (uint64_t)i);
            for (int shape = 0; shape < TEST_N_SHAPE * n_seed; ++shape) {
                run_one(&world, (struct test_spec){.kind = kind,
                                                   .shape = (enum test_shape)(shape % TEST_N_SHAPE),
                                                   .seed = (uint64_t)(shape * 7 + ranks_per_node),
                                                   .scale = SCALE});
            }
            test_world_clear(&world);
        }
    }
    assert_int_equal(mt_memory_n_live(), n_live);
}

static void alltoallv_delivers_every_block_in_rank_order(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_ALLTOALLV);
}

static void two_level_alltoallv_delivers_what_direct_does(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_TWO_LEVEL);
}

static void leader_alltoallv_delivers_what_direct_does(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_LEADER);
}

static void deduplicated_rows_reach_every_expert(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_DEDUPLICATED);
}

static void deduplicated_rows_come_back_summed_by_node(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_DEDUPLICATED_BACK);
}

static void workers_learn_the_numbers_of_their_rows(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_ROW_NUMBERS);
}

static void allgatherv_gives_all_blocks_to_all(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_ALLGATHERV);
}

static void reduce_scatter_adds_in_rank_order(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_REDUCE_SCATTER);
}

static void allreduce_adds_by_member_then_by_node(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_ALLREDUCE);
}

static void sparse_allgather_fills_every_copy(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_ALLGATHER);
}

static void sparse_reduce_scatter_adds_copies_in_rank_order(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_REDUCE_SCATTER);
}

static void relayed_sparse_allgather_fills_every_copy(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_ALLGATHER_RELAY);
}

static void relayed_sparse_reduce_scatter_adds_along_the_hops(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_REDUCE_RELAY);
}

static void chained_sparse_allgather_fills_every_copy(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_ALLGATHER_CHAIN);
}

static void chained_sparse_reduce_scatter_adds_by_rank_then_by_node(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_REDUCE_CHAIN);
}

static void owners_copy_their_own_chunks_where_they_hold_them(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_ALLGATHER_OWN);
}

static void paced_sparse_reduce_scatter_adds_by_distance(void **state)
{
    MT_UNUSED(state);
    run_matrix(TEST_SPARSE_REDUCE_PACED);
}

static void sparse_plans_work_within_one_buffer(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_RANK_MATRIX; ++i) {
        struct test_world world;
        test_world_create(&world, rank_matrix[i], 3, NULL, (uint64_t)i);
        for (int shape = 0; shape < TEST_N_SHAPE; ++shape) {
            struct test_spec spec = {.shape = (enum test_shape)shape,
                                     .seed = (uint64_t)(shape + 50),
                                     .scale = SCALE,
                                     .is_one_buffer = true};
            /* not TEST_SPARSE_REDUCE_RELAY: what must be left of RECV would hold partial sums */
            for (int kind = TEST_SPARSE_ALLGATHER; kind <= TEST_SPARSE_ALLGATHER_RELAY; ++kind) {
                spec.kind = (enum test_kind)kind;
                run_one(&world, spec);
            }
        }
        test_world_clear(&world);
    }
}

static void uneven_nodes_in_any_numbering_work(void **state)
{
    static const int node[7] = {9, 2, 2, 9, 2, 5, 2};
    MT_UNUSED(state);
    struct test_world world;
    test_world_create(&world, 7, 0, node, 3);
    assert_int_equal(world.comm[0].topology.n_node, 3);
    for (int kind = 0; kind < TEST_N_KIND; ++kind) {
        for (uint64_t seed = 0; seed < 6; ++seed) {
            run_one(&world,
                    (struct test_spec){.kind = (enum test_kind)kind, .seed = seed, .scale = SCALE});
        }
    }
    test_world_clear(&world);
}

/* Nodes drawn at random: sizes from 1, members anywhere. */
static void all_to_alls_work_on_any_nodes(void **state)
{
    static const enum test_kind kinds[] = {TEST_TWO_LEVEL, TEST_LEADER, TEST_DEDUPLICATED,
                                           TEST_ROW_NUMBERS, TEST_DEDUPLICATED_BACK};
    MT_UNUSED(state);
    for (uint64_t seed = 0; seed < 60; ++seed) {
        const int n_rank = 2 + (int)(seed % 13);
        int node[TEST_MAX_RANK];
        struct test_world world;
        for (int rank = 0; rank < n_rank; ++rank) {
            const uint64_t bits = test_mix(seed, 77, (uint64_t)rank);
            node[rank] = (int)(bits % (1 + seed % 6));
        }
        test_world_create(&world, n_rank, 0, node, seed);
        for (int i = 0; i < 5 * TEST_N_SHAPE; ++i) {
            run_one(&world, (struct test_spec){.kind = kinds[i % 5],
                                               .shape = (enum test_shape)(i / 5),
                                               .seed = seed + (uint64_t)i,
                                               .scale = SCALE});
        }
        test_world_clear(&world);
    }
}

/* All kinds in flight at once, begun and polled in random order on every rank. */
static void run_mixed(int n_rank, int ranks_per_node, uint64_t seed, int64_t slice_bytes)
{
    struct test_world world;
    test_world_create(&world, n_rank, ranks_per_node, NULL, seed);
    for (int rank = 0; rank < n_rank; ++rank) {
        world.comm[rank].slice_bytes = slice_bytes;
    }
    for (int job = 0; job < TEST_MAX_JOB; ++job) {
        const uint64_t bits = test_mix(seed, 5, (uint64_t)job);
        test_world_add(&world, (struct test_spec){.kind = (enum test_kind)(job % TEST_N_KIND),
                                                  .shape = (enum test_shape)(bits % TEST_N_SHAPE),
                                                  .seed = bits >> 20,
                                                  .scale = SCALE});
    }
    if (!test_world_drive(&world, enough_steps(n_rank, 4 * TEST_MAX_JOB))) {
        fail_msg("mixed collectives are stuck: %d ranks, seed %llu", n_rank,
                 (unsigned long long)seed);
    }
    test_world_finish(&world);
    test_world_clear(&world);
}

static void collectives_in_flight_together_do_not_mix(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_RANK_MATRIX; ++i) {
        const uint64_t n_seed = rank_matrix[i] > 16 ? 2 : 20;
        for (uint64_t seed = 0; seed < n_seed; ++seed) {
            run_mixed(rank_matrix[i], (int)(seed % 5), seed + 1, MT_TRANSPORT_MAX_BYTES);
        }
    }
}

static void sliced_messages_arrive_whole(void **state)
{
    static const int64_t slices[] = {1, 3, 8, 17, 64};
    MT_UNUSED(state);
    for (int i = 0; i < 5; ++i) {
        run_mixed(3 + i, 2, 40 + (uint64_t)i, slices[i]);
    }
}

/* Takes one op out of one rank's plan. */
static void drop_op(struct mt_plan *plan, enum mt_op_kind kind)
{
    int64_t at = 0;
    while (at < plan->n_op && plan->op[at].kind != kind) {
        ++at;
    }
    assert_true(at < plan->n_op);
    for (--plan->n_op; at < plan->n_op; ++at) {
        plan->op[at] = plan->op[at + 1];
    }
}

static void a_plan_with_a_lost_message_never_completes(void **state)
{
    static const enum mt_op_kind lost[] = {MT_OP_SEND, MT_OP_RECV};
    MT_UNUSED(state);
    for (int i = 0; i < 2; ++i) {
        for (int kind = 0; kind < TEST_N_KIND; ++kind) {
            struct test_world world;
            test_world_create(&world, 4, 2, NULL, 11);
            test_world_add(&world, (struct test_spec){.kind = (enum test_kind)kind,
                                                      .shape = TEST_EVEN,
                                                      .seed = 1,
                                                      .scale = SCALE});
            drop_op(&world.test[0][2].plan, lost[i]);
            assert_int_equal(test_world_check(&world, 0), MT_ERR_INTERNAL);
            mt_error_clear();
            assert_false(test_world_drive(&world, enough_steps(4, 1)));
            test_world_clear(&world);
        }
    }
}

static void traffic_counts_sent_bytes_by_collective(void **state)
{
    MT_UNUSED(state);
    struct test_world world;
    test_world_create(&world, 5, 2, NULL, 21);
    int64_t sent_bytes[TEST_N_NAME];
    for (int kind = 0; kind < TEST_N_NAME; ++kind) {
        test_world_add(&world,
                       (struct test_spec){.kind = (enum test_kind)kind, .seed = 3, .scale = SCALE});
        sent_bytes[kind] = mt_plan_sent_bytes(&world.test[kind][1].plan);
    }
    assert_true(test_world_drive(&world, enough_steps(5, TEST_N_NAME)));
    assert_int_equal(world.comm[1].n_traffic, TEST_N_NAME);
    for (int kind = 0; kind < TEST_N_NAME; ++kind) {
        assert_string_equal(world.comm[1].traffic[kind].name, test_kind_name((enum test_kind)kind));
        assert_int_equal(world.comm[1].traffic[kind].sent_bytes, sent_bytes[kind]);
    }
    mt_comm_reset_traffic(&world.comm[1]);
    assert_int_equal(world.comm[1].n_traffic, 0);
    test_world_finish(&world);
    test_world_clear(&world);
}

static void transport_sim_refuses_messages_that_do_not_fit(void **state)
{
    MT_UNUSED(state);
    struct mt_transport *transport[2];
    union mt_request request[2];
    char data[8] = {0};
    MT_TEST_OK(mt_transport_create_sim(2, 1, transport));
    transport[0]->verbs->group_begin(transport[0]);
    MT_TEST_OK(transport[0]->verbs->post_send(transport[0], 1, 5, data, 4, &request[0]));
    MT_TEST_OK(transport[0]->verbs->group_end(transport[0]));
    transport[1]->verbs->group_begin(transport[1]);
    MT_TEST_FAILS(transport[1]->verbs->post_recv(transport[1], 0, 5, data, 8, &request[1]),
                  MT_ERR_INTERNAL, "4 bytes meets a receive of 8");
    MT_TEST_OK(transport[1]->verbs->group_end(transport[1]));
    mt_transport_destroy(transport[0]);
    mt_transport_destroy(transport[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alltoallv_delivers_every_block_in_rank_order),
        cmocka_unit_test(two_level_alltoallv_delivers_what_direct_does),
        cmocka_unit_test(leader_alltoallv_delivers_what_direct_does),
        cmocka_unit_test(deduplicated_rows_reach_every_expert),
        cmocka_unit_test(deduplicated_rows_come_back_summed_by_node),
        cmocka_unit_test(workers_learn_the_numbers_of_their_rows),
        cmocka_unit_test(allgatherv_gives_all_blocks_to_all),
        cmocka_unit_test(reduce_scatter_adds_in_rank_order),
        cmocka_unit_test(allreduce_adds_by_member_then_by_node),
        cmocka_unit_test(sparse_allgather_fills_every_copy),
        cmocka_unit_test(sparse_reduce_scatter_adds_copies_in_rank_order),
        cmocka_unit_test(relayed_sparse_allgather_fills_every_copy),
        cmocka_unit_test(relayed_sparse_reduce_scatter_adds_along_the_hops),
        cmocka_unit_test(chained_sparse_allgather_fills_every_copy),
        cmocka_unit_test(chained_sparse_reduce_scatter_adds_by_rank_then_by_node),
        cmocka_unit_test(owners_copy_their_own_chunks_where_they_hold_them),
        cmocka_unit_test(paced_sparse_reduce_scatter_adds_by_distance),
        cmocka_unit_test(sparse_plans_work_within_one_buffer),
        cmocka_unit_test(uneven_nodes_in_any_numbering_work),
        cmocka_unit_test(all_to_alls_work_on_any_nodes),
        cmocka_unit_test(collectives_in_flight_together_do_not_mix),
        cmocka_unit_test(sliced_messages_arrive_whole),
        cmocka_unit_test(a_plan_with_a_lost_message_never_completes),
        cmocka_unit_test(traffic_counts_sent_bytes_by_collective),
        cmocka_unit_test(transport_sim_refuses_messages_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
