/* The Mixture-of-Experts layer: gate, exchange, experts, combine - and the balance losses.
 *
 * One mt_moe serves all MoE layers of a run: buffers, placements of the step, statistics. Forward
 * of a layer (moe/layer.c reads like this):
 *
 *   begin SparseAllGather of copies        store/
 *   gate: softmax, top-k, counts           kernel/
 *   all-gather of counts [R,E]             every rank now knows everything that follows
 *   split rows over instances              placement/
 *   dispatch rows to their instances       comm/
 *   end SparseAllGather; experts           kernel/
 *   combine rows at their source           comm/
 *
 * and backward mirrors it. Routing is saved, never recomputed. */
#ifndef MT_MOE_MOE_H
#define MT_MOE_MOE_H

#include "base/memory.h"
#include "comm/comm.h"
#include "config/config.h"
#include "kernel/kernel.h"
#include "placement/placement.h"
#include "store/store.h"

struct mt_moe;
struct mt_route;

/* One array of run state, the same on every rank; checkpoint/ copies it in and out. */
struct mt_moe_state_array {
    const char *name;
    int64_t *values;
    int64_t n;
};

/* Tensors of one MoE layer, as rows of the store's table (-1: not there). */
struct mt_moe_tensors {
    int router;
    int shared_gate, shared_up, shared_down;
};

struct mt_moe_options {
    const struct mt_config *config;
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    const struct mt_moe_tensors *tensors; /* [L], of MoE layers; copied */
    int64_t max_token;                    /* largest N of a micro-batch of this rank */
    int64_t max_token_any;                /* largest N of any rank */
    int n_slot;                           /* the store's: copies beyond the owned experts */
    bool training;
};

enum mt_status mt_moe_create(const struct mt_moe_options *options, struct mt_moe **out);
void mt_moe_destroy(struct mt_moe *moe); /* NULL allowed */

/* What plans are made from from now on; zeros before. The same on every rank. */
void mt_moe_set_costs(struct mt_moe *moe, const struct mt_costs *costs);

/* The owner maps [L] that the store is created with (rows of dense layers unused): made from the
 * configuration and R alone. Caller's array of n_layer placements, each cleared by the caller. */
enum mt_status mt_moe_ownership(const struct mt_config *config, int n_rank,
                                struct mt_placement *placement);

/* Bytes that one layer's forward and backward cut from the activation arena at most: all rows of
 * all ranks on this one. Backward releases its own part. The arena is reserved, not touched, for it
 * (base/memory.h). */
int64_t mt_moe_saved_bytes_max(const struct mt_moe *moe);

/* ---- a step ---- */

/* Plans the placement of every layer from the load history and zeroes the step's statistics. */
enum mt_status mt_moe_plan_step(struct mt_moe *moe);

/* What one layer's forward keeps for its backward; memory in the activation arena. */
struct mt_moe_saved {
    int64_t n;                      /* N of the micro-batch */
    const float *x;                 /* [N,D] the layer's input, kept by the caller */
    int32_t *expert;                /* [N,K] */
    float *weight;                  /* [N,K] */
    float *probability;             /* [N,E] */
    float *lse;                     /* [N] */
    float *d_weight;                /* [N,K] filled in backward */
    struct mt_route *route;         /* who sends what where (moe/route.h) */
    float *rows;                    /* [S,D] rows that came here, by instance */
    float *row_weight;              /* [S] */
    float *gate, *up;               /* [S,F] */
    float *shared_gate, *shared_up; /* [N,Fs] */
};

/* out [N,D] = MoE(x [N,D]) including shared experts. Collective. What backward needs is cut from
 * `arena`; `saved` NULL: evaluation, the arena is left as it was. */
enum mt_status mt_moe_forward(struct mt_moe *moe, int layer, float *out, const float *x, int64_t n,
                              struct mt_arena *arena, struct mt_moe_saved *saved);

/* window = "exact" with several micro-batches needs the counts of all of them before the first
 * backward: a counting pass runs evaluation forwards of every micro-batch. While counting is on,
 * forward adds its counts to the window and to no other statistics; while it is off in such a step,
 * the window is complete and forward adds to the statistics only. Evaluation forwards outside both
 * (counting off, saved NULL) add to nothing. */
void mt_moe_set_counting(struct mt_moe *moe, bool counting);

/* d_x [N,D] = gradient of the layer's input from d_out [N,D]; weight gradients are added to the
 * store's. token_share = 1 / tokens of the global batch (for balance and z-loss gradients). Once
 * per forward: gradients are written over saved activations. Collective. */
enum mt_status mt_moe_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                               const struct mt_moe_saved *saved, double token_share,
                               struct mt_arena *arena);

/* Statistics of the step, the same on every rank. Collective. Also records history and the counts
 * that window = "lagged" uses next. Averages over MoE layers. */
struct mt_moe_stats {
    double balance_loss, z_loss;      /* mean over layers, without coefficient */
    double load_max_over_mean;        /* experts, mean over layers */
    double *load_max_over_mean_layer; /* [number of MoE layers], owned by moe */
    int n_moe_layer;
    double rank_max_over_mean; /* rows computed per rank over the step, all layers */
    int64_t n_dead;            /* (layer, expert) pairs without a token */
    double dropped_fraction;
};
enum mt_status mt_moe_finish_step(struct mt_moe *moe, struct mt_moe_stats *stats);

/* State that a checkpoint must keep: "balance_count" [L,E], "load_history" [L,window,E] and
 * "load_history_steps" [1]. Pointers into moe, valid while it lives; *n_array at most 4. Loading
 * writes through them, before the next mt_moe_plan_step. */
void mt_moe_state(struct mt_moe *moe, struct mt_moe_state_array *array, int *n_array);

#endif
