/* Comparison of results with a reference, normally a naive one in double precision.
 *
 * The error of an array is max_i |got_i - want_i| / max_i |want_i|: relative to the array's largest
 * element, so that elements which cancel to almost zero do not decide. Where `want` is all zeros,
 * the denominator is 1. A NaN or infinity that is not equally in both is an infinite error. */
#ifndef MT_TEST_SUPPORT_COMPARE_H
#define MT_TEST_SUPPORT_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

/* got [n], want [n]; n may be 0 (error 0). `worst`, when not NULL, gets the maximum's index. */
double mt_test_error(const float *got, const double *want, int64_t n, int64_t *worst);

/* The test fails, naming what, index, both values and the error, unless the error is <= bound. */
#define MT_TEST_CLOSE(got, want, n, bound) \
    mt_test_assert_close((got), (want), (n), (bound), #got, __FILE__, __LINE__)
#define MT_TEST_CLOSE_F32(got, want, n, bound) \
    mt_test_assert_close_f32((got), (want), (n), (bound), #got, __FILE__, __LINE__)

/* The test fails at the first element whose bits differ. */
#define MT_TEST_SAME_BITS(got, want, n) \
    mt_test_assert_same_bits((got), (want), (n), #got, __FILE__, __LINE__)

void mt_test_assert_close(const float *got, const double *want, int64_t n, double bound,
                          const char *what, const char *file, int line);
void mt_test_assert_close_f32(const float *got, const float *want, int64_t n, double bound,
                              const char *what, const char *file, int line);
void mt_test_assert_same_bits(const float *got, const float *want, int64_t n, const char *what,
                              const char *file, int line);

#endif
