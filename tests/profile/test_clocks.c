/* Clocks with artificial skew and drift are aligned to within the bound that is printed. Each rank
 * reads one true clock through its own skew and drift, so the truth is known at any timing. */
#include "support/mpi_main.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "profile/clocks.h"

#include <stdlib.h>

struct skewed {
    int64_t start_ns, skew_ns;
    double drift; /* relative */
};

static int64_t show(const struct skewed *clock, int64_t true_ns)
{
    return true_ns + clock->skew_ns + (int64_t)((double)(true_ns - clock->start_ns) * clock->drift);
}

static int64_t read_skewed(void *context)
{
    return show(context, mt_clock_ns());
}

/* Rank r is r * 3 s off and drifts by r * 50 ppm, odd ranks backwards; one start for all. */
static struct skewed clock_of(int rank, int64_t start_ns)
{
    const int sign = rank % 2 == 0 ? 1 : -1;
    return (struct skewed){.start_ns = start_ns,
                           .skew_ns = sign * rank * INT64_C(3000000000),
                           .drift = sign * rank * 50e-6};
}

struct world {
    struct mt_comm comm;
    struct mt_clocks clocks;
    struct skewed mine, reference;
};

static void open_world(struct world *world, bool is_one_machine)
{
    const int n_rank = mt_job_size();
    int64_t start_ns = mt_clock_ns();
    int *machine = NULL;
    MT_TEST_OK(mt_comm_init_mpi(&world->comm, mt_job_world(), 0));
    start_ns = world->comm.rank == 0 ? start_ns : 0;
    MT_TEST_OK(mt_comm_sum_i64(&world->comm, &start_ns, 1));
    MT_TEST_OK(MT_ALLOCATE(machine, n_rank, "test"));
    for (int r = 0; r < n_rank; ++r) {
        machine[r] = is_one_machine ? 0 : r;
    }
    world->mine = clock_of(is_one_machine ? 0 : world->comm.rank, start_ns);
    world->reference = clock_of(0, start_ns);
    const struct mt_ping_clock clock = {read_skewed, &world->mine};
    MT_TEST_OK(mt_clocks_init(&world->clocks, &world->comm, machine, &clock));
    mt_memory_free(machine);
}

static void close_world(struct world *world)
{
    mt_clocks_clear(&world->clocks);
    mt_comm_clear(&world->comm);
}

/* How far the aligned reading of a true moment is from what rank 0's clock shows then. */
static int64_t miss_ns(const struct world *world, const struct mt_profile_knot *knot, int n_knot,
                       int64_t true_ns)
{
    const int64_t local_ns = show(&world->mine, true_ns);
    return llabs(mt_profile_align(knot, n_knot, local_ns) - show(&world->reference, true_ns));
}

static void skewed_clocks_agree_to_within_the_bound_at_a_meeting(void **state)
{
    MT_UNUSED(state);
    struct world world;
    struct mt_profile_knot knot;
    int64_t error_ns = 0;
    open_world(&world, false);
    for (int i = 0; i < 5; ++i) {
        MT_TEST_OK(mt_clocks_meet(&world.clocks, &knot, &error_ns));
        assert_true(knot.error_ns <= error_ns);
        assert_int_equal(knot.error_ns == 0, world.comm.rank == 0);
        const int64_t true_ns = knot.local_ns - world.mine.skew_ns; /* to within the drift */
        const int64_t rounding_ns = 2 + (int64_t)(1e-9 * (double)knot.error_ns);
        const int64_t drift_ns = llabs(show(&world.mine, true_ns) - knot.local_ns);
        assert_true(miss_ns(&world, &knot, 1, true_ns) <= knot.error_ns + drift_ns + rounding_ns);
    }
    close_world(&world);
}

/* Long after the start, when drift is far beyond the bound: between two knots it is a line. */
static void drift_between_meetings_is_taken_out(void **state)
{
    MT_UNUSED(state);
    enum { N_KNOT = 2 };
    struct world world;
    struct mt_profile_knot knot[N_KNOT];
    int64_t error_ns = 0;
    open_world(&world, false);
    const int64_t begin_ns = mt_clock_ns();
    MT_TEST_OK(mt_clocks_meet(&world.clocks, &knot[0], &error_ns));
    /* An hour passes: every clock jumps by what it would have shown. */
    const int64_t hour_ns = INT64_C(3600) * 1000000000;
    world.mine.start_ns -= hour_ns;
    world.mine.skew_ns += hour_ns;
    world.reference.start_ns -= hour_ns;
    world.reference.skew_ns += hour_ns;
    const int64_t end_ns = mt_clock_ns();
    MT_TEST_OK(mt_clocks_meet(&world.clocks, &knot[1], &error_ns));
    world.mine.start_ns += hour_ns; /* the truth in one line again: true time goes on for an hour */
    world.mine.skew_ns -= hour_ns;
    world.reference.start_ns += hour_ns;
    world.reference.skew_ns -= hour_ns;
    const int64_t bound_ns = mt_max_i64(knot[0].error_ns, knot[1].error_ns) + 10;
    for (int i = 0; i <= 10; ++i) {
        const int64_t true_ns = begin_ns + (end_ns + hour_ns - begin_ns) / 10 * i;
        if (show(&world.mine, true_ns) >= knot[0].local_ns &&
            show(&world.mine, true_ns) <= knot[1].local_ns) {
            assert_true(miss_ns(&world, knot, N_KNOT, true_ns) <= bound_ns);
        }
    }
    close_world(&world);
}

static void ranks_of_one_machine_need_no_message(void **state)
{
    MT_UNUSED(state);
    struct world world;
    struct mt_profile_knot knot;
    int64_t error_ns = -1;
    open_world(&world, true);
    const int64_t before = world.comm.sequence;
    MT_TEST_OK(mt_clocks_meet(&world.clocks, &knot, &error_ns));
    assert_int_equal(world.comm.sequence - before, 1); /* the knots are shared, nothing else */
    assert_int_equal(knot.offset_ns, 0);
    assert_int_equal(error_ns, 0);
    close_world(&world);
}

static void times_outside_the_knots_take_the_nearest(void **state)
{
    MT_UNUSED(state);
    const struct mt_profile_knot knot[] = {{1000, 50, 1}, {2000, 70, 1}, {4000, 30, 1}};
    assert_int_equal(mt_profile_align(NULL, 0, 77), 77);
    assert_int_equal(mt_profile_align(knot, 3, 0), 50);
    assert_int_equal(mt_profile_align(knot, 3, 1000), 1050);
    assert_int_equal(mt_profile_align(knot, 3, 1500), 1560);
    assert_int_equal(mt_profile_align(knot, 3, 3000), 3050);
    assert_int_equal(mt_profile_align(knot, 3, 9000), 9030);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(skewed_clocks_agree_to_within_the_bound_at_a_meeting),
    cmocka_unit_test(drift_between_meetings_is_taken_out),
    cmocka_unit_test(ranks_of_one_machine_need_no_message),
    cmocka_unit_test(times_outside_the_knots_take_the_nearest),
};

MT_TEST_MPI_MAIN(tests)
