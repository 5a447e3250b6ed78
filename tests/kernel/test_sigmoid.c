/* mt_sigmoid_*: values and gradients, in place too, whatever the number of threads. */
#include "kernel/pair.h"
#include "reference/sigmoid.h"

static const double bound = 5e-7;

static const int64_t sizes[] = {0, 1, 15, 17, 4096, 4097, 10003};

struct problem {
    struct pair x, y, d_y, d_x;
};

static void problem_init(struct problem *p, struct mt_arena *arena, int64_t n)
{
    p->x = pair_uniform(arena, n, 1, -30.0, 30.0);
    p->y = pair_random(arena, n, 2);
    p->d_y = pair_random(arena, n, 3);
    p->d_x = pair_random(arena, n, 4);
}

static void compute(struct problem *p, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    mt_sigmoid_forward(&device, p->y.f, p->x.f, p->x.n);
    mt_sigmoid_backward(&device, p->d_x.f, p->d_y.f, p->y.f, p->x.n);
}

static void check_in_place(const struct problem *p)
{
    struct mt_device device = device_of(1);
    mt_sigmoid_forward(&device, p->x.f, p->x.f, p->x.n);
    PAIR_SAME(p->x, p->y);
    mt_sigmoid_backward(&device, p->d_y.f, p->d_y.f, p->y.f, p->x.n);
    PAIR_SAME(p->d_y, p->d_x);
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(sizes); i++) {
        mt_arena_release(&arena, 0);
        struct problem one;
        problem_init(&one, &arena, sizes[i]);
        compute(&one, 1);
        mt_ref_sigmoid_forward(one.y.d, one.x.d, one.x.n);
        mt_ref_sigmoid_backward(one.d_x.d, one.d_y.d, one.y.d, one.x.n);
        PAIR_CLOSE(one.y, bound);
        PAIR_CLOSE(one.d_x, bound);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, sizes[i]);
            compute(&many, n_thread);
            PAIR_SAME(one.y, many.y);
            PAIR_SAME(one.d_x, many.d_x);
        }
        check_in_place(&one);
    }
    mt_arena_clear(&arena);
}

static void extremes_give_zero_and_one_and_nan_stays(void **state)
{
    MT_UNUSED(state);
    struct mt_device device = device_of(1);
    const float x[4] = {-INFINITY, INFINITY, NAN, 0.0F};
    float y[4];
    mt_sigmoid_forward(&device, y, x, 4);
    assert_true(y[0] < 1e-37F && y[1] == 1.0F && isnan(y[2]) && y[3] == 0.5F);
}

static double objective(void *context)
{
    struct problem *p = context;
    mt_ref_sigmoid_forward(p->y.d, p->x.d, p->x.n);
    return weighted_sum(p->y.d, p->d_y.d, p->y.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct problem p;
    problem_init(&p, &arena, 9);
    p.x = pair_random(&arena, 9, 6);
    mt_ref_sigmoid_forward(p.y.d, p.x.d, p.x.n);
    mt_ref_sigmoid_backward(p.d_x.d, p.d_y.d, p.y.d, p.x.n);
    PAIR_GRADIENT(objective, &p, p.x, p.d_x);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(extremes_give_zero_and_one_and_nan_stays),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
