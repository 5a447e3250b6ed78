/* What a message takes between ranks so far apart. Internal to placement/. */
#ifndef MT_PLACEMENT_PS_H
#define MT_PLACEMENT_PS_H

#include "base/ps.h"
#include "placement/cluster.h"

/* alpha + bytes beta */
static inline int64_t mt_ps_message(const struct mt_costs *costs, enum mt_level level,
                                    int64_t n_bytes)
{
    return mt_ps_carry(costs->alpha_ps[level], costs->kib_ps[level], n_bytes);
}

#endif
