#include "reference/difference.h"

#include <math.h>

static double central_difference(mt_ref_scalar_fn f, void *context, double *value)
{
    const double middle = *value;
    const double h = 1e-5 * fmax(1.0, fabs(middle));
    *value = middle + h;
    const double above = f(context);
    *value = middle - h;
    const double below = f(context);
    *value = middle;
    return (above - below) / (2.0 * h);
}

double mt_ref_gradient_error(mt_ref_scalar_fn f, void *context, double *values, int64_t n,
                             const double *analytic)
{
    double largest = 1e-3;
    double error = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double numeric = central_difference(f, context, &values[i]);
        const double difference = fabs(analytic[i] - numeric);
        largest = fmax(largest, fabs(numeric));
        error = isnan(difference) ? HUGE_VAL : fmax(error, difference);
    }
    return error / largest;
}

/* One step of the SplitMix64 generator (Steele, Lea, Flood 2014) as a hash of its argument. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

void mt_ref_fill(double *out, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = (double)(mix(mix(seed) + (uint64_t)i) >> 11) * 0x1p-52 - 1.0;
    }
}
