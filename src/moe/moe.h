/* The Mixture-of-Experts layer: gate, exchange, experts, combine - and the balance losses.
 *
 * One mt_moe serves all MoE layers of a run: buffers, placements of the step, statistics. A layer
 * (moe/layer.c and moe/placing.c read like this):
 *
 *   plan from history, begin SparseAllGather   placement/, store/     then attention, above
 *   gate: softmax, top-k, counts               kernel/
 *   all-gather of counts [R,E]                 every rank now knows everything that follows
 *   correct the plan: late copies begin        placement/, store/
 *   split rows over instances                  placement/
 *   dispatch rows to their instances           comm/
 *   experts: resident rows, then late ones     kernel/
 *   combine rows at their source               comm/
 *
 * and backward mirrors it, SparseReduceScatter under the attention below; gradients of weights are
 * added while those of rows travel. Routing is saved, never recomputed. Rows are computed in slices
 * of at most W, so that memory is bounded under any skew: the first slice is kept for backward, the
 * others are sent again. */
#ifndef MT_MOE_MOE_H
#define MT_MOE_MOE_H

#include "base/memory.h"
#include "comm/comm.h"
#include "config/config.h"
#include "kernel/kernel.h"
#include "placement/placement.h"
#include "store/state_array.h"
#include "store/store.h"

struct mt_moe;
struct mt_route;

/* Tensors of one MoE layer, as rows of the store's table (-1: not there). */
struct mt_moe_tensors {
    int router;
    int shared_gate, shared_up, shared_down;
    int shared_scale; /* [1,D] what weighs the shared experts' output */
};

struct mt_moe_options {
    const struct mt_config *config;
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    const struct mt_moe_tensors *tensors; /* [L], of MoE layers; copied */
    int n_half;                           /* that a micro-batch is cut into at most */
    int64_t max_token;                    /* largest N of a half of this rank */
    int64_t max_token_any;                /* largest N of a half of any rank */
    int n_slot;                           /* copies of a layer: mt_moe_slots */
    bool training;
};

/* Halves of a micro-batch (docs/decisions/0012-halves.md). */
enum { MT_MAX_HALF = 2 };

enum mt_status mt_moe_create(const struct mt_moe_options *options, struct mt_moe **out);
void mt_moe_destroy(struct mt_moe *moe); /* NULL allowed */

/* For studies: another policy of the same slots than the configuration's, and whether rows of
 * resident experts run before late ones. Before the first step. */
struct mt_policy;
void mt_moe_set_policy(struct mt_moe *moe, const struct mt_policy *policy, bool is_resident_first);

/* What plans are made from from now on; zeros before. The same on every rank. */
void mt_moe_set_costs(struct mt_moe *moe, const struct mt_costs *costs);

/* The owner maps [L] that the store is created with (rows of dense layers unused): made from the
 * configuration and R alone. Caller's array of n_layer placements, each cleared by the caller. */
enum mt_status mt_moe_ownership(const struct mt_config *config, int n_rank,
                                struct mt_placement *placement);

/* Slots for copies that the policy of the configuration gets: of one layer, and of all layers
 * whose copies a rank holds at a time, which is what the store is created with. is_cut: experts
 * are cut (store/store.h); then the total has room for those at home as well. */
struct mt_moe_slots {
    int per_layer, total;
    bool is_cut;
};
struct mt_moe_slots mt_moe_slots(const struct mt_config *config, int n_rank);

/* The last micro-batches whose loads a policy sees before the gate, beside the whole steps of
 * placement.load_window: enough to tell a trend from noise. */
enum { MT_MOE_RECENT_MICRO = 4 };

/* Rows of experts that a rank computes and keeps at a time, W: MT_MOE_SLICE_FACTOR times what a
 * rank with max_token_any tokens sends, which is its load when all are alike. */
int64_t mt_moe_slice_rows(int64_t max_token_any, int64_t top_k);

/* Bytes of rows that `rank` holds for others in an exchange at most, whatever the routing: address
 * space until such a routing comes (moe/carrier.h). */
int64_t mt_moe_stage_bytes(const struct mt_config *config, const struct mt_topology *topology,
                           int rank, int64_t max_token_any);

/* Bytes that one layer's forward and backward cut from the activation arena at most, whatever the
 * routing. kept: of it, what stays cut from forward to backward; with train.recompute = "layer"
 * without gate and up. */
int64_t mt_moe_saved_bytes_max(const struct mt_moe *moe);
int64_t mt_moe_kept_bytes_max(const struct mt_moe *moe);

/* ---- a step ---- */

/* step: 1-based. Moves owners when the policy wants that and it is due (parameters and optimizer
 * state travel), and zeroes the step's statistics. Collective. */
enum mt_status mt_moe_plan_step(struct mt_moe *moe, int64_t step, int n_micro);
/* Before the first layer of a micro-batch, also of counting passes; index of the step. is_last: the
 * copies of experts are given up under its backward. n_half: that it is cut into. */
void mt_moe_begin_micro(struct mt_moe *moe, int index, bool is_last, int n_half);

/* routing = "replay": [L,E] rows per expert of the step to come, written by the caller before
 * forward; only their shares matter. NULL when routing is learned. */
int64_t *mt_moe_replay_counts(struct mt_moe *moe);

/* The rows of experts here, in the order of moe/route.h. */
struct mt_moe_rows {
    float *x;         /* [S,D] as they came */
    float *weight;    /* [S] */
    float *gate, *up; /* [S,F] */
};

/* What one layer's forward of a half keeps for its backward; memory in the activation arena. With
 * train.recompute = "layer" everything but gate and up: the caller computes x again in its place,
 * backward the rest. The rows that came here stay, so that nothing is exchanged a second time
 * (docs/decisions/0007-recompute.md). */
struct mt_moe_saved {
    int64_t n;                      /* N of the half */
    int64_t kept_mark;              /* of the arena: what is cut above may be computed again */
    const float *x;                 /* [N,D] the layer's input, kept by the caller */
    int32_t *expert;                /* [N,K] */
    float *weight;                  /* [N,K] */
    float *probability;             /* [N,E] */
    float *lse;                     /* [N] */
    float *d_weight;                /* [N,K] filled in backward */
    struct mt_route *route;         /* who sends what where (moe/route.h) */
    struct mt_moe_rows rows;        /* of the first slice: S <= W */
    float *shared_gate, *shared_up; /* [N,Fs] */
    float *shared_scale;            /* [N] weights of shared experts' outputs; NULL: all 1 */
};

/* Before the layer's attention, so that copies travel under it: plans where the layer's experts
 * work, begins SparseAllGather. is_kept: backward follows. Every forward has one before it.
 * Collective. */
enum mt_status mt_moe_prefetch(struct mt_moe *moe, int layer, bool is_kept);
/* The same for a backward, under what comes before it: copies that forward dropped travel again. */
enum mt_status mt_moe_prefetch_backward(struct mt_moe *moe, int layer);
/* After a backward, when the attention below has hidden it: ends SparseReduceScatter. */
enum mt_status mt_moe_end_reduce(struct mt_moe *moe, int layer);

/* A layer of one half in three stages, so that the caller can put the other half's between them:
 * rows travel to experts from `begin` to `experts`, and back from there to `end`. Halves come in
 * their order in every stage, and copies of experts serve them all. Without a backward each half
 * is a pass of its own, with its own prefetch. Collective.
 *
 * out [N,D] = MoE(x [N,D]) including shared experts: written by `begin` to `end`. What backward
 * needs is cut from `arena`, from which nothing else is cut before `end`; `saved` NULL: evaluation,
 * the arena is left as it was. index: of the half. */
struct mt_moe_forward {
    float *out;
    const float *x;
    int64_t n;
    struct mt_arena *arena;
    struct mt_moe_saved *saved;
};
enum mt_status mt_moe_forward_begin(struct mt_moe *moe, int layer, int index,
                                    const struct mt_moe_forward *args);
enum mt_status mt_moe_forward_experts(struct mt_moe *moe, int layer, int index);
enum mt_status mt_moe_forward_end(struct mt_moe *moe, int index);

/* window = "exact" with several micro-batches needs the counts of all of them before the first
 * backward: a counting pass runs evaluation forwards of every micro-batch. While counting is on,
 * forward adds its counts to the window and to no other statistics; while it is off in such a step,
 * the window is complete and forward adds to the statistics only. Evaluation forwards outside both
 * (counting off, saved NULL) add to nothing. */
void mt_moe_set_counting(struct mt_moe *moe, bool counting);

/* The mirror image, in three stages as well: d_x [N,D] = gradient of the layer's input from d_out
 * [N,D], which is read by `begin` only; weight gradients are added to the store's. token_share =
 * 1 / tokens of the global batch (for balance and z-loss gradients). Once per forward: gradients
 * are written over saved activations. Collective. */
struct mt_moe_backward {
    float *d_x;
    const float *d_out;
    const struct mt_moe_saved *saved;
    struct mt_arena *arena;
};
enum mt_status mt_moe_backward_begin(struct mt_moe *moe, int layer, int index,
                                     const struct mt_moe_backward *args);
enum mt_status mt_moe_backward_experts(struct mt_moe *moe, int layer, int index);
enum mt_status mt_moe_backward_end(struct mt_moe *moe, int layer, int index, double token_share);

/* One expert's copies in one layer of the step's last micro-batch: what they take off its owner and
 * what they cost beyond that, predicted. */
enum { MT_MOE_LAYER_DECISIONS = 4, MT_MOE_DECISION_RANKS = 8 };
struct mt_moe_decision {
    int layer, expert;
    int n_copy;
    int rank[MT_MOE_DECISION_RANKS]; /* of the first copies */
    bool is_late;                    /* some were decided after the gate */
    int64_t n_row;                   /* that the copies compute */
    double saves_s, costs_s;
};
struct mt_moe_shadow {
    const char *policy;
    double predicted_s;        /* MoE layers of the step under this policy */
    double load_max_over_mean; /* rows of the busiest rank over the mean, as rank_max_over_mean */
};
/* What placement does and is expected to bring; predictions are of the MoE layers of a step. */
struct mt_moe_outlook {
    /* the last micro-batch's, times their number; where copies stay, the sum over all */
    double predicted_s, ideal_s;
    int64_t n_copy, n_late; /* of the last micro-batch, all layers */
    int n_decision;         /* the largest of each layer */
    const struct mt_moe_decision *decision;
    int n_shadow; /* 0 unless placement.shadow */
    const struct mt_moe_shadow *shadow;
};

/* Statistics of the step, the same on every rank. Collective. Also records history and the counts
 * that window = "lagged" uses next. Averages over MoE layers. */
struct mt_moe_stats {
    double balance_loss, z_loss;      /* mean over layers, without coefficient */
    double load_max_over_mean;        /* experts, mean over layers */
    double *load_max_over_mean_layer; /* [number of MoE layers], owned by moe */
    int n_moe_layer;
    /* Rows of the busiest rank over the mean, both summed over layers and micro-batches: ranks meet
     * in every one of them, so the busiest of each counts. */
    double rank_max_over_mean;
    int64_t n_move; /* experts that changed owners before the step */
    struct mt_moe_outlook outlook;
    const int64_t *count; /* [L,E] rows per expert of the step, owned by moe */
    int64_t n_dead;       /* (layer, expert) pairs without a token */
    double dropped_fraction;
};
enum mt_status mt_moe_finish_step(struct mt_moe *moe, struct mt_moe_stats *stats);

/* State that a checkpoint must keep: "balance_count" [L,E], "load_history" [L,window,E] with its
 * "load_history_steps" [1], "recent_load" with "recent_load_steps" alike per micro-batch,
 * "expert_owner" [1 + L*E], "expert_placement" and, in shadow mode, "shadow_policies". Pointers
 * into moe, valid while it lives; *n_array at most 8. mt_moe_write_state makes them current before
 * saving. After loading has written through them, mt_moe_read_state takes them over: owners move to
 * where they were when the number of ranks is the same and experts are not cut (collective, before
 * mt_store_publish). */
void mt_moe_state(struct mt_moe *moe, struct mt_state_array *array, int *n_array);
void mt_moe_write_state(struct mt_moe *moe);
enum mt_status mt_moe_read_state(struct mt_moe *moe);

#endif
