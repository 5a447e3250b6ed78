/* Weight gradients: every implementation that this processor can run (gradient.h). */
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/gradient.h"
#include "kernel/pair.h"
#include "kernel/product.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* As in test_bfloat16. */
static const double bound = 2e-6;

static void check_gradient(struct mt_arena *arena, mt_cpu_gradient_fn add,
                           const struct mt_cpu_gradient *like)
{
    struct mt_cpu_gradient g = *like;
    mt_arena_release(arena, 0);
    const struct pair a = pair_random(arena, g.k * g.a_stride, 1);
    const struct pair b = pair_random(arena, g.k * g.b_stride, 2);
    const struct pair c = pair_random(arena, g.m * g.c_stride, 3);
    g.a = a.f;
    g.b = b.f;
    g.c = c.f;
    add(&g);
    for (int64_t i = 0; g.dtype == MT_BFLOAT16 && i < a.n; i++) {
        a.d[i] = product_bf16(a.d[i]);
    }
    for (int64_t i = 0; g.dtype == MT_BFLOAT16 && i < b.n; i++) {
        b.d[i] = product_bf16(b.d[i]);
    }
    for (int64_t k = 0; k < g.k; k++) {
        for (int64_t i = 0; i < g.m; i++) {
            for (int64_t j = 0; j < g.n; j++) {
                c.d[i * g.c_stride + j] += a.d[k * g.a_stride + i] * b.d[k * g.b_stride + j];
            }
        }
    }
    PAIR_CLOSE(c, bound);
}

static void every_gradient_of_this_processor_matches_the_naive_one(void **state)
{
    MT_UNUSED(state);
    static const int64_t sizes[][2] = {{1, 1},   {7, 33},   {8, 32},   {9, 31},   {6, 16},
                                       {48, 17}, {64, 257}, {255, 48}, {256, 97}, {250, 8}};
    static const int64_t depths[] = {0, 1, 2, 3, 64, 127, 129, 300};
    struct mt_arena arena;
    arena_init(&arena);
    for (int type = 0; type < 2; type++) {
        mt_cpu_gradient_fn add[MT_CPU_GRADIENTS];
        const int n_add = mt_cpu_gradient_all((enum mt_dtype)type, add);
        assert_true(n_add >= 1 && n_add <= MT_CPU_GRADIENTS);
        for (int i = 0; i < n_add * N_ITEM(sizes) * N_ITEM(depths); i++) {
            const int64_t *size = sizes[i / n_add % N_ITEM(sizes)];
            const struct mt_cpu_gradient g = {.m = size[0],
                                              .n = size[1],
                                              .k = depths[i / n_add / N_ITEM(sizes)],
                                              .a_stride = size[0] + 3,
                                              .b_stride = size[1] + 5,
                                              .c_stride = size[1] + 7,
                                              .dtype = (enum mt_dtype)type};
            check_gradient(&arena, add[i % n_add], &g);
        }
    }
    mt_arena_clear(&arena);
}

/* One row times 1: what is added is a, rounded where asked for. Ties, both signs, the largest
 * finite number and what is no number, in every lane and at every width of a panel. */
static void every_gradient_of_this_processor_rounds_alike(void **state)
{
    MT_UNUSED(state);
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0xbf808000,
                                    0xc0490fdb, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001,
                                    0x00000000, 0x3f80ffff, 0x3eaaaaab};
    enum { MAX_M = 40 };
    mt_cpu_gradient_fn add[MT_CPU_GRADIENTS];
    const int n_add = mt_cpu_gradient_all(MT_BFLOAT16, add);
    for (int i = 0; i < n_add * MAX_M; i++) {
        float a[MAX_M];
        float c[MAX_M] = {0};
        const int64_t m = i / n_add + 1;
        for (int64_t j = 0; j < m; j++) {
            a[j] = mt_float_from_bits(bits[(m + j) % N_ITEM(bits)]);
        }
        const float one = 1.0F;
        const struct mt_cpu_gradient g = {.c = c,
                                          .c_stride = 1,
                                          .a = a,
                                          .b = &one,
                                          .a_stride = m,
                                          .b_stride = 1,
                                          .m = m,
                                          .n = 1,
                                          .k = 1,
                                          .dtype = MT_BFLOAT16};
        add[i % n_add](&g);
        for (int64_t j = 0; j < m; j++) {
            const float want = mt_bf16_value(a[j]);
            assert_true(isnan(want) ? isnan(c[j]) : c[j] == want);
        }
    }
}

/* Rows that end where the process may read no further: n floats, the last before such a page. */
static float *before_a_wall(char *pages, size_t page, int64_t n)
{
    float *values = (float *)(void *)(pages + page) - n;
    for (int64_t i = 0; i < n; i++) {
        values[i] = 1.0F;
    }
    return values;
}

static void every_gradient_of_this_processor_stays_within_its_rows(void **state)
{
    MT_UNUSED(state);
    enum { MAX_SIZE = 40, K = 3 };
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages[3];
    for (int i = 0; i < 3; i++) {
        pages[i] = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(pages[i] != MAP_FAILED);
        assert_int_equal(mprotect(pages[i] + page, page, PROT_NONE), 0);
    }
    for (int type = 0; type < 2; type++) {
        mt_cpu_gradient_fn add[MT_CPU_GRADIENTS];
        const int n_add = mt_cpu_gradient_all((enum mt_dtype)type, add);
        for (int i = 0; i < n_add * MAX_SIZE; i++) {
            const int64_t m = i / n_add + 1;
            const int64_t n = MAX_SIZE + 1 - m;
            struct mt_cpu_gradient g = {.c = before_a_wall(pages[0], page, m * n),
                                        .c_stride = n,
                                        .a = before_a_wall(pages[1], page, K * m),
                                        .b = before_a_wall(pages[2], page, K * n),
                                        .a_stride = m,
                                        .b_stride = n,
                                        .m = m,
                                        .n = n,
                                        .k = K,
                                        .dtype = (enum mt_dtype)type};
            add[i % n_add](&g);
            for (int64_t j = 0; j < m * n; j++) {
                assert_true(g.c[j] == 1.0F + K);
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(munmap(pages[i], 2 * page), 0);
    }
}

/* The promise that lets blocks follow the threads. */
static void a_gradient_has_the_same_bits_however_it_is_cut(void **state)
{
    MT_UNUSED(state);
    enum { M = 200, N = 90, K = 150 };
    struct mt_arena arena;
    arena_init(&arena);
    const struct pair a = pair_random(&arena, K * M, 1);
    const struct pair b = pair_random(&arena, K * N, 2);
    for (int i = 0; i < 2 * MT_CPU_GRADIENTS; i++) {
        const enum mt_dtype dtype = (enum mt_dtype)(i % 2);
        mt_cpu_gradient_fn add[MT_CPU_GRADIENTS];
        if (i / 2 >= mt_cpu_gradient_all(dtype, add)) {
            continue;
        }
        const struct pair whole = pair_random(&arena, M * N, 3);
        const struct pair parts = pair_random(&arena, M * N, 3);
        struct mt_cpu_gradient g = {.c = whole.f,
                                    .c_stride = N,
                                    .a = a.f,
                                    .b = b.f,
                                    .a_stride = M,
                                    .b_stride = N,
                                    .m = M,
                                    .n = N,
                                    .k = K,
                                    .dtype = dtype};
        add[i / 2](&g);
        for (int64_t row = 0; row < M; row += 33) {
            g.c = parts.f + row * N;
            g.a = a.f + row;
            g.m = M - row < 33 ? M - row : 33;
            add[i / 2](&g);
        }
        PAIR_SAME(whole, parts);
    }
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_of_this_processor_matches_the_naive_one),
        cmocka_unit_test(every_gradient_of_this_processor_rounds_alike),
        cmocka_unit_test(every_gradient_of_this_processor_stays_within_its_rows),
        cmocka_unit_test(a_gradient_has_the_same_bits_however_it_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
