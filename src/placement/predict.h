/* What a placement will cost: the time of one MoE layer of one micro-batch, forward and backward,
 * from the cluster's costs. An alpha-beta model; docs/fssdp.md has the formula. */
#ifndef MT_PLACEMENT_PREDICT_H
#define MT_PLACEMENT_PREDICT_H

#include "placement/placement.h"

struct mt_prediction {
    int64_t total_ps;    /* the slowest rank, forward and backward */
    int64_t compute_ps;  /* experts of the slowest rank */
    int64_t exchange_ps; /* exposed: rows to experts and back, four times, by the cluster's way */
    /* exposed: copies of experts and their gradients beyond attention, and waiting for late ones */
    int64_t copies_ps;
    /* lower bound for these rows and their traffic: both spread evenly over ranks */
    int64_t ideal_ps;
    int64_t n_copy, n_late;         /* instances beside owners; those of them that are late */
    int64_t copy_bytes;             /* of copies and their gradients, that all ranks send */
    int64_t n_row, largest_row;     /* of all ranks; of the most loaded */
    int64_t n_sent_row[MT_N_LEVEL]; /* rows whose expert is that far from their source */
};

/* How copies come and go. Zeros: they stay until the micro-batch's backward. */
struct mt_predict_options {
    bool rematerialize; /* copies are dropped after forward and gathered again for backward */
    bool cuts_experts;  /* instances, owners' too, are put together from pieces of all ranks */
    /* Sticky copies, without re-materialization: */
    bool is_followed; /* by another micro-batch of the step: gradients stay where copies do */
    const struct mt_placement *held; /* what stayed from the one before, as it was in force; what
                                        the placement has not kept gives its gradients back first.
                                        NULL: nothing did */
};

/* total = compute + exchange + copies; times saturate at 2^60 ps.
 * quota [R, n_instance] as mt_split wrote it. */
void mt_predict(const struct mt_cluster *cluster, const struct mt_placement *placement,
                const int64_t *quota, const struct mt_predict_options *options,
                struct mt_arena *scratch, struct mt_prediction *prediction);

#endif
