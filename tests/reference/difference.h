/* Central differences: the judge of every backward.
 *
 * A gradient is right when it agrees with (f(v + h) - f(v - h)) / 2h of the reference forward, in
 * double precision, for every element of every argument. */
#ifndef MT_REFERENCE_DIFFERENCE_H
#define MT_REFERENCE_DIFFERENCE_H

#include <stdint.h>

/* A scalar of the arguments held in `context`, among them the array that is varied. */
typedef double (*mt_ref_scalar_fn)(void *context);

/* How far `analytic` [n] is from the central differences of f by values[i], with the step
 * h = 1e-5 max(1, |values[i]|): the largest |analytic[i] - numeric[i]| over max(1e-3, the largest
 * |numeric|). Below 1e-6 for a right gradient of a smooth f of order 1 in double; NaN is infinity.
 * values [n] is part of what f reads, and restored. */
double mt_ref_gradient_error(mt_ref_scalar_fn f, void *context, double *values, int64_t n,
                             const double *analytic);

/* Deterministic test data: out [n] uniform in [-1, 1), a function of (seed, index). */
void mt_ref_fill(double *out, int64_t n, uint64_t seed);

#endif
