/* A study: what one policy would do, and cost, on a sequence of loads, without anything moving.
 *
 * One struct keeps a policy's state for all MoE layers and adds up what mt_predict says. It serves
 * `moetrain plan`, shadow mode in the trainer, and libmtplace. Nothing is allocated after init.
 *
 *   for each step: for each micro-batch: for each MoE layer: mt_study_layer
 *                  mt_study_end_step
 *
 * mt_study_layer is mt_study_before_gate, then mt_study_after_gate. */
#ifndef MT_PLACEMENT_STUDY_H
#define MT_PLACEMENT_STUDY_H

#include "placement/policy.h"
#include "placement/predict.h"

enum { MT_STUDY_RECENT = 4 }; /* micro-batches that a policy sees behind it */

struct mt_study_options {
    const struct mt_policy *policy;
    const struct mt_cluster *cluster; /* stays while the study does */
    int n_layer, first_layer;         /* MoE layers are first_layer .. n_layer - 1 */
    int n_expert, n_micro;
    int64_t slots; /* as placement.slots: 0 = auto */
    int overlap;   /* as placement.overlap_experts: -1 = auto */
    bool calibrate;
    enum mt_split_rule split; /* as placement.split */
    bool rematerialize;       /* false: copies stay from one micro-batch of a step to the next */
    int load_window;          /* steps of history, >= 1 */
    int64_t reshard_interval; /* steps; 0: only when mt_study_reshard is called */
};

/* Sums since init or mt_study_forget. */
struct mt_study_sum {
    int64_t n_step;
    int64_t n_layer; /* (step, micro-batch, layer)s studied */
    struct mt_prediction prediction;
    int64_t n_row;                  /* rows computed */
    int64_t n_largest_row;          /* of the most loaded ranks, one a layer */
    int64_t n_sent_row[MT_N_LEVEL]; /* of them, those whose expert is that far from their source */
    int64_t n_move;                 /* experts that changed owners */
    /* Rows of the most loaded rank over the mean, after placement: sum over n_layer, and the
     * largest. A layer without rows counts as 1. For reports only: plans are made of integers. */
    double load_ratio, worst_load_ratio;
};

struct mt_study {
    struct mt_study_options options;
    int n_slot;
    int64_t step; /* 1-based, being made */
    struct mt_study_sum sum;
    /* by layer, [n_layer]; those below first_layer are empty */
    struct mt_placement *placement; /* last planned before the gate */
    struct mt_placement *held; /* in force in the micro-batch before; NULL: copies never stay */
    int *n_micro;              /* micro-batches of this step so far */
    int64_t *recent;           /* [n_layer, MT_STUDY_RECENT, E] newest last */
    int *n_recent;
    /* shared by the layers */
    struct mt_placement now; /* of the layer at hand, after its gate */
    struct mt_history history;
    int64_t *count; /* [n_layer, E] of this step so far */
    int *owner;     /* [n_layer, E] */
};

/* Owners are the default ones. MT_ERR_RESOURCE: no memory. */
enum mt_status mt_study_init(struct mt_study *study, const struct mt_study_options *options);
void mt_study_clear(struct mt_study *study); /* after init, or of zeros */
/* Scratch of the calls below; studies that run one after another share an arena. False: does not
 * fit int64_t. All policies need at most what one with MT_SLOTS_ALL does. */
bool mt_study_scratch_bytes(const struct mt_study_options *options, int64_t *n_bytes);

/* What is to be materialised before the gate: study->now. */
void mt_study_before_gate(struct mt_study *study, int layer, struct mt_arena *scratch);
/* With the exact counts; the arguments are those of mt_study_layer. quota: NULL, or [R, capacity of
 * a placement] for the split, written as [R, n_instance]. */
void mt_study_after_gate(struct mt_study *study, int layer, const int64_t *counts,
                         struct mt_arena *scratch, int64_t *quota,
                         struct mt_prediction *prediction);
/* One MoE layer of one micro-batch. counts [R,E]: rows of source r for expert e. prediction: NULL
 * or what is predicted of this layer. study->now is the placement, until the next call. */
void mt_study_layer(struct mt_study *study, int layer, const int64_t *counts,
                    struct mt_arena *scratch, struct mt_prediction *prediction);
void mt_study_end_step(struct mt_study *study, struct mt_arena *scratch);
/* Owners as the policy wants them now, if it moves any. */
void mt_study_reshard(struct mt_study *study, struct mt_arena *scratch);
/* Sums start anew; what the policy has seen and planned stays. */
void mt_study_forget(struct mt_study *study);

/* Between two steps, for checkpoints: what the policy has seen and planned as so many numbers.
 * Reading takes over only what can be: numbers of another shape's study, or none at all, leave this
 * one as it is. scratch: as of the calls above. */
int64_t mt_study_state_length(const struct mt_study *study);
void mt_study_write_state(const struct mt_study *study, int64_t *numbers);
void mt_study_read_state(struct mt_study *study, const int64_t *numbers, struct mt_arena *scratch);

/* Totals [E] spread evenly over sources: counts [R,E], the remainders to ranks in turn. */
void mt_study_spread(const int64_t *total, int n_rank, int n_expert, int64_t *counts);

#endif
