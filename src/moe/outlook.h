/* Why copies are where they are, and what it is expected to bring: the decisions of a step's last
 * micro-batch, the predicted time of its MoE layers, and, in shadow mode, what every other policy
 * would have cost on the same counts. For metrics and report; training does not depend on it. */
#ifndef MT_MOE_OUTLOOK_H
#define MT_MOE_OUTLOOK_H

#include "config/config.h"
#include "moe/moe.h"
#include "placement/study.h"

struct mt_outlook {
    int n_layer;
    struct mt_moe_decision *decision; /* [L * MT_MOE_LAYER_DECISIONS] of the step */
    struct mt_moe_outlook sum;        /* of the step so far, this policy's */
    int64_t *n_passed_row;            /* [L] of micro-batches that were not predicted */
    /* shadow mode */
    int n_shadow;
    struct mt_study *study;       /* [n_shadow] */
    struct mt_moe_shadow *shadow; /* [n_shadow] */
    int policy;                   /* of the run itself, in the table */
    int64_t *state;               /* [n_state] R, 1 + policy, then the studies, for checkpoints */
    int64_t n_state;              /* 0 without shadow mode */
    struct mt_arena scratch;
};

/* cluster stays while the outlook does. */
enum mt_status mt_outlook_init(struct mt_outlook *outlook, const struct mt_config *config,
                               const struct mt_cluster *cluster);
void mt_outlook_clear(struct mt_outlook *outlook);
void mt_outlook_begin_step(struct mt_outlook *outlook, int n_micro);
/* With re-materialization micro-batches are alike: the last one of a step stands for all, by rows,
 * and the others pass with their rows of each expert, total [E]. In shadow mode each is predicted,
 * for the other policies' are. */
bool mt_outlook_passes(const struct mt_outlook *outlook, const struct mt_predict_options *how);
void mt_outlook_pass(struct mt_outlook *outlook, int layer, int n_expert, const int64_t *total);
/* One layer of a micro-batch that does not pass. quota [R, n_instance] as it was split. */
void mt_outlook_add(struct mt_outlook *outlook, const struct mt_cluster *cluster, int layer,
                    const struct mt_placement *placement, const int64_t *quota,
                    const struct mt_predict_options *how, struct mt_arena *scratch);
/* Shadow mode: counts [R,E] of one layer of any micro-batch. */
void mt_outlook_shadow(struct mt_outlook *outlook, int layer, const int64_t *counts);
/* Fills stats' outlook; pointers are valid until the next step. */
void mt_outlook_finish(struct mt_outlook *outlook, struct mt_moe_outlook *sum);
/* Shadow policies to and from `state`; what was written on other ranks or beside another policy is
 * not taken over. */
void mt_outlook_write_state(struct mt_outlook *outlook, int n_rank);
void mt_outlook_read_state(struct mt_outlook *outlook, int n_rank);

#endif
