#include "support/compare.h"

#include "support/test.h"

#include <math.h>
#include <string.h>

/* |got - want|, infinite where only one is a number or the infinities differ. */
static double distance(double got, double want)
{
    if ((isnan(got) && isnan(want)) || got == want) {
        return 0.0;
    }
    const double difference = fabs(got - want);
    return isfinite(difference) ? difference : (double)INFINITY;
}

/* Both kinds of reference in one loop: want64 or want32 is NULL. */
static double array_error(const float *got, const double *want64, const float *want32, int64_t n,
                          int64_t *worst)
{
    double largest = 0.0;
    double difference = 0.0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i) {
        const double want = want64 != NULL ? want64[i] : (double)want32[i];
        const double d = distance((double)got[i], want);
        if (d > difference) {
            difference = d;
            at = i;
        }
        if (isfinite(want)) {
            largest = fmax(largest, fabs(want));
        }
    }
    if (worst != NULL) {
        *worst = at;
    }
    return difference / (largest > 0.0 ? largest : 1.0);
}

double mt_test_error(const float *got, const double *want, int64_t n, int64_t *worst)
{
    return array_error(got, want, NULL, n, worst);
}

static void fail_close(double error, double bound, int64_t at, double got, double want,
                       const char *what, const char *file, int line)
{
    print_error("%s: relative error %.3g > %.3g; worst at [%lld]: got %.9g, want %.9g\n", what,
                error, bound, (long long)at, got, want);
    _fail(file, line);
}

void mt_test_assert_close(const float *got, const double *want, int64_t n, double bound,
                          const char *what, const char *file, int line)
{
    int64_t at = 0;
    const double error = array_error(got, want, NULL, n, &at);
    if (!(error <= bound)) {
        fail_close(error, bound, at, (double)got[at], want[at], what, file, line);
    }
}

void mt_test_assert_close_f32(const float *got, const float *want, int64_t n, double bound,
                              const char *what, const char *file, int line)
{
    int64_t at = 0;
    const double error = array_error(got, NULL, want, n, &at);
    if (!(error <= bound)) {
        fail_close(error, bound, at, (double)got[at], (double)want[at], what, file, line);
    }
}

void mt_test_assert_same_bits(const float *got, const float *want, int64_t n, const char *what,
                              const char *file, int line)
{
    for (int64_t i = 0; i < n; ++i) {
        uint32_t got_bits = 0;
        uint32_t want_bits = 0;
        memcpy(&got_bits, &got[i], sizeof(got_bits));
        memcpy(&want_bits, &want[i], sizeof(want_bits));
        if (got_bits != want_bits) {
            print_error("%s: first difference at [%lld] of %lld: got %a, want %a\n", what,
                        (long long)i, (long long)n, (double)got[i], (double)want[i]);
            _fail(file, line);
        }
    }
}
