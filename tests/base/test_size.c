#include "support/test.h"

#include "base/size.h"

#include <limits.h>

static void products_that_fit_are_exact(void **state)
{
    MT_UNUSED(state);
    int64_t product = -1;
    assert_true(mt_size_multiply(0, INT64_MAX, &product));
    assert_int_equal(product, 0);
    assert_true(mt_size_multiply(INT64_MAX, 1, &product));
    assert_true(product == INT64_MAX);
    assert_true(mt_size_multiply((int64_t)1 << 31, ((int64_t)1 << 31) + 5, &product));
    assert_true(product == ((int64_t)1 << 62) + ((int64_t)5 << 31));
}

static void products_that_overflow_are_refused(void **state)
{
    MT_UNUSED(state);
    int64_t product = 42;
    assert_false(mt_size_multiply((int64_t)1 << 32, (int64_t)1 << 31, &product));
    assert_false(mt_size_multiply(INT64_MAX, 2, &product));
    assert_false(mt_size_multiply(-1, 3, &product));
    assert_false(mt_size_multiply(3, -1, &product));
    assert_int_equal(product, 42);
}

static void sums_are_checked(void **state)
{
    MT_UNUSED(state);
    int64_t sum = 42;
    assert_false(mt_size_add(INT64_MAX, 1, &sum));
    assert_false(mt_size_add(-1, 1, &sum));
    assert_int_equal(sum, 42);
    assert_true(mt_size_add(INT64_MAX - 1, 1, &sum));
    assert_true(sum == INT64_MAX);
}

static void narrowing_keeps_what_fits_an_int(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_size_to_int(0), 0);
    assert_int_equal(mt_size_to_int(INT_MAX), INT_MAX);
}

static void narrow(void *n)
{
    (void)mt_size_to_int(*(const int64_t *)n);
}

static void narrowing_asserts_what_does_not_fit(void **state)
{
    MT_UNUSED(state);
    int64_t wrong[] = {-1, (int64_t)INT_MAX + 1, INT64_MAX};
    for (int i = 0; i < 3; ++i) {
        MT_TEST_ASSERTS(narrow, &wrong[i]);
    }
}

static void shares_cover_everything_and_differ_by_one(void **state)
{
    MT_UNUSED(state);
    const int64_t totals[] = {0, 1, 2, 7, 8, 64, 1000003, ((int64_t)1 << 40) + 3};
    for (size_t t = 0; t < sizeof(totals) / sizeof(totals[0]); ++t) {
        for (int n_part = 1; n_part <= 65; ++n_part) {
            assert_true(mt_share_start(totals[t], n_part, 0) == 0);
            assert_true(mt_share_start(totals[t], n_part, n_part) == totals[t]);
            int64_t before = totals[t] / n_part + 1;
            for (int i = 0; i < n_part; ++i) {
                const int64_t share =
                    mt_share_start(totals[t], n_part, i + 1) - mt_share_start(totals[t], n_part, i);
                assert_true(share == totals[t] / n_part || share == totals[t] / n_part + 1);
                assert_true(share <= before); /* the larger ones first */
                before = share;
            }
        }
    }
    assert_int_equal(mt_share_start(8, 3, 1), 3);
    assert_int_equal(mt_share_start(8, 3, 2), 6);
}

static void rounding_goes_up_to_multiples(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_ceil_div(0, 5), 0);
    assert_int_equal(mt_ceil_div(1, 5), 1);
    assert_int_equal(mt_ceil_div(10, 5), 2);
    assert_int_equal(mt_round_up(65, 64), 128);
    assert_int_equal(mt_round_up(64, 64), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_that_fit_are_exact),
        cmocka_unit_test(products_that_overflow_are_refused),
        cmocka_unit_test(sums_are_checked),
        cmocka_unit_test(narrowing_keeps_what_fits_an_int),
        cmocka_unit_test(narrowing_asserts_what_does_not_fit),
        cmocka_unit_test(shares_cover_everything_and_differ_by_one),
        cmocka_unit_test(rounding_goes_up_to_multiples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
