/* The body of a small matrix product for one instruction set: no include guard, product.c includes
 * it once per set after defining
 *   TARGET           the function attribute
 *   NAME(x)          x with a suffix of its own
 *   VECTOR, LANES    vector type and floats in it
 *   MASK, MASK_OF(n) type and value of "the first n lanes", 0 <= n <= LANES
 *   ZERO, BROADCAST(p), LOAD(p), STORE(p, v), LOAD_MASKED(p, mask), STORE_MASKED(p, mask, v),
 *   MULTIPLY_ADD(a, b, c)   a * b + c
 *   ROWS             rows of a panel: 4, 6 or 8; 2 * ROWS + 3 registers should exist
 * A panel of rows x (1 or 2 vectors) of c stays in registers over the whole of k. */

struct NAME(panel) {
    float *c;
    const float *a, *b;
    MASK mask; /* of the last vector, when masked */
};

/* rows, vectors and masked are constants at every call: the loops over them unroll away. */
TARGET static inline __attribute__((always_inline)) void NAME(panel)(const struct mt_cpu_product *p,
                                                                     struct NAME(panel) at,
                                                                     int64_t rows, int64_t vectors,
                                                                     bool masked)
{
    VECTOR sum[ROWS][2];
    const int64_t last = vectors - 1;
#pragma GCC unroll 16
    for (int64_t i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int64_t j = 0; j < vectors; j++) {
            float *c = at.c + i * p->c_stride + j * LANES;
            sum[i][j] = !p->accumulate          ? ZERO
                        : (masked && j == last) ? LOAD_MASKED(c, at.mask)
                                                : LOAD(c);
        }
    }
    const float *b_row = at.b;
    const float *a_column = at.a;
    for (int64_t k = p->k; k > 0; k--) {
        VECTOR b[2];
#pragma GCC unroll 2
        for (int64_t j = 0; j < vectors; j++) {
            b[j] = (masked && j == last) ? LOAD_MASKED(b_row + j * LANES, at.mask)
                                         : LOAD(b_row + j * LANES);
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < rows; i++) {
            const VECTOR a = BROADCAST(a_column + i * p->a_row_stride);
#pragma GCC unroll 2
            for (int64_t j = 0; j < vectors; j++) {
                sum[i][j] = MULTIPLY_ADD(a, b[j], sum[i][j]);
            }
        }
        a_column += p->a_column_stride;
        b_row += p->b_stride;
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int64_t j = 0; j < vectors; j++) {
            float *c = at.c + i * p->c_stride + j * LANES;
            if (masked && j == last) {
                STORE_MASKED(c, at.mask, sum[i][j]);
            } else {
                STORE(c, sum[i][j]);
            }
        }
    }
}

#define PANEL(n)                                \
    case n:                                     \
        NAME(panel)(p, at, n, vectors, masked); \
        break

/* All rows of a column strip of 2 vectors, or of the remaining lanes, in panels as equal as can be:
 * one of 2 rows runs at half the rate of one of 5, for nothing hides the multiply-adds' latency. */
TARGET static inline __attribute__((always_inline)) void
NAME(strip)(const struct mt_cpu_product *p, int64_t column, int64_t vectors, bool masked)
{
    struct NAME(panel) at = {.b = p->b + column};
    at.mask = MASK_OF(masked ? (int)(p->n - column - (vectors - 1) * LANES) : LANES);
    const int64_t n_panel = mt_ceil_div(p->m, ROWS);
    const int64_t least = p->m > 0 ? p->m / n_panel : 0;
    int64_t n_larger = p->m - n_panel * least; /* panels of one row more come first */
    int64_t rows = 0;
    for (int64_t row = 0; row < p->m; row += rows) {
        rows = least + (n_larger-- > 0 ? 1 : 0);
        at.c = p->c + row * p->c_stride + column;
        at.a = p->a + row * p->a_row_stride;
        switch (rows) {
#if ROWS >= 8
            PANEL(8);
            PANEL(7);
#endif
#if ROWS >= 6
            PANEL(6);
            PANEL(5);
#endif
            PANEL(4);
            PANEL(3);
            PANEL(2);
            PANEL(1);
        default: /* none: 1 <= rows <= ROWS */
            break;
        }
    }
}

TARGET static void NAME(multiply)(const struct mt_cpu_product *p)
{
    const int64_t width = INT64_C(2) * LANES;
    int64_t column = 0;
    for (; column + width <= p->n; column += width) {
        NAME(strip)(p, column, 2, false);
    }
    if (column + LANES < p->n) {
        NAME(strip)(p, column, 2, true);
    } else if (column < p->n) {
        NAME(strip)(p, column, 1, true);
    }
}

#undef PANEL
#undef TARGET
#undef NAME
#undef VECTOR
#undef LANES
#undef MASK
#undef MASK_OF
#undef ZERO
#undef BROADCAST
#undef LOAD
#undef STORE
#undef LOAD_MASKED
#undef STORE_MASKED
#undef MULTIPLY_ADD
#undef ROWS
