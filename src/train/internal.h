/* What the files of train/ share. */
#ifndef MT_TRAIN_INTERNAL_H
#define MT_TRAIN_INTERNAL_H

#include "base/record.h"
#include "checkpoint/checkpoint.h"
#include "data/sampler.h"
#include "data/trace.h"
#include "optim/optim.h"
#include "profile/clocks.h"
#include "profile/live.h"
#include "profile/writer.h"
#include "train/costs.h"
#include "train/run_dir.h"
#include "train/session.h"
#include "train/trainer.h"

#include <stdio.h>

enum { MT_MAX_STATE_ARRAY = 16 };

/* What one step gives to metrics; the same on every rank. */
struct mt_step_result {
    double loss, grad_norm, lr;
    bool skipped;            /* non-finite: no update */
    int64_t n_token;         /* of the global batch */
    int64_t step_time_ns;    /* this rank's */
    struct mt_moe_stats moe; /* zeros when no layer is a MoE */
};

/* Traces of expert load: replayed, or recorded by rank 0; NULL: not. */
struct mt_traces {
    int first_layer, n_layer; /* MoE layers */
    struct mt_trace *replay;
    struct mt_trace_writer *record;
    int64_t *count; /* of one step of the replay, as mt_trace_read gives them */
};

/* The recorder in this run (profiling.c). */
struct mt_profiling {
    bool is_on;
    struct mt_profile_writer writer;
    struct mt_clocks clocks;
    struct mt_live live;      /* rank 0 */
    int n_machine;            /* whose clocks differ */
    int64_t error_ns;         /* of the clocks, at their last meeting */
    int64_t since_meeting_ns; /* the same on all ranks */
};

struct mt_trainer {
    const struct mt_config *config;
    struct mt_session session;
    struct mt_optim *optim;
    struct mt_corpus *corpus, *validation; /* validation: NULL when there is none */
    struct mt_batch_split split;
    int32_t *token, *target; /* [micro_batch, T] */
    struct mt_run_state state;
    struct mt_state_array state_array[MT_MAX_STATE_ARRAY];
    struct mt_traces traces;
    struct mt_profiling profiling;
    struct mt_run_dir dir;
    FILE *metrics;    /* rank 0 */
    double *gathered; /* [R, n] of metrics.c */
    double *mine;
    int64_t start_ns;    /* of this process's training */
    int64_t first_step;  /* done before this process */
    bool stop_requested; /* agreed by all ranks */
    double train_flops_per_token;
    int64_t costs_state[MT_COSTS_STATE]; /* train/costs.h */
};

/* trainer_open.c. Collective, agreed: everything but run directory and state, from
 * trainer->config. */
enum mt_status mt_trainer_open(struct mt_trainer *trainer);
void mt_trainer_close(struct mt_trainer *trainer); /* of whatever was opened */

/* step.c: one optimizer step; trainer->state.step is the number of the step being made. */
enum mt_status mt_train_step(struct mt_trainer *trainer, struct mt_step_result *result);

/* metrics.c. Collective: gathers every rank's times, writes the line, shows progress, and agrees on
 * stop requests. */
enum mt_status mt_metrics_open(struct mt_trainer *trainer);
void mt_metrics_close(struct mt_trainer *trainer);
enum mt_status mt_metrics_step(struct mt_trainer *trainer, const struct mt_step_result *result);
enum mt_status mt_metrics_evaluation(struct mt_trainer *trainer,
                                     const struct mt_evaluation *evaluation);

/* Of the slowest rank, in the last step; the same on every rank. */
int64_t mt_metrics_step_ns(const struct mt_trainer *trainer);

/* profiling.c. Open, begin_step and finish are collective; finish ends a regular run's profile,
 * close without it leaves the last window of a failed one. */
enum mt_status mt_profiling_open(struct mt_trainer *trainer);
enum mt_status mt_profiling_begin_step(struct mt_trainer *trainer);
enum mt_status mt_profiling_finish(struct mt_trainer *trainer);
void mt_profiling_close(struct mt_trainer *trainer);

/* traces.c. Open is collective and agreed, after resuming. */
enum mt_status mt_traces_open(struct mt_trainer *trainer);
void mt_traces_close(struct mt_trainer *trainer);
enum mt_status mt_traces_begin_step(struct mt_trainer *trainer);
enum mt_status mt_traces_end_step(struct mt_trainer *trainer, const struct mt_step_result *result);

/* metrics_file.c: keeps the lines of steps up to `step`, rank 0 only. */
enum mt_status mt_metrics_cut(const char *path, int64_t step);
/* The last step that the file has; 0: none. */
int64_t mt_metrics_last_step(const char *path);

/* resume.c. Collective: decides where the run starts, fills store and state; the caller publishes.
 * *is_finished: nothing is left to do. */
enum mt_status mt_resume(struct mt_trainer *trainer, const struct mt_train_options *options,
                         bool *is_finished);
/* Collective, agreed. */
enum mt_status mt_save(struct mt_trainer *trainer);

#endif
