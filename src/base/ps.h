/* Picoseconds that saturate: whatever the counts, a sum of times stays a time. */
#ifndef MT_BASE_PS_H
#define MT_BASE_PS_H

#include <stdint.h>

/* 13 days; two of them add without overflow. */
static const int64_t MT_PS_MOST = (int64_t)1 << 60;

static inline int64_t mt_ps_add(int64_t a, int64_t b)
{
    return a + b < MT_PS_MOST ? a + b : MT_PS_MOST;
}

/* a, b >= 0 */
static inline int64_t mt_ps_times(int64_t a, int64_t b)
{
    int64_t product = 0;
    return !__builtin_mul_overflow(a, b, &product) && product < MT_PS_MOST ? product : MT_PS_MOST;
}

/* alpha + bytes beta */
static inline int64_t mt_ps_carry(int64_t alpha_ps, int64_t kib_ps, int64_t n_bytes)
{
    enum { KIB = 1024 };
    const int64_t whole = mt_ps_times(n_bytes / KIB, kib_ps);
    const int64_t rest = mt_ps_times(n_bytes % KIB, kib_ps) / KIB;
    return mt_ps_add(alpha_ps, mt_ps_add(whole, rest));
}

#endif
