/* Deterministic test data: a function of (seed, index) alone, from base/random.h. */
#ifndef MT_TEST_SUPPORT_FILL_H
#define MT_TEST_SUPPORT_FILL_H

#include <stdint.h>

/* x [n], uniform in [low, high). */
void mt_test_fill_uniform(float *x, int64_t n, uint64_t seed, double low, double high);

/* x [n], normal with mean 0 and the given deviation. */
void mt_test_fill_normal(float *x, int64_t n, uint64_t seed, double std);

/* x [n], integers in [0, bound); bound >= 1. */
void mt_test_fill_int32(int32_t *x, int64_t n, uint64_t seed, int32_t bound);

/* to [n] = from [n] in double precision. */
void mt_test_widen(double *to, const float *from, int64_t n);

#endif
