/* mt_rope_tables against the reference, and the reference's gradient; attention's tests judge the
 * rotation itself. */
#include "kernel/pair.h"
#include "reference/rope.h"

/* Angles are rounded once, from double; largest error seen 6e-8. */
static const double bound = 1e-6;

struct size {
    int64_t length, head_dim;
};
static const struct size cases[] = {{1, 2}, {7, 6}, {7, 8}, {65, 32}, {128, 128}};

/* The pair (1, 0) turns to (cosine, sine). */
static void tables_hold_where_unit_vectors_turn_to(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const struct size *size = &cases[i];
        const int64_t half = size->head_dim / 2;
        const struct pair cosine = pair_random(&arena, size->length * half, 1);
        const struct pair sine = pair_random(&arena, size->length * half, 2);
        const struct pair unit = pair_random(&arena, size->length * size->head_dim, 3);
        const struct mt_ref_rope ref = {size->length, 1, size->head_dim, 10000.0};
        rope_tables(&arena, cosine.f, sine.f, size->length, size->head_dim, 10000.0);
        for (int64_t j = 0; j < unit.n; j++) {
            unit.d[j] = j % size->head_dim < half ? 1.0 : 0.0;
        }
        mt_ref_rope(unit.d, size->length, &ref, 1.0);
        for (int64_t t = 0; t < size->length; t++) {
            memcpy(cosine.d + t * half, unit.d + t * size->head_dim, (size_t)half * sizeof(double));
            memcpy(sine.d + t * half, unit.d + t * size->head_dim + half,
                   (size_t)half * sizeof(double));
        }
        PAIR_CLOSE(cosine, bound);
        PAIR_CLOSE(sine, bound);
    }
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
    const struct pair d_x = pair_random(&arena, 48, 4);
    memcpy(d_x.d, o.d_y.d, (size_t)d_x.n * sizeof(double));
    mt_ref_rope(d_x.d, 6, &rope, -1.0);
    PAIR_GRADIENT(objective, &o, o.x, d_x);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_hold_where_unit_vectors_turn_to),
        cmocka_unit_test(turning_back_is_the_gradient_by_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
