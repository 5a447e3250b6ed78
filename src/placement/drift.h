/* Loads that drift, for the planners' benchmark and tests: experts' weights follow a first-order
 * autoregression per micro-batch, ranks' weights are such that under expert parallelism the fullest
 * rank has `skew` times the mean in every micro-batch; which rank that is changes now and then. */
#ifndef MT_PLACEMENT_DRIFT_H
#define MT_PLACEMENT_DRIFT_H

#include "placement/placement.h"

struct mt_drift {
    int n_rank, n_expert;
    const int *owner; /* [E] */
    double skew;      /* >= 1 */
    uint64_t seed;
    int64_t n_row;  /* of each source rank */
    int step;       /* of the next micro-batch */
    double *state;  /* [E] log weights */
    double *weight; /* [E] */
    int *place;     /* [R] 0: the hottest rank */
    double *load;   /* [R] */
};

enum mt_status mt_drift_init(struct mt_drift *drift, int n_rank, int n_expert, const int *owner,
                             double skew, uint64_t seed);
void mt_drift_clear(struct mt_drift *drift);
/* counts [R,E] and their sums total [E] of the next micro-batch */
void mt_drift_next(struct mt_drift *drift, int64_t *counts, int64_t *total);

#endif
