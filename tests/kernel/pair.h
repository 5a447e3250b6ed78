/* Data of a kernel's test: the same values in float32, for the kernel, and in double, for the
 * reference. A result is a pair as well: the kernel writes `f`, the reference `d`. */
#ifndef MT_TEST_KERNEL_PAIR_H
#define MT_TEST_KERNEL_PAIR_H

#include "base/memory.h"
#include "kernel/kernel.h"
#include "reference/difference.h"
#include "support/compare.h"
#include "support/fill.h"
#include "support/test.h"

#include <math.h>
#include <string.h>

#define N_ITEM(array) ((int)(sizeof(array) / sizeof((array)[0])))

struct pair {
    float *f;  /* [n], and PAIR_CANARIES behind that no kernel may touch */
    double *d; /* [n] */
    int64_t n;
};
enum { PAIR_CANARIES = 16 };
static const float pair_canary = -12345.0F;

/* Pages become real when they are touched, so this is only address space. */
static inline void arena_init(struct mt_arena *arena)
{
    MT_TEST_OK(mt_arena_init(arena, INT64_C(1) << 28, "kernel test"));
}

/* Uniform values in [low, high), a function of (seed, index). */
static inline struct pair pair_uniform(struct mt_arena *arena, int64_t n, uint64_t seed, double low,
                                       double high)
{
    struct pair pair = {mt_arena_cut(arena, (n + PAIR_CANARIES) * (int64_t)sizeof(float)),
                        mt_arena_cut(arena, n * (int64_t)sizeof(double)), n};
    mt_test_fill_uniform(pair.f, n, seed, low, high);
    mt_test_widen(pair.d, pair.f, n);
    for (int64_t i = 0; i < PAIR_CANARIES; i++) {
        pair.f[n + i] = pair_canary;
    }
    return pair;
}

static inline struct pair pair_random(struct mt_arena *arena, int64_t n, uint64_t seed)
{
    return pair_uniform(arena, n, seed, -1.0, 1.0);
}

/* The double values follow the float ones. */
static inline void pair_widen(struct pair pair)
{
    mt_test_widen(pair.d, pair.f, pair.n);
}

static inline void pair_check_canaries(struct pair pair)
{
    for (int64_t i = 0; i < PAIR_CANARIES; i++) {
        assert_true(pair.f[pair.n + i] == pair_canary);
    }
}

/* The kernel's result is the reference's within the bound. */
#define PAIR_CLOSE(pair, bound)                               \
    do {                                                      \
        MT_TEST_CLOSE((pair).f, (pair).d, (pair).n, (bound)); \
        pair_check_canaries(pair);                            \
    } while (0)

/* Two runs' results have the same bits. */
#define PAIR_SAME(one, other) MT_TEST_SAME_BITS((one).f, (other).f, (one).n)

/* The reference's gradient is the central differences of objective(context) by the pair `of`. */
#define PAIR_GRADIENT(objective, context, of, gradient) \
    assert_true(mt_ref_gradient_error((objective), (context), (of).d, (of).n, (gradient).d) < 1e-6)

static inline struct mt_device device_of(int n_thread)
{
    struct mt_device device;
    mt_device_init_plain(&device);
    device.n_thread = n_thread;
    return device;
}

/* The tables of plain rotary embedding: frequencies theta^(-2i/Dh). */
static inline void rope_tables(struct mt_arena *arena, float *cosine, float *sine, int64_t length,
                               int64_t head_dim, double theta)
{
    double *frequency = mt_arena_cut(arena, head_dim / 2 * (int64_t)sizeof(double));
    for (int64_t i = 0; i < head_dim / 2; i++) {
        frequency[i] = pow(theta, -2.0 * (double)i / (double)head_dim);
    }
    mt_rope_tables(cosine, sine, length, head_dim, frequency, 1.0);
}

/* sum over i of x [n] y [n]: turns an array of results into the scalar that is differentiated. */
static inline double weighted_sum(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

#endif
