/* What a placement will cost: the time of one MoE layer of one micro-batch, forward and backward,
 * from the cluster's costs. An alpha-beta model; docs/fssdp.md has the formula. */
#ifndef MT_PLACEMENT_PREDICT_H
#define MT_PLACEMENT_PREDICT_H

#include "placement/placement.h"

struct mt_prediction {
    int64_t total_ps;    /* the slowest rank, forward and backward */
    int64_t compute_ps;  /* experts of the slowest rank */
    int64_t exchange_ps; /* rows to experts and back, four times */
    int64_t
        copies_ps; /* exposed: copies of experts and their gradients beyond attention, late ones */
    int64_t ideal_ps; /* lower bound: perfectly even load, nothing exposed but even exchange */
    int64_t n_copy, n_late;
};

/* quota [R, n_instance] as mt_split wrote it. rematerialize: copies are gathered again for
 * backward. */
void mt_predict(const struct mt_cluster *cluster, const struct mt_placement *placement,
                const int64_t *quota, bool rematerialize, struct mt_arena *scratch,
                struct mt_prediction *prediction);

#endif
