/* Numbers in order, and what stands at a part of the way through them. */
#ifndef MT_BASE_SORT_H
#define MT_BASE_SORT_H

#include <stdint.h>

/* value [n], ascending. */
void mt_sort_i64(int64_t *value, int64_t n);
void mt_sort_f64(double *value, int64_t n);

/* Median of value [n], the lower one of two; sorts. n = 0: 0. */
int64_t mt_median_i64(int64_t *value, int64_t n);
/* The value that is `part` in [0, 1] of the way from the least to the largest, rounded down to one
 * of value [n]: 0.5 is the median, the lower one of two; sorts. n = 0: 0. */
double mt_quantile_f64(double *value, int64_t n, double part);

#endif
