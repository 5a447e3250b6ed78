/* Shares of cores: of granted sets, on machines of all shapes. */
#include "device/cores.h"
#include "support/test.h"

#include <omp.h>
#include <sched.h>
#include <string.h>

enum { MAX_RANK = 64 };

/* All ranks have the same set. */
static struct mt_core_share share_of(int64_t n_core, int local_size, int local, int n_quota)
{
    struct mt_core_set set[MAX_RANK];
    for (int i = 0; i < local_size; ++i) {
        set[i] = (struct mt_core_set){0, n_core - 1, n_core};
    }
    return mt_cores_share(set, local_size, local, n_quota);
}

static void check(struct mt_core_share share, int start, int n, bool is_alone)
{
    assert_int_equal(share.start, start);
    assert_int_equal(share.n, n);
    assert_int_equal(share.is_alone, is_alone);
}

static void equal_runs_follow_each_other(void **state)
{
    MT_UNUSED(state);
    check(share_of(64, 1, 0, 0), 0, 64, true);
    check(share_of(64, 4, 0, 0), 0, 16, true);
    check(share_of(64, 4, 3, 0), 48, 16, true);
    check(share_of(2, 2, 1, 0), 1, 1, true);
}

static void uneven_counts_leave_cores_free_and_none_twice(void **state)
{
    MT_UNUSED(state);
    for (int n_core = 1; n_core <= 40; ++n_core) {
        for (int size = 1; size <= n_core; ++size) {
            int next = 0;
            for (int local = 0; local < size; ++local) {
                const struct mt_core_share share = share_of(n_core, size, local, 0);
                assert_true(share.is_alone);
                assert_int_equal(share.n, n_core / size);
                assert_true(share.start >= next);
                next = share.start + share.n;
            }
            assert_true(next <= n_core);
        }
    }
    check(share_of(8, 3, 1, 0), 2, 2, true);
    check(share_of(8, 3, 2, 0), 5, 2, true);
}

static void more_ranks_than_cores_are_not_alone(void **state)
{
    MT_UNUSED(state);
    check(share_of(2, 64, 0, 0), 0, 1, false);
    check(share_of(2, 3, 2, 0), 0, 1, false);
}

static void unknown_cores_are_one_and_shared(void **state)
{
    MT_UNUSED(state);
    const struct mt_core_set set[2] = {{0, 0, 0}, {0, 0, 0}};
    check(mt_cores_share(set, 2, 1, 0), 0, 1, false);
}

static void a_quota_below_the_cores_limits_threads_and_binds_nobody(void **state)
{
    MT_UNUSED(state);
    check(share_of(64, 1, 0, 2), 0, 2, false);
    check(share_of(64, 4, 2, 2), 0, 1, false);
    check(share_of(64, 4, 2, 63), 0, 15, false);
    check(share_of(2, 1, 0, 64), 0, 2, true);
    check(share_of(64, 4, 2, 64), 32, 16, true);
    const struct mt_core_set upper[2] = {{8, 15, 8}, {8, 15, 8}};
    check(mt_cores_share(upper, 2, 1, 8), 4, 4, true); /* enough for all that are granted */
}

static void sets_of_their_own_are_kept(void **state)
{
    MT_UNUSED(state);
    /* A rank a memory node; then two ranks on one and one on the other, not in order. */
    const struct mt_core_set whole[2] = {{0, 15, 16}, {16, 31, 16}};
    check(mt_cores_share(whole, 2, 0, 0), 0, 16, true);
    check(mt_cores_share(whole, 2, 1, 0), 0, 16, true);
    const struct mt_core_set mixed[3] = {{16, 31, 16}, {0, 15, 16}, {16, 31, 16}};
    check(mt_cores_share(mixed, 3, 0, 0), 0, 8, true);
    check(mt_cores_share(mixed, 3, 1, 0), 0, 16, true);
    check(mt_cores_share(mixed, 3, 2, 0), 8, 8, true);
}

static void sets_that_overlap_and_differ_are_not_divided(void **state)
{
    MT_UNUSED(state);
    const struct mt_core_set set[3] = {{0, 7, 8}, {4, 11, 8}, {12, 15, 4}};
    check(mt_cores_share(set, 3, 0, 0), 0, 4, false);
    check(mt_cores_share(set, 3, 1, 0), 0, 4, false);
    check(mt_cores_share(set, 3, 2, 0), 0, 4, true);
}

static hwloc_topology_t make_machine(const char *text)
{
    hwloc_topology_t topology = NULL;
    assert_int_equal(hwloc_topology_init(&topology), 0);
    assert_int_equal(hwloc_topology_set_synthetic(topology, text), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    return topology;
}

/* Every core of what is granted belongs to one rank at most, and consecutive ones share caches as
 * far as counts allow. `units` are the processing units as hwloc lists them. */
static void check_machine(const char *text, const char *units, int local_size, int want_cores,
                          const char *const *want_units)
{
    hwloc_topology_t topology = make_machine(text);
    hwloc_bitmap_t granted = hwloc_bitmap_alloc();
    hwloc_bitmap_t core = hwloc_bitmap_alloc();
    struct mt_core_set set[MAX_RANK];
    assert_int_equal(hwloc_bitmap_list_sscanf(granted, units), 0);
    for (int i = 0; i < local_size; ++i) {
        set[i] = mt_cores_of(topology, granted);
        assert_int_equal(set[i].n, want_cores);
    }
    for (int i = 0; i < local_size; ++i) {
        char got[256];
        hwloc_bitmap_t mine = hwloc_bitmap_alloc();
        const struct mt_core_share share = mt_cores_share(set, local_size, i, 0);
        for (int c = 0; c < share.n; ++c) {
            assert_true(mt_cores_units(topology, granted, share.start + c, core));
            assert_false(hwloc_bitmap_intersects(mine, core));
            assert_int_equal(hwloc_bitmap_or(mine, mine, core), 0);
        }
        (void)hwloc_bitmap_list_snprintf(got, sizeof(got), mine);
        assert_string_equal(got, want_units[i]);
        hwloc_bitmap_free(mine);
    }
    assert_false(mt_cores_units(topology, granted, want_cores, core));
    hwloc_bitmap_free(core);
    hwloc_bitmap_free(granted);
    hwloc_topology_destroy(topology);
}

static void ranks_follow_the_hierarchy_of_the_machine(void **state)
{
    MT_UNUSED(state);
    /* Units numbered as Linux does with two threads a core: all first ones, then the second. */
    const char *const threads = "numa:2 l3:2 core:2 pu:2(indexes=2*8:8*1)";
    const char *const plain = "numa:2 l3:2 core:4 pu:1";
    check_machine(plain, "0-15", 2, 16, (const char *const[]){"0-7", "8-15"});
    check_machine(plain, "0-15", 4, 16, (const char *const[]){"0-3", "4-7", "8-11", "12-15"});
    check_machine(plain, "0-15", 3, 16, (const char *const[]){"0-4", "5-9", "10-14"});
    check_machine(plain, "3-9", 2, 7, (const char *const[]){"3-5", "6-8"});
    check_machine(plain, "0,15", 2, 2, (const char *const[]){"0", "15"});
    check_machine("pu:4", "0-3", 2, 4, (const char *const[]){"0-1", "2-3"});
    check_machine("numa:1 core:4 pu:2", "0-7", 2, 4, (const char *const[]){"0-3", "4-7"});
    check_machine("numa:1 core:4 pu:2", "1,3,5,7", 2, 4, (const char *const[]){"1,3", "5,7"});
    check_machine("numa:1 core:4 pu:2", "2-3", 1, 1, (const char *const[]){"2-3"});
    check_machine(threads, "0-15", 4, 8,
                  (const char *const[]){"0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"});
}

static void this_machine_grants_at_least_one_core(void **state)
{
    MT_UNUSED(state);
    const struct mt_core_set set = mt_cores_granted();
    assert_true(set.n >= 1 && set.last - set.first >= set.n - 1);
}

/* Each thread runs on one core only, all on different ones, and what is granted stays the same. */
static void threads_are_bound_to_a_core_each(void **state)
{
    MT_UNUSED(state);
    const struct mt_core_set before = mt_cores_granted();
    const struct mt_core_share share = mt_cores_share(&before, 1, 0, 0);
    cpu_set_t of_thread[CPU_SETSIZE];
    cpu_set_t all;
    char text[64];
    CPU_ZERO(&all);
    assert_true(share.is_alone);
    if (!mt_cores_bind(&share, share.n, text, sizeof(text))) {
        skip(); /* a container may forbid it */
    }
    assert_true(strlen(text) > 0);
#pragma omp parallel num_threads(share.n)
    (void)sched_getaffinity(0, sizeof(cpu_set_t), &of_thread[omp_get_thread_num()]);
    for (int i = 0; i < share.n; ++i) {
        cpu_set_t both;
        CPU_AND(&both, &all, &of_thread[i]);
        assert_int_equal(CPU_COUNT(&both), 0);
        assert_true(CPU_COUNT(&of_thread[i]) >= 1);
        CPU_OR(&all, &all, &of_thread[i]);
    }
    const struct mt_core_set after = mt_cores_granted();
    assert_memory_equal(&after, &before, sizeof(before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_runs_follow_each_other),
        cmocka_unit_test(uneven_counts_leave_cores_free_and_none_twice),
        cmocka_unit_test(more_ranks_than_cores_are_not_alone),
        cmocka_unit_test(unknown_cores_are_one_and_shared),
        cmocka_unit_test(a_quota_below_the_cores_limits_threads_and_binds_nobody),
        cmocka_unit_test(sets_of_their_own_are_kept),
        cmocka_unit_test(sets_that_overlap_and_differ_are_not_divided),
        cmocka_unit_test(ranks_follow_the_hierarchy_of_the_machine),
        cmocka_unit_test(this_machine_grants_at_least_one_core),
        cmocka_unit_test(threads_are_bound_to_a_core_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
