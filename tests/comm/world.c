#include "comm/world.h"

#include "support/test.h"

#include "base/memory.h"

void test_world_create(struct test_world *world, int n_rank, int ranks_per_node, const int *node,
                       uint64_t seed)
{
    struct mt_transport *transport[TEST_MAX_RANK];
    *world = (struct test_world){.n_rank = n_rank, .seed = seed};
    assert_true(n_rank <= TEST_MAX_RANK);
    MT_TEST_OK(MT_ALLOCATE(world->comm, n_rank, "test"));
    MT_TEST_OK(mt_transport_create_sim(n_rank, seed, transport));
    for (int rank = 0; rank < n_rank; ++rank) {
        struct mt_topology topology;
        if (node != NULL) {
            MT_TEST_OK(mt_topology_init_nodes(&topology, n_rank, node));
        } else {
            MT_TEST_OK(mt_topology_init(&topology, n_rank, ranks_per_node));
        }
        MT_TEST_OK(mt_comm_init(&world->comm[rank], rank, &topology, transport[rank]));
    }
}

void test_world_add(struct test_world *world, struct test_spec spec)
{
    assert_true(world->n_job < TEST_MAX_JOB);
    const int job = world->n_job++;
    MT_TEST_OK(MT_ALLOCATE(world->test[job], world->n_rank, "test"));
    for (int rank = 0; rank < world->n_rank; ++rank) {
        struct test_case *test = &world->test[job][rank];
        test_case_create(test, spec, &world->comm[rank].topology, rank);
        MT_TEST_OK(mt_exec_create(&world->comm[rank], test->plan.n_op, &world->exec[job][rank]));
    }
}

enum mt_status test_world_check(const struct test_world *world, int job)
{
    struct mt_plan *plans = NULL;
    int64_t(*buffer_bytes)[MT_N_BUFFER] = NULL;
    MT_TEST_OK(MT_ALLOCATE(plans, world->n_rank, "test"));
    MT_TEST_OK(MT_ALLOCATE(buffer_bytes, world->n_rank, "test"));
    for (int rank = 0; rank < world->n_rank; ++rank) {
        plans[rank] = world->test[job][rank].plan;
        for (int i = 0; i < MT_N_BUFFER; ++i) {
            buffer_bytes[rank][i] = world->test[job][rank].buffer_bytes[i];
        }
    }
    const enum mt_status status =
        mt_plan_check(plans, world->n_rank, (const int64_t(*)[MT_N_BUFFER])buffer_bytes);
    mt_memory_free(buffer_bytes);
    mt_memory_free(plans);
    return status;
}

static bool is_all_done(const struct test_world *world, const int *n_begun)
{
    for (int rank = 0; rank < world->n_rank; ++rank) {
        if (n_begun[rank] < world->n_job) {
            return false;
        }
        for (int job = 0; job < world->n_job; ++job) {
            bool done = false;
            MT_TEST_OK(mt_exec_poll(world->exec[job][rank], &done));
            if (!done) {
                return false;
            }
        }
    }
    return true;
}

bool test_world_drive(struct test_world *world, int64_t n_step)
{
    int *n_begun = NULL;
    bool done = false;
    enum mt_status status = MT_OK;
    MT_TEST_OK(MT_ALLOCATE(n_begun, world->n_rank, "test"));
    for (int64_t step = 0; step < n_step && status == MT_OK && !done; ++step) {
        const uint64_t bits = test_mix(world->seed, 99, world->n_draw++);
        const int rank = (int)((bits >> 8) % (uint64_t)world->n_rank);
        const int job = n_begun[rank];
        if (job < world->n_job && bits % 2 == 0) {
            status = mt_exec_begin(world->exec[job][rank], &world->test[job][rank].plan,
                                   world->test[job][rank].buffer);
            ++n_begun[rank];
        } else if (job > 0) {
            bool polled = false;
            const uint64_t which = (bits >> 32) % (uint64_t)job;
            status = mt_exec_poll(world->exec[which][rank], &polled);
        }
        done = status == MT_OK && step % (4 * (int64_t)world->n_rank) == 0 &&
               is_all_done(world, n_begun);
    }
    mt_memory_free(n_begun);
    if (status != MT_OK) {
        print_message("%s\n", mt_error_last()->text);
        mt_error_clear();
    }
    return done;
}

static void clear_jobs(struct test_world *world)
{
    for (int job = 0; job < world->n_job; ++job) {
        for (int rank = 0; rank < world->n_rank; ++rank) {
            mt_exec_destroy(world->exec[job][rank]);
            test_case_clear(&world->test[job][rank]);
        }
        mt_memory_free(world->test[job]);
    }
    world->n_job = 0;
}

void test_world_finish(struct test_world *world)
{
    for (int job = 0; job < world->n_job; ++job) {
        for (int rank = 0; rank < world->n_rank; ++rank) {
            MT_TEST_OK(mt_exec_end(world->exec[job][rank]));
            assert_false(mt_exec_is_active(world->exec[job][rank]));
            test_case_verify(&world->test[job][rank]);
        }
    }
    clear_jobs(world);
}

void test_world_clear(struct test_world *world)
{
    clear_jobs(world);
    for (int rank = 0; rank < world->n_rank; ++rank) {
        mt_comm_clear(&world->comm[rank]);
    }
    mt_memory_free(world->comm);
    *world = (struct test_world){0};
}
