/* mt_sum_squares, mt_fill_zero. */
#include "kernel/pair.h"
#include "reference/sums.h"

static const int64_t sizes[] = {0, 1, 15, 16, 17, 32767, 32768, 32769, 100003};

static double sum_squares(struct mt_device *device, const float *x, int64_t n)
{
    double sum = NAN; /* written, whatever n is */
    mt_sum_squares(device, &sum, x, n);
    return sum;
}

static void sum_of_squares_matches_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(sizes); i++) {
        mt_arena_release(&arena, 0);
        const struct pair x = pair_random(&arena, sizes[i], 1);
        struct mt_device device = device_of(1);
        const double expected = mt_ref_sum_squares(x.d, sizes[i]);
        const double one = sum_squares(&device, x.f, sizes[i]);
        assert_true(fabs(one - expected) <= 1e-12 * expected);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            device = device_of(n_thread);
            assert_true(sum_squares(&device, x.f, sizes[i]) == one);
        }
    }
    mt_arena_clear(&arena);
}

/* More elements than the fixed number of partial sums has chunks of the usual size. */
static void a_long_array_is_summed_in_longer_chunks(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const int64_t n = 256 * 32768 + 5;
    float *x = mt_arena_cut(&arena, n * (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        x[i] = 0.5F;
    }
    struct mt_device device = device_of(2);
    assert_true(sum_squares(&device, x, n) == 0.25 * (double)n);
    mt_arena_clear(&arena);
}

static void what_is_not_finite_or_overflows_float_shows(void **state)
{
    MT_UNUSED(state);
    float x[40] = {0};
    struct mt_device device = device_of(1);
    x[39] = 1e30F;
    assert_true(fabs(sum_squares(&device, x, 40) - 1e60) < 1e54);
    x[39] = (float)INFINITY;
    assert_true(isinf(sum_squares(&device, x, 40)));
    x[3] = (float)NAN;
    assert_true(isnan(sum_squares(&device, x, 40)));
}

static void fill_touches_its_elements_only(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 3 * N_ITEM(sizes); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = sizes[i / 3];
        struct pair x = pair_random(&arena, n, 1);
        struct mt_device device = device_of(i % 3 + 1);
        mt_fill_zero(&device, x.f, n);
        for (int64_t j = 0; j < n; j++) {
            x.d[j] = 0.0;
        }
        PAIR_CLOSE(x, 0.0);
    }
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sum_of_squares_matches_the_reference_on_any_number_of_threads),
        cmocka_unit_test(a_long_array_is_summed_in_longer_chunks),
        cmocka_unit_test(what_is_not_finite_or_overflows_float_shows),
        cmocka_unit_test(fill_touches_its_elements_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
