/* What a report takes from a run's metrics.jsonl (docs/metrics.md): balance before placement,
 * copies and decisions, speed. A line that is broken is counted and skipped. */
#ifndef MT_PROFILE_RUN_METRICS_H
#define MT_PROFILE_RUN_METRICS_H

#include "base/status.h"

#include <stdint.h>

enum { MT_RUN_DECISIONS = 24, MT_RUN_DECISION_RANKS = 8, MT_RUN_TEXT_BYTES = 256 };
enum { MT_RUN_SHADOWS = 16, MT_RUN_NAME_BYTES = 32 };

/* One entry of the placement's log. */
struct mt_run_decision {
    int64_t step, rows;
    int layer, expert, n_copy;
    int n_rank; /* <= 8, of n_copy */
    int rank[MT_RUN_DECISION_RANKS];
    bool is_late;
    double saves_s, costs_s;
};

/* A policy that was asked what it would have done, on the same counts. */
struct mt_run_shadow {
    char policy[MT_RUN_NAME_BYTES];
    int64_t n_step;     /* that tell of it */
    double predicted_s; /* MoE layers of a step, mean over them */
    double rank_load;   /* busiest rank over the mean, mean over them */
};

struct mt_run_metrics {
    int64_t n_step; /* training steps with a whole line; 0: there is nothing */
    int64_t last_step;
    int64_t n_broken; /* lines that could not be read */
    bool is_there;
    char problem[MT_RUN_TEXT_BYTES]; /* why it cannot be read; "": it can, or is not there */
    char device[MT_RUN_TEXT_BYTES];
    double tokens_per_s, step_time_s; /* means over the steps */
    double expert_load, rank_load;    /* means of ..._max_over_mean */
    bool has_placement;               /* the rest is of the steps that tell of it */
    double copies, late;              /* a step */
    int64_t n_move;                   /* in all */
    double predicted_s, ideal_s;      /* MoE layers of a step; with rows spread evenly */
    int n_shadow;                     /* 0: placement.shadow was off */
    struct mt_run_shadow shadow[MT_RUN_SHADOWS];
    int n_layer;        /* of the arrays by layer */
    double *layer_load; /* [n_layer] mean of the busiest expert over the mean */
    int n_decision;
    struct mt_run_decision decision[MT_RUN_DECISIONS]; /* the last ones, the latest first */
};

/* run_dir/metrics.jsonl. A file that is not there leaves is_there false, one that cannot be read a
 * problem; only want of memory is an error. Nothing is read behind a line without end, which counts
 * as broken. */
enum mt_status mt_run_metrics_read(const char *run_dir, struct mt_run_metrics *metrics);
void mt_run_metrics_clear(struct mt_run_metrics *metrics);

#endif
