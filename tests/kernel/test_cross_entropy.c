/* mt_cross_entropy: loss and gradient, huge logits, NaN. */
#include "kernel/pair.h"
#include "reference/cross_entropy.h"

/* Largest error seen 2e-7. */
static const double bound = 2e-6;

static const int64_t cases[][2] = {{0, 5},    {1, 1},      {1, 7},     {3, 16},   {65, 17},
                                   {33, 256}, {300, 1000}, {2, 32768}, {5, 50257}};

static double cross_entropy(struct mt_device *device, float *logits, const int32_t *target,
                            int64_t n, int64_t vocab, float scale)
{
    double loss = NAN; /* written, whatever n is */
    mt_cross_entropy(device, &loss, logits, target, n, vocab, scale);
    return loss;
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = cases[i / 2][0];
        const int64_t vocab = cases[i / 2][1];
        const double size = i % 2 != 0 ? 5.0 : 5000.0;
        int32_t *target = mt_arena_cut(&arena, n * (int64_t)sizeof(int32_t));
        mt_test_fill_int32(target, n, 2, (int32_t)vocab);
        struct pair one = pair_uniform(&arena, n * vocab, 1, -size, size);
        const struct pair logits = pair_uniform(&arena, n * vocab, 1, -size, size);
        mt_ref_cross_entropy_backward(one.d, logits.d, target, n, vocab, 0.25);
        const double expected = mt_ref_cross_entropy_forward(logits.d, target, n, vocab);
        struct mt_device device = device_of(1);
        const double loss = cross_entropy(&device, one.f, target, n, vocab, 0.25F);
        assert_true(fabs(loss - expected) <= bound * fmax(1.0, expected));
        if (vocab > 1) {
            PAIR_CLOSE(one, size > 100.0 ? 1e-3 : bound);
        }
        assert_true(cross_entropy(&device, logits.f, target, n, vocab, 0.0F) == loss);
        pair_check_canaries(logits);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct pair many = pair_uniform(&arena, n * vocab, 1, -size, size);
            device = device_of(n_thread);
            assert_true(cross_entropy(&device, many.f, target, n, vocab, 0.25F) == loss);
            PAIR_SAME(one, many);
        }
    }
    mt_arena_clear(&arena);
}

static void huge_logits_give_a_finite_loss(void **state)
{
    MT_UNUSED(state);
    float logits[] = {1e30F, -1e30F, 0.0F, 3e38F, -3e38F, 3e38F};
    const int32_t target[] = {0, 2};
    struct mt_device device = device_of(1);
    const double loss = cross_entropy(&device, logits, target, 2, 3, 1.0F);
    assert_true(fabs(loss - log(2.0)) < 1e-6);
    const float expected[] = {0.0F, 0.0F, 0.0F, 0.5F, 0.0F, -0.5F};
    MT_TEST_CLOSE_F32(logits, expected, 6, 1e-6);
}

static void a_nan_or_an_infinite_logit_gives_a_nan_loss(void **state)
{
    MT_UNUSED(state);
    static const float odd[] = {(float)NAN, (float)INFINITY};
    struct mt_arena arena;
    arena_init(&arena);
    for (int64_t i = 0; i < 40; i++) {
        const struct pair logits = pair_random(&arena, 40, 1);
        const int32_t target[] = {3, 7};
        logits.f[i] = odd[i % 2];
        struct mt_device device = device_of(1);
        assert_true(isnan(cross_entropy(&device, logits.f, target, 2, 20, 1.0F)));
        assert_true(isnan(logits.f[i / 20 * 20]));
    }
    mt_arena_clear(&arena);
}

struct objective {
    struct pair logits;
    const int32_t *target;
};

static double objective(void *context)
{
    const struct objective *o = context;
    return 0.5 * mt_ref_cross_entropy_forward(o->logits.d, o->target, 3, 6);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const int32_t target[] = {5, 0, 2};
    struct objective o = {pair_uniform(&arena, 18, 1, -3.0, 3.0), target};
    const struct pair gradient = pair_random(&arena, 18, 2);
    mt_ref_cross_entropy_backward(gradient.d, o.logits.d, target, 3, 6, 0.5);
    PAIR_GRADIENT(objective, &o, o.logits, gradient);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(huge_logits_give_a_finite_loss),
        cmocka_unit_test(a_nan_or_an_infinite_logit_gives_a_nan_loss),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
