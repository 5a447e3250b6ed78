/* The body of a weight gradient for one instruction set: no include guard, gradient.c includes it
 * once per set after defining
 *   TARGET           the function attribute
 *   NAME(x)          x with a suffix of its own
 *   VECTOR, LANES    vector type and floats in it
 *   ROWS             rows of c in a panel; 2 * ROWS + 3 registers should exist
 *   ZERO, BROADCAST(p), LOAD(p), STORE(p, v), ADD(a, b), MULTIPLY_ADD(a, b, c)   a * b + c
 *   PAIRS            rows of a and b in one step: 1, or 2 where MULTIPLY_ADD takes bfloat16 pairs
 *   PACK_PAIRS(out, in, stride, block, width)   packs them; only for PAIRS 2
 * A panel of ROWS x 2 vectors of c stays in registers over a block of rows. Packed a is [panel,
 * step, ROWS], packed b [step, 2 LANES] for one panel; what lies beyond the edges is 0. */

#define COLUMNS (2 * LANES)

#if PAIRS == 1
/* in [n_row, n_column] -> out [panel, n_row, width]. */
TARGET static inline __attribute__((always_inline)) void NAME(copy)(float *out, const float *in,
                                                                    int64_t stride,
                                                                    struct block block,
                                                                    int64_t width, bool round)
{
    for (int64_t row = 0; row < block.n_row; row++) {
        for (int64_t column = 0; column < block.n_column; column += width) {
            float *to = out + column * block.n_row + row * width;
            const float *from = in + row * stride + column;
            const int64_t n = mt_min_i64(block.n_column - column, width);
            if (n == width) {
                for (int64_t i = 0; i < width; i++) {
                    to[i] = round ? mt_bf16_value(from[i]) : from[i];
                }
                continue;
            }
            for (int64_t i = 0; i < width; i++) {
                const float value = i < n ? from[i] : 0.0F;
                to[i] = round ? mt_bf16_value(value) : value;
            }
        }
    }
}
#endif

TARGET static void NAME(pack)(float *out, const float *in, int64_t stride, struct block block,
                              bool is_a, bool round)
{
#if PAIRS == 2
    (void)round;
    PACK_PAIRS(out, in, stride, block, is_a ? ROWS : COLUMNS);
#else
    if (is_a) {
        round ? NAME(copy)(out, in, stride, block, ROWS, true)
              : NAME(copy)(out, in, stride, block, ROWS, false);
    } else {
        round ? NAME(copy)(out, in, stride, block, COLUMNS, true)
              : NAME(copy)(out, in, stride, block, COLUMNS, false);
    }
#endif
}

/* c [rows, columns] += the panels' product; rows <= ROWS, columns <= COLUMNS. */
TARGET static void NAME(panel)(float *c, int64_t c_stride, const float *a, const float *b,
                               int64_t n_step, int64_t rows, int64_t columns)
{
    VECTOR sum[ROWS][2];
    for (int64_t i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * c_stride, 1);
        __builtin_prefetch(c + i * c_stride + columns - 1, 1);
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < ROWS; i++) {
        sum[i][0] = ZERO;
        sum[i][1] = ZERO;
    }
    for (int64_t step = 0; step < n_step; step++) {
        const VECTOR b_0 = LOAD(b + step * COLUMNS);
        const VECTOR b_1 = LOAD(b + step * COLUMNS + LANES);
#pragma GCC unroll 16
        for (int64_t i = 0; i < ROWS; i++) {
            const VECTOR value = BROADCAST(a + step * ROWS + i);
            sum[i][0] = MULTIPLY_ADD(value, b_0, sum[i][0]);
            sum[i][1] = MULTIPLY_ADD(value, b_1, sum[i][1]);
        }
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

static void NAME(add)(const struct mt_cpu_gradient *g)
{
    const bool round = g->dtype == MT_BFLOAT16;
    const int64_t n_step = mt_ceil_div(g->k, PAIRS);
    NAME(pack)(scratch.a, g->a, g->a_stride, (struct block){g->k, g->m}, true, round);
    for (int64_t column = 0; column < g->n; column += COLUMNS) {
        const int64_t columns = mt_min_i64(g->n - column, COLUMNS);
        NAME(pack)
        (scratch.b, g->b + column, g->b_stride, (struct block){g->k, columns}, false, round);
        for (int64_t row = 0; row < g->m; row += ROWS) {
            NAME(panel)
            (g->c + row * g->c_stride + column, g->c_stride, scratch.a + row * n_step, scratch.b,
             n_step, mt_min_i64(g->m - row, ROWS), columns);
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
#undef PACK_PAIRS
#undef COLUMNS
