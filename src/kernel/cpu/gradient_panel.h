/* The body of a weight gradient for one instruction set: no include guard, gradient.c includes it
 * once per set after defining
 *   TARGET           the function attribute
 *   NAME(x)          x with a suffix of its own
 *   VECTOR, LANES    vector type and floats in it
 *   ROWS             rows of c in a panel; 2 * ROWS + 3 registers should exist
 *   ZERO, BROADCAST(p), LOAD(p), STORE(p, v), ADD(a, b), MULTIPLY_ADD(a, b, c)   a * b + c
 *   PAIRS            rows of a and b in one step: 1, or 2 where MULTIPLY_ADD takes bfloat16 pairs
 *   STEPS            1: the next panel's c and rows to come are fetched between steps; 8: as many
 *                    steps unrolled, nothing between them and only this panel's c fetched, before:
 *                    on a shared Zen 3 core the median of 40 calls rises from 50 to 72 GFLOP/s, the
 *                    best stays at 87 (measured with 4)
 *   PACK             the function that packs (see pack_plain)
 * A panel of ROWS x 2 vectors of c stays in registers over a block of rows. */

#define COLUMNS (INT64_C(2) * LANES)

/* What is fetched ahead at a step: the next panel's c, a row every fourth, and rows to come. */
TARGET static inline __attribute__((always_inline)) void
NAME(fetch_at)(int64_t step, const float *c, int64_t c_stride, int64_t columns, struct fetch fetch)
{
    if (step % 4 == 0 && step < INT64_C(4) * ROWS) {
        const float *row = c + (step / 4 + ROWS) * c_stride;
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + columns - 1, 1);
    }
    if (step % 2 == 1 && step / 2 < fetch.n_line) {
        __builtin_prefetch(fetch.at + step / 2 * LINE_FLOATS, 0, 2);
    }
}

TARGET static inline __attribute__((always_inline)) void
NAME(add_step)(VECTOR sum[ROWS][2], const float *a, const float *b)
{
    const VECTOR b_0 = LOAD(b);
    const VECTOR b_1 = LOAD(b + LANES);
#pragma GCC unroll 16
    for (int64_t i = 0; i < ROWS; i++) {
        const VECTOR value = BROADCAST(a + i);
        sum[i][0] = MULTIPLY_ADD(value, b_0, sum[i][0]);
        sum[i][1] = MULTIPLY_ADD(value, b_1, sum[i][1]);
    }
}

/* c [rows, columns] += the panels' product; rows <= ROWS, columns <= COLUMNS. */
TARGET static void NAME(panel)(float *c, int64_t c_stride, const float *a, const float *b,
                               int64_t n_step, int64_t rows, int64_t columns, struct fetch fetch)
{
    VECTOR sum[ROWS][2];
#pragma GCC unroll 16
    for (int64_t i = 0; i < ROWS; i++) {
        sum[i][0] = ZERO;
        sum[i][1] = ZERO;
    }
    int64_t step = 0;
    if (STEPS > 1) {
        for (int64_t i = 0; i < rows; i++) {
            __builtin_prefetch(c + i * c_stride, 1);
            __builtin_prefetch(c + i * c_stride + columns - 1, 1);
        }
        for (; step + STEPS <= n_step; step += STEPS) {
#pragma GCC unroll 8
            for (int64_t i = 0; i < STEPS; i++) {
                NAME(add_step)(sum, a + (step + i) * ROWS, b + (step + i) * COLUMNS);
            }
        }
    }
    for (; step < n_step; step++) {
        if (STEPS == 1) {
            NAME(fetch_at)(step, c, c_stride, columns, fetch);
        }
        NAME(add_step)(sum, a + step * ROWS, b + step * COLUMNS);
    }
    if (rows == ROWS && columns == COLUMNS) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < ROWS; i++) {
            float *row = c + i * c_stride;
            STORE(row, ADD(LOAD(row), sum[i][0]));
            STORE(row + LANES, ADD(LOAD(row + LANES), sum[i][1]));
        }
        return;
    }
    if (columns == COLUMNS) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < ROWS; i++) {
            float *row = c + i * c_stride;
            if (i < rows) {
                STORE(row, ADD(LOAD(row), sum[i][0]));
                STORE(row + LANES, ADD(LOAD(row + LANES), sum[i][1]));
            }
        }
        return;
    }
    float edge[ROWS][COLUMNS];
#pragma GCC unroll 16
    for (int64_t i = 0; i < ROWS; i++) {
        STORE(edge[i], sum[i][0]);
        STORE(edge[i] + LANES, sum[i][1]);
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            c[i * c_stride + j] += edge[i][j];
        }
    }
}

/* Of one block of steps and MAX_N columns at most. */
static void NAME(add_block)(const struct mt_cpu_gradient *g, int64_t column, struct walk ahead[2])
{
    const int64_t n_step = mt_ceil_div(g->k, PAIRS);
    const int64_t n = mt_min_i64(g->n - column, MAX_N);
    PACK(scratch.b, g->b + column, g->b_stride, (struct block){g->k, n, COLUMNS}, g->dtype);
    for (int64_t at = 0; at < n; at += COLUMNS) {
        float *c = g->c + column + at;
        for (int64_t row = 0; row < g->m; row += ROWS) {
            const struct fetch fetch = walk_on(&ahead[ahead[0].n_row > 0 ? 0 : 1], n_step / 2);
            NAME(panel)
            (c + row * g->c_stride, g->c_stride,
             scratch.a + row / ROWS * panel_stride(n_step, ROWS),
             scratch.b + at / COLUMNS * panel_stride(n_step, COLUMNS), n_step,
             mt_min_i64(g->m - row, ROWS), mt_min_i64(n - at, COLUMNS), fetch);
        }
    }
}

static void NAME(add)(const struct mt_cpu_gradient *gradient)
{
    struct mt_cpu_gradient g = *gradient;
    const int64_t most = (int64_t)MAX_STEP * PAIRS;
    for (int64_t row = 0; row < gradient->k; row += g.k) {
        g.k = mt_min_i64(gradient->k - row, most);
        g.a = gradient->a + row * g.a_stride;
        g.b = gradient->b + row * g.b_stride;
        const int64_t n_next =
            STEPS > 1 ? 0 : mt_min_i64(gradient->k + gradient->k_next - row - g.k, most);
        struct walk ahead[2] = {walk_of(g.a + g.k * g.a_stride, g.a_stride, g.m, n_next),
                                walk_of(g.b + g.k * g.b_stride, g.b_stride, g.n, n_next)};
        PACK(scratch.a, g.a, g.a_stride, (struct block){g.k, g.m, ROWS}, g.dtype);
        for (int64_t column = 0; column < g.n; column += MAX_N) {
            NAME(add_block)(&g, column, ahead);
        }
    }
}

#undef TARGET
#undef NAME
#undef VECTOR
#undef LANES
#undef ROWS
#undef ZERO
#undef BROADCAST
#undef LOAD
#undef STORE
#undef ADD
#undef MULTIPLY_ADD
#undef PAIRS
#undef STEPS
#undef PACK
#undef COLUMNS
