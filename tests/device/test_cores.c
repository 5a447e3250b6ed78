#include "device/cores.h"
#include "support/test.h"

static void cores_are_shared_evenly_and_at_least_one(void **state)
{
    (void)state;
    assert_int_equal(mt_cores_divide(64, 64, 0, 1), 64);
    assert_int_equal(mt_cores_divide(64, 64, 0, 4), 16);
    assert_int_equal(mt_cores_divide(64, 64, 0, 5), 12);
    assert_int_equal(mt_cores_divide(2, 2, 0, 64), 1);
}

static void a_bound_rank_uses_no_more_than_its_binding(void **state)
{
    (void)state;
    assert_int_equal(mt_cores_divide(64, 16, 0, 4), 16); /* a rank a NUMA node */
    assert_int_equal(mt_cores_divide(64, 1, 0, 4), 1);   /* a rank a core */
    assert_int_equal(mt_cores_divide(64, 16, 0, 8), 8);  /* two ranks a NUMA node */
    assert_int_equal(mt_cores_divide(64, 0, 0, 4), 1);   /* the binding is unknown to hwloc */
}

static void a_quota_counts_as_fewer_cores(void **state)
{
    (void)state;
    assert_int_equal(mt_cores_divide(64, 64, 2, 1), 2);
    assert_int_equal(mt_cores_divide(64, 64, 2, 4), 1);
    assert_int_equal(mt_cores_divide(2, 2, 64, 1), 2);
}

static void this_machine_gives_at_least_one_core(void **state)
{
    (void)state;
    const int all = mt_cores_share(1);
    assert_true(all >= 1);
    assert_true(mt_cores_share(2) <= all);
    assert_int_equal(mt_cores_share(1 << 20), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_are_shared_evenly_and_at_least_one),
        cmocka_unit_test(a_bound_rank_uses_no_more_than_its_binding),
        cmocka_unit_test(a_quota_counts_as_fewer_cores),
        cmocka_unit_test(this_machine_gives_at_least_one_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
