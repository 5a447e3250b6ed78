/* mt_adamw_update: against the reference over several steps, and its properties. */
#include "kernel/pair.h"
#include "reference/adamw.h"

static const int64_t sizes[] = {0, 1, 15, 16, 17, 1000, 32768, 70001};

struct problem {
    struct pair value, grad, m, v;
};

static void update(int n_thread, const struct problem *p, const struct mt_adamw *args)
{
    struct mt_device device = device_of(n_thread);
    struct mt_adamw_item item = {.value = p->value.f,
                                 .grad = p->grad.f,
                                 .m = p->m.f,
                                 .v = p->v.f,
                                 .n = p->value.n,
                                 .decays = true};
    mt_adamw_update(&device, &item, 1, args);
}

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
                p[j].grad = pair_random(&arena, sizes[i], 2);
                update(j + 1, &p[j], &args);
                for (int64_t k = 0; k < sizes[i]; k++) {
                    assert_true(p[j].grad.f[k] == 0.0F);
                }
                pair_check_canaries(p[j].grad);
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
    update(1, &p, &args);
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
    float value[2] = {2.0F, 2.0F};
    float m[2] = {0.0F};
    float v[2] = {0.0F};
    float grad[2] = {0.0F};
    struct mt_adamw args = {0.5, 0.9, 0.95, 1e-8, 0.25, 1.0, 1};
    struct mt_device device = device_of(1);
    struct mt_adamw_item item[2];
    for (int i = 0; i < 2; i++) {
        item[i] = (struct mt_adamw_item){&value[i], &grad[i], &m[i], &v[i], 1, i == 0, NULL, 0};
    }
    mt_adamw_update(&device, item, 2, &args);
    assert_true(value[0] == 1.75F && m[0] == 0.0F && v[0] == 0.0F);
    assert_true(value[1] == 2.0F && m[1] == 0.0F && v[1] == 0.0F);
    args.lr = 0.0;
    mt_adamw_update(&device, item, 2, &args);
    assert_true(value[0] == 1.75F && value[1] == 2.0F);
}

/* Items of all kinds in one call: packed in slabs, whole and cut at edges, not packed,
 * inference packs, empty ones. */
#ifndef MT_TEST_ROUNDS
#define MT_TEST_ROUNDS 60 /* fewer on the emulated GPU */
#endif
enum { N_SHAPE = 6 };
static const int64_t shapes[N_SHAPE][2] = {{128, 192}, {0, 0},   {100, 40},
                                           {64, 64},   {1, 777}, {0, 0}};

struct packed {
    struct problem p;
    struct mt_weight weight;
    char *pack;
    int64_t pack_bytes;
};

/* Shape i of the list; the packs begin with wrong bytes. */
static struct packed make_packed(struct mt_arena *arena, enum mt_dtype dtype, int i)
{
    struct packed packed = {.pack = NULL};
    const int64_t n_out = shapes[i % N_SHAPE][0];
    const int64_t n_in = shapes[i % N_SHAPE][1];
    const bool with_backward = i != 3;
    problem_init(&packed.p, arena, n_out * n_in);
    if (n_out > 1) {
        struct mt_device device = device_of(3);
        device.dtype = dtype;
        MT_TEST_OK(mt_linear_prepare(&device, n_out, n_in));
        packed.pack_bytes = mt_weight_bytes(&device, n_out, n_in, with_backward);
        packed.pack = mt_arena_cut(arena, packed.pack_bytes);
        memset(packed.pack, 7, (size_t)packed.pack_bytes);
        mt_weight_init(&device, &packed.weight, n_out, n_in, with_backward, packed.pack);
    }
    return packed;
}

static void many_at_once_are_updated_and_packed_as_each_alone(void **state)
{
    MT_UNUSED(state);
    enum { MAX_ITEM = N_SHAPE * MT_TEST_ROUNDS };
    static const int n_items[] = {0, 1, N_SHAPE, MAX_ITEM};
    static struct packed alone[MAX_ITEM];
    static struct packed all[MAX_ITEM];
    static struct mt_adamw_item item[MAX_ITEM];
    const struct mt_adamw args = {0.02, 0.9, 0.95, 1e-8, 0.1, 0.37, 3};
    struct mt_arena arena;
    arena_init(&arena);
    for (int c = 0; c < 6 * N_ITEM(n_items); c++) {
        const int n_item = n_items[c / 6];
        struct mt_device device = device_of(1 + c % 3);
        device.dtype = c / 3 % 2 == 0 ? MT_FLOAT32 : MT_BFLOAT16;
        mt_arena_release(&arena, 0);
        for (int i = 0; i < n_item; i++) {
            alone[i] = make_packed(&arena, device.dtype, i);
            all[i] = make_packed(&arena, device.dtype, i);
            const struct problem *p = &all[i].p;
            update(1, &alone[i].p, &args);
            item[i] = (struct mt_adamw_item){p->value.f,
                                             p->grad.f,
                                             p->m.f,
                                             p->v.f,
                                             p->grad.n,
                                             true,
                                             all[i].pack != NULL ? &all[i].weight : NULL,
                                             0};
        }
        mt_adamw_update(&device, item, n_item, &args);
        for (int i = 0; i < n_item; i++) {
            PAIR_SAME(all[i].p.value, alone[i].p.value);
            PAIR_SAME(all[i].p.grad, alone[i].p.grad);
            PAIR_SAME(all[i].p.m, alone[i].p.m);
            PAIR_SAME(all[i].p.v, alone[i].p.v);
            if (all[i].pack != NULL) {
                mt_weight_pack(&device, &alone[i].weight, alone[i].p.value.f);
                assert_memory_equal(all[i].pack, alone[i].pack, (size_t)all[i].pack_bytes);
            }
        }
    }
    mt_kernel_clear();
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_steps_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(first_moment_of_the_first_step_is_its_share_of_the_gradient),
        cmocka_unit_test(without_gradient_only_the_decay_acts),
        cmocka_unit_test(many_at_once_are_updated_and_packed_as_each_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
