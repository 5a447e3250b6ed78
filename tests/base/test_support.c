/* The helpers that judge everything else: they must be able to say no. */
#include "support/test.h"

#include "support/compare.h"
#include "support/fill.h"

#include <math.h>

static void the_error_is_relative_to_the_largest_element(void **state)
{
    MT_UNUSED(state);
    const double want[] = {100.0, 0.0, -50.0};
    const float got[] = {100.0F, 1.0F, -50.5F};
    int64_t worst = -1;
    assert_true(fabs(mt_test_error(got, want, 3, &worst) - 0.01) < 1e-12);
    assert_int_equal(worst, 1);
    assert_true(mt_test_error(got, want, 0, NULL) == 0.0);
    const double zero[] = {0.0};
    assert_true(mt_test_error((const float[]){0.25F}, zero, 1, NULL) == 0.25);
}

static void what_is_no_number_is_an_infinite_error(void **state)
{
    MT_UNUSED(state);
    const double want[] = {1.0, NAN, INFINITY};
    assert_true(mt_test_error((const float[]){1.0F, NAN, INFINITY}, want, 3, NULL) == 0.0);
    assert_true(isinf(mt_test_error((const float[]){NAN, NAN, INFINITY}, want, 3, NULL)));
    assert_true(isinf(mt_test_error((const float[]){1.0F, 1.0F, INFINITY}, want, 3, NULL)));
    assert_true(isinf(mt_test_error((const float[]){1.0F, NAN, -INFINITY}, want, 3, NULL)));
    assert_true(isinf(mt_test_error((const float[]){1.0F, NAN, 1.0F}, want, 3, NULL)));
}

static void fills_are_deterministic_and_in_range(void **state)
{
    MT_UNUSED(state);
    enum { N = 1000 };
    float x[N];
    float y[N];
    double wide[N];
    int32_t id[N];
    mt_test_fill_uniform(x, N, 1, -2.0, 3.0);
    mt_test_fill_uniform(y, N / 2, 1, -2.0, 3.0);
    MT_TEST_SAME_BITS(y, x, N / 2);
    mt_test_fill_int32(id, N, 1, 7);
    for (int i = 0; i < N; ++i) {
        assert_true(x[i] >= -2.0F && x[i] <= 3.0F);
        assert_true(id[i] >= 0 && id[i] < 7);
    }
    mt_test_fill_normal(y, N, 2, 0.5);
    mt_test_widen(wide, y, N);
    MT_TEST_CLOSE(y, wide, N, 0.0);
    MT_TEST_CLOSE_F32(y, y, N, 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_error_is_relative_to_the_largest_element),
        cmocka_unit_test(what_is_no_number_is_an_infinite_error),
        cmocka_unit_test(fills_are_deterministic_and_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
