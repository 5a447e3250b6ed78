/* mt_cpu_swiglu_*, which experts call tile by tile: values, gradients, huge gates, in-place use. */
#include "kernel/cpu/swiglu.h"
#include "kernel/pair.h"
#include "reference/swiglu.h"

/* Largest error seen 3e-7. */
static const double bound = 2e-6;

static const int64_t cases[][2] = {{0, 8},  {1, 1},   {1, 15},    {3, 16},
                                   {5, 17}, {65, 33}, {128, 192}, {9, 1000}};

struct problem {
    int64_t n, width;
    struct pair gate, up, row_weight, act, d_act, d_gate, d_up, d_row_weight, act_again;
};

static void problem_init(struct problem *p, struct mt_arena *arena, int64_t n, int64_t width)
{
    p->n = n;
    p->width = width;
    p->gate = pair_uniform(arena, n * width, 1, -6.0, 6.0);
    p->up = pair_random(arena, n * width, 2);
    p->row_weight = pair_random(arena, n, 3);
    p->act = pair_random(arena, n * width, 4);
    p->d_act = pair_random(arena, n * width, 5);
    p->d_gate = pair_random(arena, n * width, 6);
    p->d_up = pair_random(arena, n * width, 7);
    p->d_row_weight = pair_random(arena, n, 8);
    p->act_again = pair_random(arena, n * width, 9);
}

static void compute(struct problem *p, bool weighted)
{
    const float *row_weight = weighted ? p->row_weight.f : NULL;
    mt_cpu_swiglu_forward(p->act.f, p->gate.f, p->up.f, row_weight, p->n, p->width);
    const struct mt_cpu_swiglu_backward args = {
        .d_gate = p->d_gate.f,
        .d_up = p->d_up.f,
        .d_row_weight = weighted ? p->d_row_weight.f : NULL,
        .act = p->act_again.f,
        .d_act = p->d_act.f,
        .gate = p->gate.f,
        .up = p->up.f,
        .row_weight = row_weight,
    };
    mt_cpu_swiglu_backward(&args, p->n, p->width);
}

static void expect(struct problem *p, bool weighted)
{
    for (int64_t i = 0; !weighted && i < p->n; i++) {
        p->row_weight.d[i] = 1.0;
    }
    mt_ref_swiglu_forward(p->act.d, p->gate.d, p->up.d, p->row_weight.d, p->n, p->width);
    const struct mt_ref_swiglu_backward args = {
        p->d_gate.d, p->d_up.d, p->d_row_weight.d, p->d_act.d, p->gate.d, p->up.d, p->row_weight.d};
    mt_ref_swiglu_backward(&args, p->n, p->width);
}

static void values_match_the_reference(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const int64_t *size = cases[i / 2];
        const bool weighted = i % 2 != 0;
        struct problem one;
        problem_init(&one, &arena, size[0], size[1]);
        compute(&one, weighted);
        expect(&one, weighted);
        PAIR_CLOSE(one.act, bound);
        PAIR_SAME(one.act, one.act_again);
        PAIR_CLOSE(one.d_gate, bound);
        PAIR_CLOSE(one.d_up, bound);
        if (weighted) {
            PAIR_CLOSE(one.d_row_weight, bound);
        }
    }
    mt_arena_clear(&arena);
}

static void results_may_overwrite_their_inputs(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct problem apart;
    struct problem inside;
    problem_init(&apart, &arena, 7, 100);
    problem_init(&inside, &arena, 7, 100);
    compute(&apart, true);
    struct mt_cpu_swiglu_backward args = {inside.gate.f,  inside.up.f,        inside.d_row_weight.f,
                                          inside.d_act.f, inside.d_act.f,     inside.gate.f,
                                          inside.up.f,    inside.row_weight.f};
    mt_cpu_swiglu_backward(&args, 7, 100);
    PAIR_SAME(apart.d_gate, inside.gate);
    PAIR_SAME(apart.d_up, inside.up);
    PAIR_SAME(apart.act, inside.d_act);
    PAIR_SAME(apart.d_row_weight, inside.d_row_weight);
    problem_init(&inside, &arena, 7, 100);
    mt_cpu_swiglu_forward(inside.gate.f, inside.gate.f, inside.up.f, inside.row_weight.f, 7, 100);
    PAIR_SAME(apart.act, inside.gate);
    problem_init(&inside, &arena, 7, 100);
    mt_cpu_swiglu_forward(inside.up.f, inside.gate.f, inside.up.f, inside.row_weight.f, 7, 100);
    PAIR_SAME(apart.act, inside.up);
    mt_arena_clear(&arena);
}

static void huge_gates_stay_finite_and_nan_shows(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const float gates[] = {1e30F, -1e30F, 88.5F, -88.5F, 104.0F, -104.0F,
                                  3e38F, -3e38F, 0.0F,  -0.0F,  1e-30F, -87.0F,
                                  20.0F, -20.0F, 1e4F,  -1e4F,  1e-42F, -200.0F};
    struct problem p;
    problem_init(&p, &arena, 1, N_ITEM(gates));
    for (int i = 0; i < N_ITEM(gates); i++) {
        p.gate.f[i] = gates[i];
        p.up.f[i] = 0.5F;
    }
    pair_widen(p.gate);
    pair_widen(p.up);
    compute(&p, false);
    expect(&p, false);
    for (int i = 0; i < N_ITEM(gates); i++) {
        /* Below about 1e-36 silu is 0: the exponential overflows. */
        assert_true(fabs((double)p.act.f[i] - p.act.d[i]) <= 1e-5 * fabs(p.act.d[i]) + 1e-36);
        assert_true(fabs((double)p.d_up.f[i] - p.d_up.d[i]) <= 1e-5 * fabs(p.d_up.d[i]) + 1e-36);
        assert_true(isfinite(p.act.f[i]) && isfinite(p.d_gate.f[i]) && isfinite(p.d_up.f[i]));
    }
    PAIR_CLOSE(p.d_gate, bound);
    p.gate.f[17] = (float)NAN;
    compute(&p, false);
    assert_true(isnan(p.act.f[17]) && isnan(p.d_gate.f[17]) && !isnan(p.act.f[16]));
    mt_arena_clear(&arena);
}

static double objective(void *context)
{
    struct problem *p = context;
    mt_ref_swiglu_forward(p->act.d, p->gate.d, p->up.d, p->row_weight.d, p->n, p->width);
    return weighted_sum(p->act.d, p->d_act.d, p->act.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct problem p;
    problem_init(&p, &arena, 3, 5);
    expect(&p, true);
    PAIR_GRADIENT(objective, &p, p.gate, p.d_gate);
    PAIR_GRADIENT(objective, &p, p.up, p.d_up);
    PAIR_GRADIENT(objective, &p, p.row_weight, p.d_row_weight);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference),
        cmocka_unit_test(results_may_overwrite_their_inputs),
        cmocka_unit_test(huge_gates_stay_finite_and_nan_shows),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
