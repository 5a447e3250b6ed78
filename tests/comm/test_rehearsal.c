/* Messages that are late on purpose: at least as late as they should be, whole, and only between
 * nodes. How late at most depends on the machine and is not judged. */
#include "support/mpi_main.h"

#include "base/clock.h"
#include "base/job.h"
#include "comm/comm.h"

enum { N_ITEM = 8, MAX_RANK = 8 };

static void gather_once(struct mt_comm *comm)
{
    int64_t mine[N_ITEM];
    int64_t all[N_ITEM * MAX_RANK];
    for (int i = 0; i < N_ITEM; ++i) {
        mine[i] = comm->rank * 100 + i;
    }
    MT_TEST_OK(mt_comm_gather_i64(comm, mine, N_ITEM, all));
    for (int i = 0; i < N_ITEM * comm->topology.n_rank; ++i) {
        assert_int_equal(all[i], i / N_ITEM * 100 + i % N_ITEM);
    }
}

static void messages_between_nodes_arrive_one_after_another(void **state)
{
    enum { ALPHA_US = 3000, NS_PER_US = 1000 };
    MT_UNUSED(state);
    for (int ranks_per_node = 1; ranks_per_node <= 2; ++ranks_per_node) {
        struct mt_comm comm;
        MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), ranks_per_node));
        MT_TEST_OK(mt_comm_rehearse(&comm, ALPHA_US));
        const int n_rank = comm.topology.n_rank;
        const int64_t n_far =
            n_rank - mt_topology_node_size(&comm.topology, comm.topology.node[comm.rank]);
        for (int i = 0; i < 3; ++i) {
            const int64_t start_ns = mt_clock_ns();
            gather_once(&comm);
            assert_true(mt_clock_ns() - start_ns >= n_far * ALPHA_US * NS_PER_US);
        }
        mt_comm_clear(&comm);
    }
}

/* An hour late: this test would not end. */
static void nothing_is_late_inside_a_node(void **state)
{
    static const int64_t HOUR_US = 3600000000;
    MT_UNUSED(state);
    struct mt_comm comm;
    MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), 0));
    MT_TEST_OK(mt_comm_rehearse(&comm, HOUR_US));
    gather_once(&comm);
    mt_comm_clear(&comm);
}

static void without_alpha_nothing_changes(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    MT_TEST_OK(mt_comm_init_mpi(&comm, mt_job_world(), 1));
    MT_TEST_OK(mt_comm_rehearse(&comm, 0));
    gather_once(&comm);
    mt_comm_clear(&comm);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(messages_between_nodes_arrive_one_after_another),
    cmocka_unit_test(nothing_is_late_inside_a_node),
    cmocka_unit_test(without_alpha_nothing_changes),
};
MT_TEST_MPI_MAIN(tests)
