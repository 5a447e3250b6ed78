/* Central differences: the judge of every backward.
 *
 * A gradient is right when it agrees with (f(v + h) - f(v - h)) / 2h of the reference forward, in
 * double precision, for every element of every argument. */
#ifndef MT_REFERENCE_DIFFERENCE_H
#define MT_REFERENCE_DIFFERENCE_H

#include <stdint.h>

/* A scalar of the arguments held in `context`, among them the array that is varied. */
typedef double (*mt_ref_scalar_fn)(void *context);

/* d [n] = central differences of f by values[i], step h = 1e-5 max(1, |values[i]|); values [n] is
 * part of what f reads, and restored. */
void mt_ref_difference(mt_ref_scalar_fn f, void *context, double *values, int64_t n, double *d);

/* Largest |analytic[i] - numeric[i]| / max(1e-3, largest |numeric|): below 1e-6 for a right
 * gradient of a smooth f of order 1 in double. NaN gives infinity. */
double mt_ref_gradient_error(const double *analytic, const double *numeric, int64_t n);

/* Deterministic test data: out [n] uniform in [-1, 1), a function of (seed, index). */
void mt_ref_fill(double *out, int64_t n, uint64_t seed);

#endif
