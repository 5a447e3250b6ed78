/* mt_embedding_*: lookup, and gradients of tokens that repeat. */
#include "kernel/pair.h"
#include "reference/embedding.h"

static const int64_t cases[][3] = {{0, 5, 8}, {1, 1, 1}, {50, 3, 17}, {130, 256, 64}, {7, 2, 300}};

struct problem {
    int64_t n, width;
    struct pair table, x, d_x, d_table;
    int32_t *token;
};

static void problem_init(struct problem *p, struct mt_arena *arena, const int64_t size[3])
{
    p->n = size[0];
    p->width = size[2];
    p->table = pair_random(arena, size[1] * p->width, 1);
    p->x = pair_random(arena, p->n * p->width, 2);
    p->d_x = pair_random(arena, p->n * p->width, 3);
    p->d_table = pair_random(arena, size[1] * p->width, 4);
    p->token = mt_arena_cut(arena, p->n * (int64_t)sizeof(int32_t));
    mt_test_fill_int32(p->token, p->n, 5, (int32_t)size[1]);
}

static void compute(struct problem *p, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    mt_embedding_forward(&device, p->x.f, p->token, p->table.f, p->n, p->width);
    mt_embedding_backward(&device, p->d_table.f, p->token, p->d_x.f, p->n, p->width);
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
        mt_ref_embedding_forward(one.x.d, one.token, one.table.d, one.n, one.width);
        mt_ref_embedding_backward(one.d_table.d, one.token, one.d_x.d, one.n, one.width);
        PAIR_CLOSE(one.x, 0.0);
        PAIR_CLOSE(one.d_table, 1e-6);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, cases[i]);
            compute(&many, n_thread);
            PAIR_SAME(one.x, many.x);
            PAIR_SAME(one.d_table, many.d_table);
        }
    }
    mt_arena_clear(&arena);
}

static double objective(void *context)
{
    struct problem *p = context;
    mt_ref_embedding_forward(p->x.d, p->token, p->table.d, p->n, p->width);
    return weighted_sum(p->x.d, p->d_x.d, p->x.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {9, 4, 3};
    struct problem p;
    problem_init(&p, &arena, size);
    memset(p.d_table.d, 0, 12 * sizeof(double));
    mt_ref_embedding_backward(p.d_table.d, p.token, p.d_x.d, p.n, p.width);
    PAIR_GRADIENT(objective, &p, p.table, p.d_table);
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
