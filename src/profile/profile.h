/* What a run left in its folder profile/, as one model in memory: everything that the analysis
 * (analysis.h), the replay, the report and the trace are made of.
 *
 *   base/record.h  each rank writes profile/rank-00000.jsonl   (format: docs/profiling.md)
 *   mt_profile_read: all files -> struct mt_profile, times on one clock, damaged files named
 *
 * All times are nanoseconds on the clock of rank 0, counted from the moment when the first start of
 * the run opened its profile, moved there by the clock knots of each rank. A reading of rank r is
 * right to within rank[r].error_ns; differences below that say nothing. */
#ifndef MT_PROFILE_PROFILE_H
#define MT_PROFILE_PROFILE_H

#include "base/record.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { MT_PROFILE_MAX_KIND = 64, MT_PROFILE_NAME_BYTES = 64 };

/* A meeting of clocks: at local_ns of its own clock a rank was offset_ns behind rank 0's (add it),
 * give or take error_ns, half of the smallest round trip. Between two knots both are linear. */
struct mt_profile_knot {
    int64_t local_ns, offset_ns, error_ns;
};

struct mt_profile_rank {
    bool is_there; /* its file was read */
    int node, local_rank;
    char host[MT_PROFILE_NAME_BYTES];
    int64_t error_ns; /* largest of its knots, 0 for rank 0; and the largest of its GPU's times */
    int n_knot;
    struct mt_profile_knot *knot; /* [n_knot] of its last start, as written; ascending */
    int64_t last_step;            /* the last that it recorded; 0: none */
    bool has_ended;               /* regularly: else it runs still, or was killed */
};

/* A rank's part in one collective. It belongs to the step in which it was begun, also when it ended
 * in the next one (parameters travel under the next forward). Whoever entered the wait went on at
 * max(need_ns, done_ns), and stood still for max(0, done_ns - need_ns). */
struct mt_profile_collective {
    int64_t number;    /* in the order of begins, the same on every rank: joins them */
    int kind;          /* index into kind[]; -1: unknown */
    int phase;         /* enum mt_phase open when it was posted; MT_N_PHASE: none */
    int busy_phase;    /* where this rank was longest since its previous record, not waiting */
    int layer;         /* -1: of no layer */
    int micro;         /* micro-batch; -1: of none */
    int64_t begin_ns;  /* posted: this rank has arrived */
    int64_t need_ns;   /* the wait was entered; done_ns when nobody waited */
    int64_t done_ns;   /* found complete, by a poll or in the wait; may lie before need_ns */
    int64_t n_bytes;   /* sent by this rank */
    int n_source;      /* ranks that this one receives from; 0: it waits for nobody */
    int last_peer;     /* the rank whose messages, to or from it, were there last; -1: unknown */
    int64_t last_ns;   /* since when its messages alone were known to be missing */
    uint64_t sources;  /* bit r: from rank r; 0 when R > 64 */
    bool is_of_device; /* times are its GPU's */
};

/* A piece of one rank's time, for traces. Tracks nest by time: a span of the compute track may lie
 * inside another one; collectives are in mt_profile_collective, not here. */
struct mt_profile_span {
    int track;        /* enum mt_track of base/record.h */
    int phase;        /* enum mt_phase */
    int layer, micro; /* -1: none */
    int64_t begin_ns, end_ns;
    int64_t rows;    /* computed inside: of experts, pairs of token and choice, tokens; 0: none */
    int64_t n_bytes; /* of the messages posted inside; read; saved; 0: none */
};

/* One rank's account of one step, timed from begin to end (metrics: step_time_s); until is
 * when the next one begins: metrics, evaluation and the stall of a save lie between. Phases add up
 * to at most until - begin; where a GPU computes, what is under way at a step's end counts in the
 * next one (base/device_time.h). */
struct mt_profile_step {
    bool is_there;
    int64_t session; /* number of the start that made it: collectives count from its begin */
    int64_t begin_ns, end_ns, until_ns;
    int64_t phase_ns[MT_N_PHASE]; /* waiting included */
    int64_t wait_ns[MT_N_PHASE];  /* of which stood still in collectives */
    int64_t n_token;              /* of this rank's micro-batches */
    int64_t memory_bytes;         /* largest resident set so far */
    int64_t n_lost;               /* records that found the ring full */
    int n_collective;             /* 0: not recorded in detail, or by a start with other ranks */
    struct mt_profile_collective *collective; /* [n_collective] by number */
    int n_span;                               /* 0: the step was not traced */
    struct mt_profile_span *span;             /* [n_span] by begin, outer ones first */
};

struct mt_profile {
    char run[MT_PROFILE_NAME_BYTES];
    char version[MT_PROFILE_NAME_BYTES];
    char start_utc[MT_PROFILE_NAME_BYTES]; /* ISO 8601, of the first start */
    int64_t start_session;                 /* the number of the first start: times count from it */
    int window;                            /* profile.window */
    int n_rank, n_layer, n_expert;         /* n_layer: all layers, dense ones too */
    struct mt_profile_rank *rank;          /* [n_rank] */
    int n_kind;
    char kind[MT_PROFILE_MAX_KIND][MT_PROFILE_NAME_BYTES]; /* names of collectives */
    int n_step;
    int64_t *step_number;         /* [n_step] ascending, 1-based as in metrics.jsonl */
    struct mt_profile_step *step; /* [n_step, n_rank] */
    /* Per step, rank and layer: rows that this rank's experts computed forward (all micro-batches),
     * and the time that its experts took forward and backward, waiting not counted. */
    int64_t *rows;      /* [n_step, n_rank, n_layer] */
    int64_t *expert_ns; /* [n_step, n_rank, n_layer] */
    /* Per rank, layer and expert: rows that this rank computed forward, over expert_steps[rank]
     * steps, those of all starts. NULL where the product of the sizes is absurd. */
    int64_t *expert_rows;  /* [n_rank, n_layer, n_expert] */
    int64_t *expert_steps; /* [n_rank] 0: not recorded */
    int n_problem;
    char **problem; /* [n_problem] one sentence a damaged, foreign or missing file, by name */
};

/* An empty profile of this shape, all ranks there, all steps not; step numbers 1 .. n_step. For the
 * reader and for tests. */
enum mt_status mt_profile_init(struct mt_profile *profile, int n_rank, int n_step, int n_layer);
void mt_profile_clear(struct mt_profile *profile); /* also of a profile that init or read left */

/* Room for the rows of so many experts a layer, and sets n_expert; sizes that no run has are left
 * without. */
enum mt_status mt_profile_reserve_experts(struct mt_profile *profile, int n_expert);

/* Room for n records of a step; what was there is freed. */
enum mt_status mt_profile_reserve_collectives(struct mt_profile_step *step, int n);
enum mt_status mt_profile_reserve_spans(struct mt_profile_step *step, int n);

/* Reads run_dir/profile/rank-*.jsonl. Files that cannot be read or are no files, that are empty,
 * broken, foreign or of another start with another number of ranks are named in profile->problem
 * and skipped; one that ends within a line is named and read until there; and the rest is read.
 * MT_ERR_INPUT when nothing is left, or there is no such folder. One process. */
enum mt_status mt_profile_read(const char *run_dir, struct mt_profile *profile);

/* Is it the name of a rank's file: rank-....jsonl? */
bool mt_profile_is_rank_file(const char *name);

static inline struct mt_profile_step *mt_profile_step(const struct mt_profile *profile, int step,
                                                      int rank)
{
    return &profile->step[(int64_t)step * profile->n_rank + rank];
}

/* [n_layer] of one step and rank, inside profile->rows or profile->expert_ns. */
static inline int64_t *mt_profile_by_layer(const struct mt_profile *profile, int64_t *values,
                                           int step, int rank)
{
    return values + ((int64_t)step * profile->n_rank + rank) * profile->n_layer;
}

/* [n_expert] of one rank and layer, inside profile->expert_rows, which is there. */
static inline int64_t *mt_profile_expert_rows(const struct mt_profile *profile, int rank, int layer)
{
    return profile->expert_rows + ((int64_t)rank * profile->n_layer + layer) * profile->n_expert;
}

/* A rank's clock at local_ns, moved onto rank 0's: linear between knots, the nearest knot's offset
 * outside. No knot: unchanged. */
int64_t mt_profile_align(const struct mt_profile_knot *knot, int n_knot, int64_t local_ns);

#endif
