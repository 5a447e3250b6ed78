/* Checked sizes: products of dimensions in int64_t, one narrowing for MPI's int. */
#ifndef MT_BASE_SIZE_H
#define MT_BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* *product = a * b (both >= 0); false when it does not fit int64_t, *product then untouched. */
bool mt_size_multiply(int64_t a, int64_t b, int64_t *product);
bool mt_size_add(int64_t a, int64_t b, int64_t *sum);

/* For MPI counts: asserts 0 <= n <= INT_MAX. Larger transfers are cut by the caller first. */
int mt_size_to_int(int64_t n);

static inline int64_t mt_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t mt_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t mt_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t mt_round_up(int64_t n, int64_t multiple)
{
    return mt_ceil_div(n, multiple) * multiple;
}

/* Start of part `index` of `n_part` parts of [0, n) whose sizes differ by at most one, the larger
 * ones first: 8 sequences on 3 ranks are 3 + 3 + 2. index in [0, n_part]. */
static inline int64_t mt_share_start(int64_t n, int n_part, int index)
{
    const int64_t base = n / n_part;
    const int64_t extra = n % n_part;
    return index * base + mt_min_i64(index, extra);
}

#endif
