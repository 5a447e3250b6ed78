/* mt_router_*: values, gradients, and that a row's logits know nothing of the other rows. */
#include "kernel/pair.h"
#include "reference/router.h"

/* Largest error seen: forward 3e-7, backward 5e-7 (sums over 300 rows in one float). */
static const double bound = 4e-6;

static const int64_t cases[][3] = {{0, 4, 8},     {1, 1, 1},    {1, 3, 17},  {5, 8, 16},
                                   {33, 13, 65},  {64, 64, 64}, {9, 66, 31}, {300, 8, 100},
                                   {40, 5, 1000}, {2, 512, 33}, {7, 2, 300}};

struct problem {
    int64_t n, n_expert, width;
    struct pair x, w, logits, d_logits, d_x, d_w;
};

static void problem_init(struct problem *p, struct mt_arena *arena, const int64_t size[3])
{
    p->n = size[0];
    p->n_expert = size[1];
    p->width = size[2];
    p->x = pair_random(arena, p->n * p->width, 1);
    p->w = pair_random(arena, p->n_expert * p->width, 2);
    p->logits = pair_random(arena, p->n * p->n_expert, 3);
    p->d_logits = pair_random(arena, p->n * p->n_expert, 4);
    p->d_x = pair_random(arena, p->n * p->width, 5);
    p->d_w = pair_random(arena, p->n_expert * p->width, 6);
}

static void compute(struct problem *p, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    mt_router_forward(&device, p->logits.f, p->x.f, p->w.f, p->n, p->n_expert, p->width);
    const struct mt_router_backward args = {p->d_x.f, p->d_w.f, p->d_logits.f, p->x.f, p->w.f};
    mt_router_backward(&device, &args, p->n, p->n_expert, p->width);
}

static void reference_backward(struct problem *p)
{
    const struct mt_ref_router_backward args = {p->d_x.d, p->d_w.d, p->d_logits.d, p->x.d, p->w.d};
    mt_ref_router_backward(&args, p->n, p->n_expert, p->width);
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        struct problem one;
        problem_init(&one, &arena, cases[i]);
        compute(&one, 1);
        mt_ref_router_forward(one.logits.d, one.x.d, one.w.d, one.n, one.n_expert, one.width);
        reference_backward(&one);
        PAIR_CLOSE(one.logits, bound);
        PAIR_CLOSE(one.d_x, bound);
        PAIR_CLOSE(one.d_w, bound);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, cases[i]);
            compute(&many, n_thread);
            PAIR_SAME(one.logits, many.logits);
            PAIR_SAME(one.d_x, many.d_x);
            PAIR_SAME(one.d_w, many.d_w);
        }
    }
    mt_arena_clear(&arena);
}

static void a_row_does_not_depend_on_the_other_rows(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {70, 13, 83};
    struct problem p;
    problem_init(&p, &arena, size);
    compute(&p, 1);
    struct mt_device device = device_of(2);
    for (int64_t row = 0; row < p.n; row++) {
        const struct pair alone = pair_random(&arena, p.n_expert, 7);
        mt_router_forward(&device, alone.f, p.x.f + row * p.width, p.w.f, 1, p.n_expert, p.width);
        MT_TEST_SAME_BITS(alone.f, p.logits.f + row * p.n_expert, p.n_expert);
    }
    mt_arena_clear(&arena);
}

static double objective(void *context)
{
    struct problem *p = context;
    mt_ref_router_forward(p->logits.d, p->x.d, p->w.d, p->n, p->n_expert, p->width);
    return weighted_sum(p->logits.d, p->d_logits.d, p->logits.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {3, 4, 5};
    struct problem p;
    problem_init(&p, &arena, size);
    memset(p.d_x.d, 0, (size_t)p.d_x.n * sizeof(double));
    memset(p.d_w.d, 0, (size_t)p.d_w.n * sizeof(double));
    reference_backward(&p);
    PAIR_GRADIENT(objective, &p, p.x, p.d_x);
    PAIR_GRADIENT(objective, &p, p.w, p.d_w);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(a_row_does_not_depend_on_the_other_rows),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
