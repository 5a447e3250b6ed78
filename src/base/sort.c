#include "base/sort.h"

#include <stdlib.h>

static int compare_i64(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left;
    const int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static int compare_f64(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return (a > b) - (a < b);
}

void mt_sort_i64(int64_t *value, int64_t n)
{
    if (n > 0) {
        qsort(value, (size_t)n, sizeof(*value), compare_i64);
    }
}

void mt_sort_f64(double *value, int64_t n)
{
    if (n > 0) {
        qsort(value, (size_t)n, sizeof(*value), compare_f64);
    }
}

int64_t mt_median_i64(int64_t *value, int64_t n)
{
    mt_sort_i64(value, n);
    return n > 0 ? value[(n - 1) / 2] : 0;
}

double mt_quantile_f64(double *value, int64_t n, double part)
{
    mt_sort_f64(value, n);
    return n > 0 ? value[(int64_t)((double)(n - 1) * part)] : 0;
}
