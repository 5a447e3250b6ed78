/* mt_bias_*: values and gradients, whatever the number of threads. */
#include "kernel/pair.h"
#include "reference/bias.h"

/* Backward rounds once, a double sum added to a float. */
static const double bound = 2e-7;

static const int64_t cases[][2] = {{0, 5},   {1, 1},    {3, 17},   {33, 64},
                                   {9, 200}, {700, 65}, {2, 20000}};

struct problem {
    int64_t n, width;
    struct pair y, bias, d_y, d_bias;
};

static void problem_init(struct problem *p, struct mt_arena *arena, const int64_t size[2])
{
    p->n = size[0];
    p->width = size[1];
    p->y = pair_random(arena, p->n * p->width, 1);
    p->bias = pair_random(arena, p->width, 2);
    p->d_y = pair_random(arena, p->n * p->width, 3);
    p->d_bias = pair_random(arena, p->width, 4);
}

static void compute(struct problem *p, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    mt_bias_forward(&device, p->y.f, p->bias.f, p->n, p->width);
    mt_bias_backward(&device, p->d_bias.f, p->d_y.f, p->n, p->width);
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
        mt_ref_bias_forward(one.y.d, one.bias.d, one.n, one.width);
        mt_ref_bias_backward(one.d_bias.d, one.d_y.d, one.n, one.width);
        PAIR_CLOSE(one.y, bound);
        PAIR_CLOSE(one.d_bias, bound);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, cases[i]);
            compute(&many, n_thread);
            PAIR_SAME(one.y, many.y);
            PAIR_SAME(one.d_bias, many.d_bias);
        }
    }
    mt_arena_clear(&arena);
}

/* y starts anew at every evaluation: forward adds. */
static double objective(void *context)
{
    struct problem *p = context;
    memset(p->y.d, 0, (size_t)p->y.n * sizeof(double));
    mt_ref_bias_forward(p->y.d, p->bias.d, p->n, p->width);
    return weighted_sum(p->y.d, p->d_y.d, p->y.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[2] = {4, 6};
    struct problem p;
    problem_init(&p, &arena, size);
    memset(p.d_bias.d, 0, (size_t)p.d_bias.n * sizeof(double));
    mt_ref_bias_backward(p.d_bias.d, p.d_y.d, p.n, p.width);
    PAIR_GRADIENT(objective, &p, p.bias, p.d_bias);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
