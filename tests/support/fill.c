#include "support/fill.h"

#include "base/random.h"

void mt_test_fill_uniform(float *x, int64_t n, uint64_t seed, double low, double high)
{
    for (int64_t i = 0; i < n; ++i) {
        x[i] = (float)(low + (high - low) * mt_random_uniform(seed, 1, (uint64_t)i));
    }
}

void mt_test_fill_normal(float *x, int64_t n, uint64_t seed, double std)
{
    mt_random_fill_normal(seed, 2, 0, n, (float)std, x);
}

void mt_test_fill_int32(int32_t *x, int64_t n, uint64_t seed, int32_t bound)
{
    for (int64_t i = 0; i < n; ++i) {
        x[i] = (int32_t)(mt_random_u64(seed, 3, (uint64_t)i) % (uint64_t)bound);
    }
}

void mt_test_widen(double *to, const float *from, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        to[i] = (double)from[i];
    }
}
