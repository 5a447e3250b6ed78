/* Nodes and groups: given, computed, discovered. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "comm/topology.h"

static void consecutive_ranks_form_nodes_and_the_last_may_be_smaller(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 20; ++n_rank) {
        for (int size = 1; size <= 21; ++size) {
            struct mt_topology topology;
            MT_TEST_OK(mt_topology_init(&topology, n_rank, size));
            mt_topology_check(&topology);
            assert_int_equal(topology.n_node, (n_rank + size - 1) / size);
            for (int rank = 0; rank < n_rank; ++rank) {
                assert_int_equal(topology.node[rank], rank / size);
                assert_int_equal(topology.local[rank], rank % size);
                assert_int_equal(mt_topology_leader(&topology, topology.node[rank]),
                                 rank / size * size);
            }
            mt_topology_clear(&topology);
        }
    }
}

static void without_a_node_size_there_is_one_node(void **state)
{
    MT_UNUSED(state);
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_init(&topology, 5, 0));
    mt_topology_check(&topology);
    assert_int_equal(topology.n_node, 1);
    assert_int_equal(mt_topology_node_size(&topology, 0), 5);
    mt_topology_clear(&topology);
}

static void scattered_nodes_are_numbered_by_their_lowest_rank(void **state)
{
    static const int node[6] = {70, -3, 70, 12, -3, 70};
    static const int want_node[6] = {0, 1, 0, 2, 1, 0};
    static const int want_local[6] = {0, 0, 1, 0, 1, 2};
    static const int want_member[6] = {0, 2, 5, 1, 4, 3};
    MT_UNUSED(state);
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_init_nodes(&topology, 6, node));
    mt_topology_check(&topology);
    assert_int_equal(topology.n_node, 3);
    assert_memory_equal(topology.node, want_node, sizeof(want_node));
    assert_memory_equal(topology.local, want_local, sizeof(want_local));
    assert_memory_equal(topology.member, want_member, sizeof(want_member));
    mt_topology_clear(&topology);
}

static void ranks_that_share_memory_are_found_to_be_a_node(void **state)
{
    MT_UNUSED(state);
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_discover(&topology, mt_job_world(), 0));
    mt_topology_check(&topology);
    assert_int_equal(topology.n_rank, mt_job_size());
    assert_int_equal(topology.n_node, 1); /* all ranks of a test run on one machine */
    mt_topology_clear(&topology);
}

static void a_given_node_size_overrides_what_is_found(void **state)
{
    MT_UNUSED(state);
    struct mt_topology topology;
    MT_TEST_OK(mt_topology_discover(&topology, mt_job_world(), 2));
    mt_topology_check(&topology);
    assert_int_equal(topology.n_node, (mt_job_size() + 1) / 2);
    mt_topology_clear(&topology);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(consecutive_ranks_form_nodes_and_the_last_may_be_smaller),
    cmocka_unit_test(without_a_node_size_there_is_one_node),
    cmocka_unit_test(scattered_nodes_are_numbered_by_their_lowest_rank),
    cmocka_unit_test(ranks_that_share_memory_are_found_to_be_a_node),
    cmocka_unit_test(a_given_node_size_overrides_what_is_found),
};
MT_TEST_MPI_MAIN(tests)
