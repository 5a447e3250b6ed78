/* Picoseconds that saturate: whatever the counts, a sum of times stays a time. Internal to
 * placement/. */
#ifndef MT_PLACEMENT_PS_H
#define MT_PLACEMENT_PS_H

#include "placement/cluster.h"

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
static inline int64_t mt_ps_message(const struct mt_costs *costs, enum mt_level level,
                                    int64_t n_bytes)
{
    enum { KIB = 1024 };
    const int64_t whole = mt_ps_times(n_bytes / KIB, costs->kib_ps[level]);
    const int64_t rest = mt_ps_times(n_bytes % KIB, costs->kib_ps[level]) / KIB;
    return mt_ps_add(costs->alpha_ps[level], mt_ps_add(whole, rest));
}

#endif
