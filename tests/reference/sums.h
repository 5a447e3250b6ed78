/* Sums over arrays, the specification. */
#ifndef MT_REFERENCE_SUMS_H
#define MT_REFERENCE_SUMS_H

#include <stdint.h>

/* sum of x[i]^2 over x [n] */
double mt_ref_sum_squares(const double *x, int64_t n);

#endif
