/* What a placement will cost: the time of one MoE layer of one micro-batch, forward and backward,
 * from the cluster's costs. An alpha-beta model; docs/fssdp.md has the formula. */
#ifndef MT_PLACEMENT_PREDICT_H
#define MT_PLACEMENT_PREDICT_H

#include "placement/placement.h"

struct mt_prediction {
    int64_t total_ps;    /* the slowest rank, forward and backward */
    int64_t compute_ps;  /* experts of the slowest rank */
    int64_t exchange_ps; /* rows to experts and back, four times */
    /* exposed: copies of experts and their gradients beyond attention, and waiting for late ones */
    int64_t copies_ps;
    /* lower bound for these rows and their traffic: both spread evenly over ranks */
    int64_t ideal_ps;
    int64_t n_copy, n_late;         /* instances beside owners; those of them that are late */
    int64_t n_row, largest_row;     /* of all ranks; of the most loaded */
    int64_t n_sent_row[MT_N_LEVEL]; /* rows whose expert is that far from their source */
};

/* total = compute + exchange + copies; times saturate at 2^60 ps.
 * quota [R, n_instance] as mt_split wrote it. rematerialize: copies are gathered again for
 * backward. */
void mt_predict(const struct mt_cluster *cluster, const struct mt_placement *placement,
                const int64_t *quota, bool rematerialize, struct mt_arena *scratch,
                struct mt_prediction *prediction);

#endif
