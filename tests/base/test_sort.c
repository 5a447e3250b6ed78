#include "base/sort.h"
#include "support/test.h"

static void the_median_is_the_lower_middle(void **state)
{
    int64_t one[] = {7};
    int64_t four[] = {9, 1, 5, 3};
    int64_t five[] = {9, 1, 5, 3, 1000};
    MT_UNUSED(state);
    assert_int_equal(mt_median_i64(NULL, 0), 0);
    assert_int_equal(mt_median_i64(one, 1), 7);
    assert_int_equal(mt_median_i64(four, 4), 3);
    assert_int_equal(mt_median_i64(five, 5), 5);
}

static void a_quantile_is_one_of_the_values(void **state)
{
    MT_UNUSED(state);
    double value[] = {5.0, -1.0, 3.0, 2.0, 4.0, 0.5};
    const double want[] = {-1.0, 0.5, 2.0, 3.0, 5.0};
    for (int i = 0; i < 5; ++i) {
        assert_true(mt_quantile_f64(value, 6, 0.25 * i) == want[i]);
    }
    assert_true(mt_quantile_f64(value, 1, 0.9) == -1.0);
    assert_true(mt_quantile_f64(value, 0, 0.5) == 0.0);
}

static void numbers_are_put_in_order(void **state)
{
    MT_UNUSED(state);
    int64_t whole[] = {INT64_MAX, 0, INT64_MIN, 7, 7, -1};
    double real[] = {1e300, 0.0, -1e300, 1e-300};
    mt_sort_i64(whole, 6);
    mt_sort_f64(real, 4);
    for (int i = 1; i < 6; ++i) {
        assert_true(whole[i - 1] <= whole[i]);
        assert_true(i >= 4 || real[i - 1] < real[i]);
    }
    mt_sort_i64(NULL, 0);
    mt_sort_f64(NULL, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_median_is_the_lower_middle),
        cmocka_unit_test(a_quantile_is_one_of_the_values),
        cmocka_unit_test(numbers_are_put_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
