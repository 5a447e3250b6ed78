#include "base/size.h"

#include "base/status.h"

#include <limits.h>
#include <stdlib.h>

/* Negative operands are refused too: they come from sizes that nobody checked. */
bool mt_size_multiply(int64_t a, int64_t b, int64_t *product)
{
    if (a < 0 || b < 0 || (a != 0 && b > INT64_MAX / a)) {
        return false;
    }
    *product = a * b;
    return true;
}

bool mt_size_add(int64_t a, int64_t b, int64_t *sum)
{
    if (a < 0 || b < 0 || b > INT64_MAX - a) {
        return false;
    }
    *sum = a + b;
    return true;
}

int mt_size_to_int(int64_t n)
{
    MT_ASSERT(n >= 0 && n <= INT_MAX);
    return (int)n;
}

static int compare_i64(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left;
    const int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t mt_median_i64(int64_t *value, int64_t n)
{
    if (n == 0) {
        return 0;
    }
    qsort(value, (size_t)n, sizeof(*value), compare_i64);
    return value[(n - 1) / 2];
}
