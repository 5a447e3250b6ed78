#include "reference/difference.h"

#include <math.h>

void mt_ref_difference(mt_ref_scalar_fn f, void *context, double *values, int64_t n, double *d)
{
    for (int64_t i = 0; i < n; i++) {
        const double value = values[i];
        const double h = 1e-5 * fmax(1.0, fabs(value));
        values[i] = value + h;
        const double above = f(context);
        values[i] = value - h;
        const double below = f(context);
        values[i] = value;
        d[i] = (above - below) / (2.0 * h);
    }
}

double mt_ref_gradient_error(const double *analytic, const double *numeric, int64_t n)
{
    double largest = 1e-3;
    double error = 0.0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(numeric[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs(analytic[i] - numeric[i]);
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
