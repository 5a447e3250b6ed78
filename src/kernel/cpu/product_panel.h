/* The body of a small matrix product for one instruction set: no include guard, product.c includes
 * it once per set after defining
 *   TARGET           the function attribute
 *   NAME(x)          x with a suffix of its own
 *   VECTOR, LANES    vector type and floats in it
 *   MASK, MASK_OF(n) type and value of "the first n lanes", 0 <= n <= LANES
 *   ZERO, BROADCAST(p), LOAD(p), STORE(p, v), LOAD_MASKED(p, mask), STORE_MASKED(p, mask, v),
 *   MULTIPLY_ADD(a, b, c)   a * b + c
 *   ROWS             rows of a panel; 2 * ROWS + 3 registers should exist
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
    for (int64_t k = 0; k < p->k; k++) {
        const float *b_row = at.b + k * p->b_stride;
        const float *a_column = at.a + k * p->a_column_stride;
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

/* All rows of a column strip of 2 vectors, or of the remaining lanes. */
TARGET static inline __attribute__((always_inline)) void
NAME(strip)(const struct mt_cpu_product *p, int64_t column, int64_t vectors, bool masked)
{
    struct NAME(panel) at = {.b = p->b + column};
    at.mask = MASK_OF(masked ? (int)(p->n - column - (vectors - 1) * LANES) : LANES);
    int64_t row = 0;
    for (; row + ROWS <= p->m; row += ROWS) {
        at.c = p->c + row * p->c_stride + column;
        at.a = p->a + row * p->a_row_stride;
        NAME(panel)(p, at, ROWS, vectors, masked);
    }
    for (; row + 2 <= p->m; row += 2) {
        at.c = p->c + row * p->c_stride + column;
        at.a = p->a + row * p->a_row_stride;
        NAME(panel)(p, at, 2, vectors, masked);
    }
    if (row < p->m) {
        at.c = p->c + row * p->c_stride + column;
        at.a = p->a + row * p->a_row_stride;
        NAME(panel)(p, at, 1, vectors, masked);
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
