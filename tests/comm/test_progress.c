/* Who makes progress while a rank sleeps off modelled time: what was begun is complete when the
 * sleep ends. docs/decisions/0006-progress.md. */
#include "support/test.h"

#include "base/memory.h"
#include "comm/world.h"
#include "device/device.h"

static const int64_t HOUR_NS = INT64_C(3600) * 1000000000;

/* Rank 0 sleeps; the other virtual ranks are asleep as well, so their devices call too. */
struct sleeper {
    struct mt_device device;
    struct test_world world;
    int n_call;
};

static bool progress_all(void *context)
{
    struct sleeper *sleeper = context;
    bool is_under_way = false;
    ++sleeper->n_call;
    for (int rank = 0; rank < sleeper->world.n_rank; ++rank) {
        is_under_way = mt_comm_progress(&sleeper->world.comm[rank]) || is_under_way;
    }
    if (!is_under_way) {
        sleeper->device.pace_debt_ns = 0; /* so that the test does not sleep for the rest */
    }
    return is_under_way;
}

static enum mt_status refuse_test(struct mt_transport *transport, union mt_request *request,
                                  int64_t n, int64_t *n_done)
{
    MT_UNUSED(transport);
    MT_UNUSED(request);
    MT_UNUSED(n);
    MT_UNUSED(n_done);
    return MT_FAIL(MT_ERR_INTERNAL, "something was left to do after the sleep");
}

/* From now on nothing of this world may wait for a message. */
static void forbid_waiting(struct test_world *world, struct mt_transport_verbs *verbs)
{
    *verbs = *world->comm[0].transport->verbs;
    verbs->test = refuse_test;
    for (int rank = 0; rank < world->n_rank; ++rank) {
        world->comm[rank].transport->verbs = verbs;
    }
}

static void begin_all(struct test_world *world)
{
    for (int job = 0; job < world->n_job; ++job) {
        for (int rank = 0; rank < world->n_rank; ++rank) {
            struct test_case *test = &world->test[job][rank];
            MT_TEST_OK(mt_exec_begin(world->exec[job][rank], &test->plan, test->buffer));
        }
    }
}

static void sleep_over(int n_rank, int ranks_per_node, enum test_shape shape)
{
    static const enum test_kind kinds[] = {TEST_SPARSE_ALLGATHER, TEST_SPARSE_REDUCE_SCATTER,
                                           TEST_ALLREDUCE, TEST_ALLTOALLV};
    struct sleeper sleeper = {.n_call = 0};
    struct mt_transport_verbs verbs;
    mt_device_init_plain(&sleeper.device);
    mt_device_set_idle(&sleeper.device, progress_all, &sleeper);
    test_world_create(&sleeper.world, n_rank, ranks_per_node, NULL, 7);
    for (int i = 0; i < 4; ++i) {
        test_world_add(&sleeper.world, (struct test_spec){.kind = kinds[i],
                                                          .shape = shape,
                                                          .seed = (uint64_t)n_rank,
                                                          .scale = 40});
    }
    begin_all(&sleeper.world);
    sleeper.device.pace_debt_ns = HOUR_NS;
    mt_device_settle(&sleeper.device);
    assert_true(sleeper.n_call >= 1);
    forbid_waiting(&sleeper.world, &verbs);
    test_world_finish(&sleeper.world);
    test_world_clear(&sleeper.world);
}

static void what_is_begun_before_a_sleep_is_complete_after_it(void **state)
{
    static const int rank_matrix[] = {1, 2, 3, 8};
    MT_UNUSED(state);
    for (int i = 0; i < 4; ++i) {
        for (int shape = 0; shape < TEST_N_SHAPE; ++shape) {
            sleep_over(rank_matrix[i], i == 3 ? 3 : 0, (enum test_shape)shape);
        }
    }
}

static void a_failure_in_a_sleep_is_returned_by_what_waits_next(void **state)
{
    MT_UNUSED(state);
    struct test_world world;
    struct mt_transport_verbs verbs;
    test_world_create(&world, 2, 0, NULL, 7);
    test_world_add(&world, (struct test_spec){
                               .kind = TEST_ALLREDUCE, .shape = TEST_EVEN, .seed = 1, .scale = 40});
    begin_all(&world);
    forbid_waiting(&world, &verbs);
    assert_false(mt_comm_progress(&world.comm[0]));
    assert_false(mt_comm_progress(&world.comm[0])); /* the first failure stays */
    assert_int_equal(mt_exec_end(world.exec[0][0]), MT_ERR_INTERNAL);
    MT_TEST_FAILS(mt_comm_poll(&world.comm[0]), MT_ERR_INTERNAL, "left to do");
    test_world_clear(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_begun_before_a_sleep_is_complete_after_it),
        cmocka_unit_test(a_failure_in_a_sleep_is_returned_by_what_waits_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
