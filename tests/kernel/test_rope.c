/* mt_rope_*: values, the way back, thread counts. */
#include "kernel/pair.h"
#include "reference/difference.h"
#include "reference/rope.h"

/* Angles are rounded once, from double; largest error seen 1e-7. */
static const double bound = 1e-6;

struct size {
    int64_t n, length, n_head, head_dim;
};
static const struct size cases[] = {{0, 4, 1, 8},  {1, 1, 1, 2},     {7, 7, 2, 6},
                                    {14, 7, 3, 8}, {130, 65, 4, 32}, {256, 128, 1, 128}};

static struct mt_rope make_tables(struct mt_arena *arena, const struct size *size)
{
    const int64_t n = size->length * size->head_dim / 2;
    const struct pair cosine = pair_random(arena, n, 1);
    const struct pair sine = pair_random(arena, n, 2);
    mt_rope_tables(cosine.f, sine.f, size->length, size->head_dim, 10000.0);
    pair_check_canaries(cosine);
    pair_check_canaries(sine);
    return (struct mt_rope){cosine.f, sine.f, size->length, size->n_head, size->head_dim};
}

static void rotations_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const struct size *size = &cases[i / 2];
        const bool backward = i % 2 != 0;
        const struct mt_rope rope = make_tables(&arena, size);
        const int64_t n = size->n * size->n_head * size->head_dim;
        struct pair one = pair_random(&arena, n, 3);
        struct mt_device device = device_of(1);
        mt_rope_apply(&device, one.f, size->n, &rope, backward);
        const struct mt_ref_rope ref = {size->length, size->n_head, size->head_dim, 10000.0};
        mt_ref_rope(one.d, size->n, &ref, backward ? -1.0 : 1.0);
        PAIR_CLOSE(one, bound);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct pair many = pair_random(&arena, n, 3);
            device = device_of(n_thread);
            mt_rope_apply(&device, many.f, size->n, &rope, backward);
            PAIR_SAME(one, many);
        }
    }
    mt_arena_clear(&arena);
}

static void backward_undoes_forward(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct size size = {40, 10, 2, 16};
    const struct mt_rope rope = make_tables(&arena, &size);
    struct pair x = pair_random(&arena, 1280, 3);
    struct mt_device device = device_of(1);
    mt_rope_apply(&device, x.f, 40, &rope, false);
    mt_rope_apply(&device, x.f, 40, &rope, true);
    PAIR_CLOSE(x, bound);
    mt_arena_clear(&arena);
}

struct objective {
    const struct mt_ref_rope *rope;
    struct pair x, y, d_y;
};

static double objective(void *context)
{
    const struct objective *o = context;
    memcpy(o->y.d, o->x.d, (size_t)o->x.n * sizeof(double));
    mt_ref_rope(o->y.d, 6, o->rope, 1.0);
    return weighted_sum(o->y.d, o->d_y.d, o->x.n);
}

static void turning_back_is_the_gradient_by_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_ref_rope rope = {3, 2, 4, 100.0};
    struct objective o = {&rope, pair_random(&arena, 48, 1), pair_random(&arena, 48, 2),
                          pair_random(&arena, 48, 3)};
    const struct pair numeric = pair_random(&arena, 48, 4);
    mt_ref_difference(objective, &o, o.x.d, 48, numeric.d);
    mt_ref_rope(o.d_y.d, 6, &rope, -1.0);
    assert_true(mt_ref_gradient_error(o.d_y.d, numeric.d, 48) < 1e-6);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(backward_undoes_forward),
        cmocka_unit_test(turning_back_is_the_gradient_by_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
