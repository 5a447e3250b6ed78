/* What the files of train/ share. */
#ifndef MT_TRAIN_INTERNAL_H
#define MT_TRAIN_INTERNAL_H

#include "base/record.h"
#include "checkpoint/saver.h"
#include "data/deal.h"
#include "data/mixture.h"
#include "data/sampler.h"
#include "data/trace.h"
#include "optim/optim.h"
#include "profile/clocks.h"
#include "profile/live.h"
#include "profile/writer.h"
#include "train/costs.h"
#include "train/events.h"
#include "train/interval.h"
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
    double n_score;          /* pairs of tokens in one document: sum of squared lengths */
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

/* samples.c: data.log_samples. */
struct mt_samples {
    int64_t *table; /* of this step; NULL: off */
    FILE *file;     /* rank 0 */
};

/* Saving of checkpoints: saving.c. */
struct mt_saving {
    struct mt_checkpoint_options options;
    char *config_text;
    struct mt_saver *saver;
    int n_done, n_failed;    /* ranks, in the last step's gather: mt_saver_advance */
    int n_failed_in_row;     /* saves */
    int64_t n_overtaken;     /* saves that waited for the one before them */
    int64_t told_blocked_ns; /* of the saver's blocked_ns, in metrics */
    int64_t told_cost_ns;    /* the same with the writer's own time */
    struct mt_interval interval;
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
    struct mt_mixture *data;
    struct mt_validation validation;
    struct mt_batch_split split;
    int32_t *token, *target;             /* [micro_batch, T] */
    int64_t *sequence;                   /* [micro_batch] of the global batch, which are in token */
    struct mt_document_starts documents; /* start NULL: attention goes across them */
    struct mt_deal deal;                 /* cost NULL: by count */
    struct mt_run_state state;
    struct mt_state_array state_array[MT_MAX_STATE_ARRAY];
    struct mt_traces traces;
    struct mt_samples samples;
    struct mt_profiling profiling;
    struct mt_run_dir dir;
    FILE *metrics;            /* rank 0 */
    struct mt_events *events; /* the same; NULL: not written */
    double *gathered;         /* [R, n] of metrics.c */
    int64_t *replica; /* [R, max(R, tensors)] of replicas.c, then one rank's; NULL: not compared */
    double *mine;
    int64_t start_ns;        /* of this process's training */
    int64_t first_step;      /* done before this process */
    int64_t rolled_back;     /* to this step, the last time; -1: never */
    bool stop_requested;     /* agreed by all ranks */
    bool is_first_step_owed; /* rank 0: attempts.h counts this start from a checkpoint */
    double train_flops_per_token, train_flops_per_score;
    double n_score;                      /* of this rank's micro-batches of this step */
    int64_t costs_state[MT_COSTS_STATE]; /* train/costs.h */
    struct mt_saving saving;
};

/* trainer_open.c. Collective, agreed: everything but run directory and state, from
 * trainer->config. */
enum mt_status mt_trainer_open(struct mt_trainer *trainer);
void mt_trainer_close(struct mt_trainer *trainer); /* of whatever was opened */
/* The same for what can make steps but is no run, after opening: costs and first values. */
enum mt_status mt_trainer_start(struct mt_trainer *trainer);

/* bench_trainer.c: a trainer whose steps are timed. Open is collective and agreed, and leaves room
 * for gathers of n_gathered numbers a rank; it replays a trace, but config keeps none to record. */
enum mt_status mt_bench_open(struct mt_trainer *trainer, struct mt_config *config, int n_gathered);
void mt_bench_close(struct mt_trainer *trainer); /* and frees it; NULL is allowed */
/* Before the clock is read: the number of the step, its routing, spans at zero. */
enum mt_status mt_bench_begin_step(struct mt_trainer *trainer);
void mt_bench_train_step(struct mt_trainer *trainer, struct mt_step_result *result);

/* batch.c. Plan is collective, before the first load of a step: which sequences are whose. */
enum mt_status mt_batch_open(struct mt_trainer *trainer);
void mt_batch_close(struct mt_trainer *trainer);
enum mt_status mt_batch_plan(struct mt_trainer *trainer);
/* Reads this rank's micro-batch. */
enum mt_status mt_batch_load(struct mt_trainer *trainer, int64_t micro,
                             struct mt_micro_batch *batch);

/* step.c: one optimizer step; trainer->state.step is the number of the step being made. */
enum mt_status mt_train_step(struct mt_trainer *trainer, struct mt_step_result *result);

/* metrics.c. Collective: gathers every rank's times, writes the line, shows progress, and agrees on
 * stop requests. */
enum mt_status mt_metrics_open(struct mt_trainer *trainer);
void mt_metrics_close(struct mt_trainer *trainer);
enum mt_status mt_metrics_step(struct mt_trainer *trainer, const struct mt_step_result *result);
/* This rank alone: is a stop asked for, or the wall-time limit behind? Of a struct mt_trainer. */
bool mt_metrics_wants_stop(void *trainer);
/* Collective. before: the totals when the evaluation began, time_ns: what it took here. */
enum mt_status mt_metrics_evaluation(struct mt_trainer *trainer,
                                     const struct mt_evaluation *evaluation,
                                     const struct mt_span_totals *before, int64_t time_ns);

/* Of the model, in a step: scores between documents are not computed, and not counted. */
double mt_metrics_flops(const struct mt_trainer *trainer, const struct mt_step_result *result);

/* nonfinite.c. Collective, after the metrics of a step: beyond the configured patience the run ends
 * (MT_ERR_DIVERGED) or goes back to its last checkpoint; *is_back: it has, the step is undone. */
enum mt_status mt_nonfinite_check(struct mt_trainer *trainer, const struct mt_step_result *result,
                                  bool *is_back);

/* replicas.c. Open before the first step; check is collective, while working copies are at rest. */
enum mt_status mt_replicas_open(struct mt_trainer *trainer);
void mt_replicas_close(struct mt_trainer *trainer);
enum mt_status mt_replicas_check(struct mt_trainer *trainer);

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

/* samples.c. Open is agreed by the caller, after resuming; note: trainer->token holds the n
 * sequences of trainer->sequence; end_step is collective. */
enum mt_status mt_samples_open(struct mt_trainer *trainer);
void mt_samples_close(struct mt_trainer *trainer);
void mt_samples_note(struct mt_trainer *trainer, int64_t n);
enum mt_status mt_samples_end_step(struct mt_trainer *trainer);

/* metrics_file.c, rank 0 only. MT_ERR_INPUT when a line of the file has no end.
 * Keeps the lines of steps up to `step`. */
enum mt_status mt_metrics_cut(const char *path, int64_t step);
/* Does the file have an evaluation at `step`? */
enum mt_status mt_metrics_has_evaluation(const char *path, int64_t step, bool *has);
/* The last step that the file has; 0: none. */
enum mt_status mt_metrics_last_step(const char *path, int64_t *last);

/* resume.c. Collective: decides where the run starts, fills store and state; the caller publishes.
 * *is_finished: nothing is left to do. */
enum mt_status mt_resume(struct mt_trainer *trainer, const struct mt_train_options *options,
                         bool *is_finished);
/* Collective. Back to the newest valid checkpoint of the run, apart from the position in the data
 * and the count of skipped steps, which stay; metrics are cut. The caller publishes. *is_found:
 * there is one. */
enum mt_status mt_resume_newest(struct mt_trainer *trainer, bool *is_found);
/* Of a start from a checkpoint: its first step is done; or it ended before that. */
void mt_resume_step_done(struct mt_trainer *trainer);
void mt_resume_ended(struct mt_trainer *trainer, enum mt_status status);

/* saving.c. Collective, agreed, between two steps. A save that fails is told of and training goes
 * on; MT_ERR_RESOURCE when the second in a row fails, or one that was to be complete. */
enum mt_status mt_saving_open(struct mt_trainer *trainer, const char *versions);
void mt_saving_close(struct mt_trainer *trainer); /* waits for this rank's writer */
/* Begins a save; is_last: it is complete on return. */
enum mt_status mt_save(struct mt_trainer *trainer, bool is_last);
/* After the metrics of a step, with saving.n_done and n_failed: what is going on goes on. */
enum mt_status mt_saving_advance(struct mt_trainer *trainer);
/* Nothing is going on any more; a failure is only told of. */
enum mt_status mt_saving_finish(struct mt_trainer *trainer);

#endif
