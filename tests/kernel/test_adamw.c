/* mt_adamw_update: against the reference over several steps, and its properties. */
#include "kernel/pair.h"
#include "reference/adamw.h"

static const int64_t sizes[] = {0, 1, 15, 16, 17, 1000, 32768, 70001};

struct problem {
    struct pair value, grad, m, v;
};

static void problem_init(struct problem *p, struct mt_arena *arena, int64_t n)
{
    p->value = pair_random(arena, n, 1);
    p->grad = pair_random(arena, n, 2);
    p->m = pair_random(arena, n, 3);
    p->v = pair_uniform(arena, n, 4, 0.0, 1.0);
}

static void several_steps_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(sizes); i++) {
        mt_arena_release(&arena, 0);
        struct problem p[3];
        for (int j = 0; j < 3; j++) {
            problem_init(&p[j], &arena, sizes[i]);
        }
        for (int64_t step = 1; step <= 5; step++) {
            const struct mt_adamw args = {0.02, 0.9, 0.95, 1e-8, 0.1, 0.37, step};
            const struct mt_ref_adamw ref = {0.02, 0.9, 0.95, 1e-8, 0.1, 0.37, step};
            mt_ref_adamw(p[0].value.d, p[0].grad.d, p[0].m.d, p[0].v.d, sizes[i], &ref);
            for (int j = 0; j < 3; j++) {
                struct mt_device device = device_of(j + 1);
                mt_adamw_update(&device, p[j].value.f, p[j].grad.f, p[j].m.f, p[j].v.f, sizes[i],
                                &args);
            }
        }
        PAIR_CLOSE(p[0].value, 2e-6);
        PAIR_CLOSE(p[0].m, 1e-6);
        PAIR_CLOSE(p[0].v, 1e-6);
        for (int j = 1; j < 3; j++) {
            PAIR_SAME(p[0].value, p[j].value);
            PAIR_SAME(p[0].m, p[j].m);
            PAIR_SAME(p[0].v, p[j].v);
        }
    }
    mt_arena_clear(&arena);
}

/* Other programs read it: exp_avg after the first step is 1 - beta1 times the clipped gradient. */
static void first_moment_of_the_first_step_is_its_share_of_the_gradient(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct problem p;
    problem_init(&p, &arena, 100);
    memset(p.m.f, 0, 400);
    memset(p.v.f, 0, 400);
    const struct mt_adamw args = {1e-3, 0.9, 0.95, 1e-8, 0.1, 0.5, 1};
    struct mt_device device = device_of(1);
    mt_adamw_update(&device, p.value.f, p.grad.f, p.m.f, p.v.f, 100, &args);
    for (int i = 0; i < 100; i++) {
        const double expected = (1.0 - 0.9) * 0.5 * p.grad.d[i];
        assert_true(fabs((double)p.m.f[i] - expected) <= 2e-7 * fabs(expected));
        /* The first step moves every element by lr, against its gradient, beside the decay. */
        const double moved = p.value.d[i] * (1.0 - 1e-3 * 0.1) - (double)p.value.f[i];
        assert_true(fabs(moved - copysign(1e-3, p.grad.d[i])) < 1e-6);
    }
    mt_arena_clear(&arena);
}

static void without_gradient_only_the_decay_acts(void **state)
{
    MT_UNUSED(state);
    float value = 2.0F;
    float m = 0.0F;
    float v = 0.0F;
    const float grad = 0.0F;
    struct mt_adamw args = {0.5, 0.9, 0.95, 1e-8, 0.25, 1.0, 1};
    struct mt_device device = device_of(1);
    mt_adamw_update(&device, &value, &grad, &m, &v, 1, &args);
    assert_true(value == 1.75F && m == 0.0F && v == 0.0F);
    args.lr = 0.0;
    mt_adamw_update(&device, &value, &grad, &m, &v, 1, &args);
    assert_true(value == 1.75F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_steps_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(first_moment_of_the_first_step_is_its_share_of_the_gradient),
        cmocka_unit_test(without_gradient_only_the_decay_acts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
