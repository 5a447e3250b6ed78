/* mt_rms_norm_*: values, gradients, thread counts, in-place use. */
#include "kernel/pair.h"
#include "reference/rms_norm.h"

/* Largest error seen 3e-7 (sums of 1000 terms in 16 lanes). */
static const double bound = 2e-6;
static const double eps = 1e-5;

/* No width 1: its gradient is rounding, y = sign(x) w is constant but for eps. */
static const int64_t cases[][2] = {{0, 8},   {1, 2},   {1, 7},    {3, 16},   {2, 17},
                                   {65, 31}, {64, 64}, {130, 65}, {33, 1000}};

struct problem {
    int64_t n, width;
    struct pair x, w, y, rstd, d_y, d_x, d_w;
};

static void problem_init(struct problem *p, struct mt_arena *arena, int64_t n, int64_t width)
{
    p->n = n;
    p->width = width;
    p->x = pair_random(arena, n * width, 1);
    p->w = pair_random(arena, width, 2);
    p->y = pair_random(arena, n * width, 3);
    p->rstd = pair_random(arena, n, 4);
    p->d_y = pair_random(arena, n * width, 5);
    p->d_x = pair_random(arena, n * width, 6);
    p->d_w = pair_random(arena, width, 7);
}

static void compute(struct problem *p, int n_thread, bool accumulate)
{
    struct mt_device device = device_of(n_thread);
    mt_rms_norm_forward(&device, p->y.f, p->rstd.f, p->x.f, p->w.f, p->n, p->width, (float)eps);
    const struct mt_rms_norm_backward args = {p->d_x.f, p->d_w.f,  p->d_y.f,  p->x.f,
                                              p->w.f,   p->rstd.f, accumulate};
    mt_rms_norm_backward(&device, &args, p->n, p->width);
}

static void expect(struct problem *p, struct mt_arena *arena, bool accumulate)
{
    const double eps_single = (double)(float)eps;
    struct pair d_x = pair_random(arena, p->n * p->width, 6);
    mt_ref_rms_norm_forward(p->y.d, p->rstd.d, p->x.d, p->w.d, p->n, p->width, eps_single);
    mt_ref_rms_norm_backward(p->d_x.d, p->d_w.d, p->d_y.d, p->x.d, p->w.d, p->n, p->width,
                             eps_single);
    for (int64_t i = 0; accumulate && i < d_x.n; i++) {
        p->d_x.d[i] += d_x.d[i];
    }
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const bool accumulate = i >= N_ITEM(cases);
        const int64_t *size = cases[i % N_ITEM(cases)];
        struct problem one;
        problem_init(&one, &arena, size[0], size[1]);
        compute(&one, 1, accumulate);
        expect(&one, &arena, accumulate);
        PAIR_CLOSE(one.y, bound);
        PAIR_CLOSE(one.rstd, bound);
        PAIR_CLOSE(one.d_x, bound);
        PAIR_CLOSE(one.d_w, bound);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, size[0], size[1]);
            compute(&many, n_thread, accumulate);
            PAIR_SAME(one.y, many.y);
            PAIR_SAME(one.rstd, many.rstd);
            PAIR_SAME(one.d_x, many.d_x);
            PAIR_SAME(one.d_w, many.d_w);
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
    problem_init(&apart, &arena, 33, 50);
    problem_init(&inside, &arena, 33, 50);
    compute(&apart, 1, false);
    struct mt_device device = device_of(2);
    const struct mt_rms_norm_backward args = {inside.d_y.f, inside.d_w.f, inside.d_y.f, inside.x.f,
                                              inside.w.f,   apart.rstd.f, false};
    mt_rms_norm_backward(&device, &args, 33, 50);
    PAIR_SAME(apart.d_x, inside.d_y);
    PAIR_SAME(apart.d_w, inside.d_w);
    mt_rms_norm_forward(&device, inside.x.f, inside.rstd.f, inside.x.f, inside.w.f, 33, 50,
                        (float)eps);
    PAIR_SAME(apart.y, inside.x);
    mt_arena_clear(&arena);
}

/* y, rstd and the sum, in one pass as in two. */
static void adding_first_changes_no_bit_and_matches_the_reference(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 3 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = cases[i / 3][0];
        const int64_t width = cases[i / 3][1];
        struct mt_device device = device_of(i % 3 + 1);
        struct problem p;
        problem_init(&p, &arena, n, width);
        const struct pair sum = pair_random(&arena, n * width, 8);
        const struct pair apart = pair_random(&arena, n * width, 8);
        const struct pair y = pair_random(&arena, n * width, 9);
        const struct pair rstd = pair_random(&arena, n, 10);
        const struct mt_add_rms_norm_forward args = {sum.f, p.y.f, p.rstd.f,
                                                     p.x.f, p.w.f, (float)eps};
        mt_add_rms_norm_forward(&device, &args, n, width);
        for (int64_t j = 0; j < apart.n; j++) {
            apart.f[j] += p.x.f[j];
            sum.d[j] += p.x.d[j];
        }
        mt_rms_norm_forward(&device, y.f, rstd.f, apart.f, p.w.f, n, width, (float)eps);
        mt_ref_rms_norm_forward(p.y.d, p.rstd.d, sum.d, p.w.d, n, width, (double)(float)eps);
        PAIR_SAME(sum, apart);
        PAIR_SAME(p.y, y);
        PAIR_SAME(p.rstd, rstd);
        PAIR_CLOSE(sum, bound);
        PAIR_CLOSE(p.y, bound);
        PAIR_CLOSE(p.rstd, bound);
    }
    mt_arena_clear(&arena);
}

static double objective(void *context)
{
    struct problem *p = context;
    mt_ref_rms_norm_forward(p->y.d, p->rstd.d, p->x.d, p->w.d, p->n, p->width, eps);
    return weighted_sum(p->d_y.d, p->y.d, p->y.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct problem p;
    problem_init(&p, &arena, 3, 7);
    memset(p.d_w.d, 0, (size_t)p.d_w.n * sizeof(double));
    mt_ref_rms_norm_backward(p.d_x.d, p.d_w.d, p.d_y.d, p.x.d, p.w.d, p.n, p.width, eps);
    PAIR_GRADIENT(objective, &p, p.x, p.d_x);
    PAIR_GRADIENT(objective, &p, p.w, p.d_w);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(results_may_overwrite_their_inputs),
        cmocka_unit_test(adding_first_changes_no_bit_and_matches_the_reference),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
