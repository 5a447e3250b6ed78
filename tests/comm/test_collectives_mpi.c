/* The cases of the virtual ranks on real ones, over MPI. */
#include "support/mpi_main.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "comm/cases.h"
#include "comm/comm.h"

#include <string.h>

enum { MAX_JOB = 20 };

static void open_comm(struct mt_comm *comm, int ranks_per_node)
{
    MT_TEST_OK(mt_comm_init_mpi(comm, mt_job_world(), ranks_per_node));
    assert_int_equal(comm->rank, mt_job_rank());
    assert_int_equal(comm->topology.n_rank, mt_job_size());
}

static void run_one(struct mt_comm *comm, struct test_spec spec)
{
    struct test_case test;
    struct mt_exec *exec = NULL;
    test_case_create(&test, spec, &comm->topology, comm->rank);
    MT_TEST_OK(mt_exec_create(comm, test.plan.n_op, &exec));
    MT_TEST_OK(mt_exec_begin(exec, &test.plan, test.buffer));
    assert_true(mt_exec_is_active(exec));
    MT_TEST_OK(mt_exec_end(exec));
    assert_false(mt_exec_is_active(exec));
    test_case_verify(&test);
    mt_exec_destroy(exec);
    test_case_clear(&test);
}

static void every_collective_gives_what_it_should(void **state)
{
    MT_UNUSED(state);
    for (int ranks_per_node = 0; ranks_per_node <= 3; ++ranks_per_node) {
        struct mt_comm comm;
        open_comm(&comm, ranks_per_node);
        for (int i = 0; i < TEST_N_KIND * TEST_N_SHAPE; ++i) {
            run_one(&comm, (struct test_spec){.kind = (enum test_kind)(i % TEST_N_KIND),
                                              .shape = (enum test_shape)(i / TEST_N_KIND),
                                              .seed = (uint64_t)(i + 100 * ranks_per_node),
                                              .scale = 100});
        }
        mt_comm_clear(&comm);
    }
}

/* Past the eager limit, and cut into slices. */
static void large_messages_arrive_whole(void **state)
{
    static const int64_t slices[] = {MT_TRANSPORT_MAX_BYTES, 100003};
    MT_UNUSED(state);
    for (int i = 0; i < 2; ++i) {
        struct mt_comm comm;
        open_comm(&comm, 2);
        comm.slice_bytes = slices[i];
        for (int kind = 0; kind < TEST_N_KIND; ++kind) {
            run_one(&comm, (struct test_spec){.kind = (enum test_kind)kind,
                                              .shape = TEST_RAGGED,
                                              .seed = (uint64_t)(kind + 7 * i),
                                              .scale = 60000});
        }
        mt_comm_clear(&comm);
    }
}

/* All ranks begin alike; each computes, polls and ends in an order of its own. */
static void run_mixed(struct mt_comm *comm, uint64_t seed)
{
    struct test_case test[MAX_JOB];
    struct mt_exec *exec[MAX_JOB];
    for (int job = 0; job < MAX_JOB; ++job) {
        const uint64_t bits = test_mix(seed, 5, (uint64_t)job);
        test_case_create(&test[job],
                         (struct test_spec){.kind = (enum test_kind)(job % TEST_N_KIND),
                                            .shape = (enum test_shape)(bits % TEST_N_SHAPE),
                                            .seed = bits >> 20,
                                            .scale = bits % 3 == 0 ? 5000 : 50},
                         &comm->topology, comm->rank);
        MT_TEST_OK(mt_exec_create(comm, test[job].plan.n_op, &exec[job]));
    }
    const int64_t n_allocated = mt_memory_n_allocated();
    for (int job = 0; job < MAX_JOB; ++job) {
        const uint64_t mine = test_mix(seed, (uint64_t)comm->rank, (uint64_t)job);
        MT_TEST_OK(mt_exec_begin(exec[job], &test[job].plan, test[job].buffer));
        if (mine % 3 == 0) {
            MT_TEST_OK(mt_comm_poll(comm));
        }
        if (mine % 5 == 0) {
            MT_TEST_OK(mt_exec_end(exec[(mine >> 8) % (uint64_t)(job + 1)]));
        }
    }
    assert_int_equal(comm->n_active <= MAX_JOB, 1);
    for (int job = 0; job < MAX_JOB; ++job) {
        const int turned = (job + comm->rank) % MAX_JOB;
        MT_TEST_OK(mt_exec_end(exec[turned]));
    }
    assert_int_equal(comm->n_active, 0);
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    for (int job = 0; job < MAX_JOB; ++job) {
        test_case_verify(&test[job]);
        mt_exec_destroy(exec[job]);
        test_case_clear(&test[job]);
    }
}

static void overlapping_collectives_do_not_mix(void **state)
{
    MT_UNUSED(state);
    for (int ranks_per_node = 0; ranks_per_node <= 3; ++ranks_per_node) {
        struct mt_comm comm;
        open_comm(&comm, ranks_per_node);
        for (uint64_t seed = 0; seed < 5; ++seed) {
            run_mixed(&comm, seed + 1);
        }
        mt_comm_clear(&comm);
    }
}

static void small_sums_are_the_same_bits_on_all_ranks_and_in_all_runs(void **state)
{
    MT_UNUSED(state);
    for (int ranks_per_node = 0; ranks_per_node <= 3; ++ranks_per_node) {
        struct mt_comm comm;
        double first[37];
        open_comm(&comm, ranks_per_node);
        for (int run = 0; run < 20; ++run) {
            double values[37];
            double all[64 * 37];
            for (int i = 0; i < 37; ++i) {
                const uint64_t bits = test_mix(3, (uint64_t)comm.rank, (uint64_t)i);
                values[i] = (double)(int64_t)bits * (i % 2 == 0 ? 1e-9 : 1e+9);
            }
            MT_TEST_OK(mt_comm_sum_f64(&comm, values, 37));
            if (run == 0) {
                memcpy(first, values, sizeof(first));
            }
            assert_memory_equal(values, first, sizeof(first));
            MT_TEST_OK(mt_comm_gather_f64(&comm, values, 37, all));
            for (int rank = 0; rank < comm.topology.n_rank; ++rank) {
                assert_memory_equal(&all[(size_t)rank * 37], first, sizeof(first));
            }
        }
        mt_comm_clear(&comm);
    }
}

static void small_collectives_count_and_gather(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    int64_t all[128];
    open_comm(&comm, 2);
    const int64_t n_rank = comm.topology.n_rank;
    int64_t sums[2] = {comm.rank, 1ll << 50};
    MT_TEST_OK(mt_comm_sum_i64(&comm, sums, 2));
    assert_int_equal(sums[0], n_rank * (n_rank - 1) / 2);
    assert_int_equal(sums[1], n_rank << 50);
    const int64_t mine[2] = {10 + comm.rank, -comm.rank};
    MT_TEST_OK(mt_comm_gather_i64(&comm, mine, 2, all));
    for (int rank = 0; rank < n_rank; ++rank) {
        const int64_t *theirs = &all[2 * (int64_t)rank];
        assert_int_equal(theirs[0], 10 + rank);
        assert_int_equal(theirs[1], -rank);
    }
    MT_TEST_OK(mt_comm_sum_i64(&comm, sums, 0));
    MT_TEST_OK(mt_comm_gather_i64(&comm, mine, 0, all));
    mt_comm_clear(&comm);
}

static void more_room_for_small_collectives_can_be_had(void **state)
{
    enum { N_ITEM = 50000 };
    MT_UNUSED(state);
    struct mt_comm comm;
    int64_t *values = NULL;
    open_comm(&comm, 3);
    MT_TEST_OK(mt_comm_reserve_small(&comm, N_ITEM));
    MT_TEST_OK(MT_ALLOCATE(values, N_ITEM, "test"));
    for (int64_t i = 0; i < N_ITEM; ++i) {
        values[i] = i;
    }
    const int64_t n_allocated = mt_memory_n_allocated();
    MT_TEST_OK(mt_comm_sum_i64(&comm, values, N_ITEM));
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    for (int64_t i = 0; i < N_ITEM; ++i) {
        assert_int_equal(values[i], i * comm.topology.n_rank);
    }
    mt_memory_free(values);
    mt_comm_clear(&comm);
}

static void waiting_counts_as_exposed_communication(void **state)
{
    MT_UNUSED(state);
    struct mt_comm comm;
    struct mt_span_totals totals;
    double value = 1.0;
    open_comm(&comm, 0);
    MT_TEST_OK(mt_comm_sum_f64(&comm, &value, 1));
    mt_span_reset();
    if (comm.rank == 0) {
        mt_clock_sleep_until_ns(mt_clock_ns() + 20000000);
    }
    MT_TEST_OK(mt_comm_sum_f64(&comm, &value, 1));
    mt_span_totals(&totals);
    /* whoever waited for rank 0 counted the wait; rank 0 slept outside of it */
    assert_true(totals.exposed_wait_ns > 0);
    mt_comm_clear(&comm);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_collective_gives_what_it_should),
    cmocka_unit_test(large_messages_arrive_whole),
    cmocka_unit_test(overlapping_collectives_do_not_mix),
    cmocka_unit_test(small_sums_are_the_same_bits_on_all_ranks_and_in_all_runs),
    cmocka_unit_test(small_collectives_count_and_gather),
    cmocka_unit_test(more_room_for_small_collectives_can_be_had),
    cmocka_unit_test(waiting_counts_as_exposed_communication),
};
MT_TEST_MPI_MAIN(tests)
