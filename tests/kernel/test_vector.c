/* cpu/vector.h, cpu/product.h and how attention's keys are transposed: what the CPU kernels are
 * made of. */
#include "kernel/cpu/attention_block.h"
#include "kernel/cpu/product.h"
#include "kernel/cpu/vector.h"
#include "kernel/pair.h"

/* Every 211th float: all exponents, both signs, the NaNs. */
static void exp_is_within_two_units_in_the_last_place(void **state)
{
    MT_UNUSED(state);
    double worst = 0.0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 211) {
        const float x = mt_float_from_bits((uint32_t)bits);
        const float got = mt_exp(x);
        const double want = exp((double)x);
        if (isnan(x)) {
            assert_true(isnan(got));
        } else if (want > 0x1.fffffefffffffp127) {
            assert_true(isinf(got));
        } else {
            const int exponent = want > 0.0 ? ilogb(want) : -126;
            const double unit = ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
            worst = fmax(worst, fabs((double)got - want) / unit);
        }
    }
    assert_true(worst < 2.0);
    assert_true(mt_exp(0.0F) == 1.0F && mt_exp((float)-INFINITY) == 0.0F);
    assert_true(isinf(mt_exp((float)INFINITY)));
}

/* From where a softmax's scores end to where it has none. */
static void powers_of_two_are_within_two_units_in_the_last_place(void **state)
{
    MT_UNUSED(state);
    double worst = 0.0;
    for (float x = -126.0F; x <= 126.0F; x += 0.0013F) {
        const double want = exp2((double)x);
        const double unit = ldexp(1.0, ilogb(want) - 23);
        worst = fmax(worst, fabs((double)mt_exp2_softmax(x) - want) / unit);
    }
    assert_true(worst <= 2.0);
    assert_true(mt_exp2_softmax(0.0F) == 1.0F && mt_exp2_softmax(-3.0F) == 0.125F);
    assert_true(mt_exp2_softmax(-127.0F) == 0.0F && mt_exp2_softmax((float)-INFINITY) == 0.0F);
    assert_true(isnan(mt_exp2_softmax((float)NAN)));
}

static void reductions_match_plain_loops_at_every_length(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int64_t n = 0; n <= 70; n++) {
        mt_arena_release(&arena, 0);
        const struct pair x = pair_random(&arena, n, 1);
        const struct pair y = pair_random(&arena, n, 2);
        float largest = (float)-INFINITY;
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            largest = fmaxf(largest, x.f[i]);
            sum += exp(x.d[i] - 0.5);
        }
        assert_true(mt_max(x.f, n) == largest);
        assert_true(fabs((double)mt_dot(x.f, y.f, n) - weighted_sum(x.d, y.d, n)) < 1e-5);
        assert_true(fabs((double)mt_exp_sum(y.f, x.f, 0.5F, n) - sum) <= 1e-6 * sum);
        pair_check_canaries(y);
    }
    mt_arena_clear(&arena);
}

static void set_product(struct mt_cpu_product *p, bool transposed, struct pair a, struct pair b)
{
    p->a = a.f;
    p->a_row_stride = transposed ? 1 : p->k + 3;
    p->a_column_stride = transposed ? p->m + 3 : 1;
    p->b = b.f;
    p->b_stride = p->n + 5;
    p->c_stride = p->n + 7;
}

static void naive_product(const struct mt_cpu_product *p, struct pair c, struct pair a,
                          struct pair b)
{
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double *sum = &c.d[i * p->c_stride + j];
            *sum = p->accumulate ? *sum : 0.0;
            for (int64_t k = 0; k < p->k; k++) {
                *sum +=
                    a.d[i * p->a_row_stride + k * p->a_column_stride] * b.d[k * p->b_stride + j];
            }
        }
    }
}

/* Elements between rows keep their values: a product writes its block and nothing else. */
static void every_product_of_this_processor_matches_the_naive_one(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    mt_cpu_multiply_fn multiply[MT_CPU_PRODUCTS];
    const int n_multiply = mt_cpu_multiply_all(multiply);
    assert_true(n_multiply >= 1);
    static const int64_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 19, 23};
    static const int64_t columns[] = {1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 48, 50, 70};
    static const int64_t depths[] = {0, 1, 2, 33};
    for (int i = 0; i < n_multiply * N_ITEM(rows) * N_ITEM(columns) * N_ITEM(depths) * 4; i++) {
        mt_arena_release(&arena, 0);
        int rest = i / 4;
        struct mt_cpu_product p = {.accumulate = i % 2 != 0};
        p.m = rows[rest % N_ITEM(rows)];
        rest /= N_ITEM(rows);
        p.n = columns[rest % N_ITEM(columns)];
        rest /= N_ITEM(columns);
        p.k = depths[rest % N_ITEM(depths)];
        const struct pair a = pair_random(&arena, (p.m + 3) * (p.k + 3), 1);
        const struct pair b = pair_random(&arena, p.k * (p.n + 5), 2);
        const struct pair c = pair_random(&arena, p.m * (p.n + 7), 3);
        set_product(&p, i / 2 % 2 != 0, a, b);
        p.c = c.f;
        multiply[rest / N_ITEM(depths)](&p);
        naive_product(&p, c, a, b);
        PAIR_CLOSE(c, 2e-6);
    }
    mt_arena_clear(&arena);
}

/* Every element depends on its k alone: a product in one call has the bits of one cut in rows. */
static void a_product_has_the_bits_of_its_parts(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    mt_cpu_multiply_fn multiply[MT_CPU_PRODUCTS];
    const int n_multiply = mt_cpu_multiply_all(multiply);
    for (int i = 0; i < n_multiply * 40; i++) {
        mt_arena_release(&arena, 0);
        struct mt_cpu_product p = {.m = i / n_multiply, .n = 21, .k = 19, .accumulate = true};
        const struct pair a = pair_random(&arena, (p.m + 3) * (p.k + 3), 1);
        const struct pair b = pair_random(&arena, p.k * (p.n + 5), 2);
        const struct pair whole = pair_random(&arena, p.m * (p.n + 7), 3);
        const struct pair parts = pair_random(&arena, p.m * (p.n + 7), 3);
        set_product(&p, false, a, b);
        p.c = whole.f;
        multiply[i % n_multiply](&p);
        const int64_t m = p.m;
        p.m = 1;
        for (int64_t row = 0; row < m; row++) {
            p.c = parts.f + row * p.c_stride;
            p.a = a.f + row * p.a_row_stride;
            multiply[i % n_multiply](&p);
        }
        PAIR_SAME(whole, parts);
    }
    mt_arena_clear(&arena);
}

/* Whole tiles and parts of one, widths that vectors divide and others. */
static void packed_keys_are_transposed_tile_by_tile(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t counts[] = {1, 31, 32, 33, 70, 96};
    static const int64_t widths[] = {1, 7, 8, 16, 20, 24, 64, 72};
    for (int i = 0; i < N_ITEM(counts) * N_ITEM(widths); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = counts[i % N_ITEM(counts)];
        const int64_t width = widths[i / N_ITEM(counts)];
        const int64_t stride = width + 5;
        const struct mt_attention shape = {.head_dim = width};
        const struct mt_attention_head head = {.shape = &shape};
        const struct pair x = pair_random(&arena, n * stride, 1);
        const int64_t n_tile = (n + MT_ATTENTION_TILE - 1) / MT_ATTENTION_TILE;
        const struct pair pack = pair_random(&arena, n_tile * MT_ATTENTION_TILE * width, 2);
        mt_attention_pack(&head, pack.f, x.f, stride, n);
        for (int64_t at = 0; at < pack.n; at++) {
            const int64_t key =
                at / (MT_ATTENTION_TILE * width) * MT_ATTENTION_TILE + at % MT_ATTENTION_TILE;
            const int64_t d = at / MT_ATTENTION_TILE % width;
            assert_true(pack.f[at] == (key < n ? x.f[key * stride + d] : 0.0F));
        }
        pair_check_canaries(pack);
    }
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_two_units_in_the_last_place),
        cmocka_unit_test(powers_of_two_are_within_two_units_in_the_last_place),
        cmocka_unit_test(reductions_match_plain_loops_at_every_length),
        cmocka_unit_test(every_product_of_this_processor_matches_the_naive_one),
        cmocka_unit_test(a_product_has_the_bits_of_its_parts),
        cmocka_unit_test(packed_keys_are_transposed_tile_by_tile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
