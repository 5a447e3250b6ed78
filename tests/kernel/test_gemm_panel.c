/* Products and packs of cpu/gemm_panel.h, on every processor that has AVX2: the layout element by
 * element, products against double precision, and bits that no other row changes. */
#include "device/isa.h"
#include "kernel/cpu/gemm_panel.h"
#include "kernel/pair.h"

#include <string.h>

enum { WIDTH = MT_PANEL_WIDTH, SLAB = 64 };
static const int64_t shapes[][2] = {{1, 1},     {1, 40},    {40, 1},   {15, 17},
                                    {16, 16},   {33, 31},   {64, 192}, {130, 65},
                                    {513, 100}, {100, 513}, {1030, 48}};
static const int64_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 23, 53, 63, 64};

static void skip_without_avx2(void)
{
    if (mt_isa_detect() < MT_ISA_AVX2) {
        skip();
    }
}

/* Element (k, j) of P [n_x, n_y] in its pack. */
static int64_t place_of(int64_t n_x, int64_t k, int64_t j)
{
    return j / WIDTH * WIDTH * ((n_x + WIDTH - 1) / WIDTH * WIDTH) + k * WIDTH + j % WIDTH;
}

static float *aligned(struct mt_arena *arena, int64_t n)
{
    return mt_arena_cut(arena, n * (int64_t)sizeof(float));
}

static void pack_in_slabs(float *pack, const struct mt_panel_values *from)
{
    const int64_t end = (from->n_out + WIDTH - 1) / WIDTH * WIDTH;
    for (int64_t row = 0; row < end; row += SLAB) {
        mt_gemm_panel_pack(pack, from, row, row + SLAB < end ? row + SLAB : end);
    }
}

static void check_pack(struct mt_arena *arena, int64_t n_x, int64_t n_y, bool is_transposed)
{
    const struct pair values = pair_random(arena, n_x * n_y, 1);
    const struct mt_panel_values from = {values.f, is_transposed ? n_y : n_x,
                                         is_transposed ? n_x : n_y, is_transposed, false};
    const int64_t n = mt_gemm_panel_pack_floats(n_x, n_y);
    float *pack = aligned(arena, n + WIDTH);
    float *want = aligned(arena, n + WIDTH);
    memset(want, 0, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n + WIDTH; i++) {
        pack[i] = pair_canary;
        want[i] = i < n ? want[i] : pair_canary;
    }
    for (int64_t k = 0; k < n_x; k++) {
        for (int64_t j = 0; j < n_y; j++) {
            want[place_of(n_x, k, j)] = values.f[is_transposed ? j * n_x + k : k * n_y + j];
        }
    }
    pack_in_slabs(pack, &from);
    assert_memory_equal(pack, want, (size_t)(n + WIDTH) * sizeof(float));
}

static void packs_have_every_element_in_its_place_and_0_beyond(void **state)
{
    MT_UNUSED(state);
    skip_without_avx2();
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(shapes); i++) {
        for (int transposed = 0; transposed < 2; transposed++) {
            mt_arena_release(&arena, 0);
            check_pack(&arena, shapes[i][0], shapes[i][1], transposed != 0);
        }
    }
    mt_arena_clear(&arena);
}

/* x [n, n_x] P [n_x, n_y]; y is preset for accumulation, with canaries behind it. */
struct problem {
    struct pair x, p, y;
    float *sheet, *pack;
    int64_t n, n_x, n_y;
};

static struct problem make_problem(struct mt_arena *arena, int64_t n, int64_t n_x, int64_t n_y)
{
    struct problem problem = {.n = n, .n_x = n_x, .n_y = n_y};
    problem.x = pair_random(arena, n * n_x, 2);
    problem.p = pair_random(arena, n_x * n_y, 3);
    problem.y = pair_random(arena, n * n_y, 4);
    problem.sheet = aligned(arena, mt_gemm_panel_sheet_floats(n, n_x));
    problem.pack = aligned(arena, mt_gemm_panel_pack_floats(n_x, n_y));
    const struct mt_panel_values from = {problem.p.f, n_x, n_y, false, false};
    pack_in_slabs(problem.pack, &from);
    return problem;
}

static void multiply(const struct problem *p, float *y, const float *x, int64_t n, bool accumulate)
{
    mt_gemm_panel_lay(p->sheet, x, n, p->n_x);
    const struct mt_panel_product product = {y, p->sheet, p->pack, n, p->n_x, p->n_y, accumulate};
    mt_gemm_panel_multiply(&product);
}

static void multiply_in_double(const struct problem *p, bool accumulate)
{
    for (int64_t i = 0; i < p->n * p->n_y; i++) {
        double sum = accumulate ? p->y.d[i] : 0.0;
        for (int64_t k = 0; k < p->n_x; k++) {
            sum += p->x.d[i / p->n_y * p->n_x + k] * p->p.d[k * p->n_y + i % p->n_y];
        }
        p->y.d[i] = sum;
    }
}

static void products_match_double_precision_at_every_number_of_rows(void **state)
{
    MT_UNUSED(state);
    skip_without_avx2();
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(shapes) * N_ITEM(row_counts) * 2; i++) {
        mt_arena_release(&arena, 0);
        const int64_t *shape = shapes[i / 2 / N_ITEM(row_counts)];
        const bool accumulate = i % 2 != 0;
        const struct problem p =
            make_problem(&arena, row_counts[i / 2 % N_ITEM(row_counts)], shape[0], shape[1]);
        multiply_in_double(&p, accumulate);
        multiply(&p, p.y.f, p.x.f, p.n, accumulate);
        PAIR_CLOSE(p.y, 2e-6);
    }
    mt_arena_clear(&arena);
}

static void a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    MT_UNUSED(state);
    skip_without_avx2();
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(row_counts); i++) {
        enum { N_X = 700, N_Y = 50 };
        float alone[N_Y];
        mt_arena_release(&arena, 0);
        const struct problem p = make_problem(&arena, row_counts[i], N_X, N_Y);
        multiply(&p, p.y.f, p.x.f, p.n, false);
        for (int64_t row = 0; row < p.n; row++) {
            multiply(&p, alone, p.x.f + row * N_X, 1, false);
            assert_memory_equal(p.y.f + row * N_Y, alone, sizeof(alone));
        }
    }
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_have_every_element_in_its_place_and_0_beyond),
        cmocka_unit_test(products_match_double_precision_at_every_number_of_rows),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_among_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
