/* What the files of moe/ share: the object behind mt_moe, and the stages of a layer.
 *
 * layer.c calls the stages in order; each opens its own span, and every array it needs was made by
 * mt_moe_create or is cut from the activation arena. Blocks of rows travel between two buffers:
 * `near` holds what this rank's tokens send and get back, `far` what its experts receive and
 * return. Both are address space for the worst routing, real where it was touched. */
#ifndef MT_MOE_CONTEXT_H
#define MT_MOE_CONTEXT_H

#include "base/clock.h"
#include "base/memory.h"
#include "moe/balance.h"
#include "moe/moe.h"
#include "moe/route.h"
#include "moe/tally.h"
#include "placement/policy.h"

struct mt_moe {
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    bool training;
    bool recompute; /* gate and up, of shared experts too, are computed again in backward */
    int n_layer, first_layer; /* MoE layers are first_layer .. n_layer - 1 */
    int n_rank, n_expert, top_k, n_slot;
    int64_t width, inner, shared_inner; /* D, F, Fs (0: no shared experts) */
    int64_t max_token;                  /* N of this rank */
    int64_t max_row;                    /* largest S: all rows of all ranks */
    int64_t saved_bytes_max, kept_bytes_max;
    double loss_coef, z_loss_coef;
    struct mt_gate gate;
    struct mt_moe_tensors *tensors; /* [L] */

    const struct mt_policy *policy;
    struct mt_cluster cluster;
    struct mt_arena scratch;        /* of policies and splits */
    struct mt_placement *placement; /* [L] of this step */
    struct mt_history history;
    int64_t history_step; /* history.n_step as the checkpoint sees it */
    struct mt_balance balance;
    struct mt_tally tally;
    double *load_max_over_mean; /* [number of MoE layers] */

    /* One micro-batch and layer. */
    int64_t *count;          /* [R,E] rows of source r for expert e */
    int64_t *global_count;   /* [E] */
    int64_t *quota;          /* [R, max_instance] */
    int64_t *load;           /* [R] */
    double *probability_sum; /* [E] */
    float *logits;           /* [N,E], in backward their gradient */
    int64_t *token_offset;   /* [N,K] in floats: the token's row in an [N,D] array */
    const struct mt_weight **weight[MT_EXPERT_MATRICES]; /* [E] of the experts here */
    float **weight_grad[MT_EXPERT_MATRICES];             /* [E] */

    /* Exchange. */
    struct mt_exec *exec;
    struct mt_plan plan;
    int64_t *send_bytes, *recv_bytes; /* [R] */
    float *near;                      /* [N*K, D+1] */
    float *far;                       /* [S, D+1] */
    float *rows;                      /* [S,D] by instance: outputs, gradients */
    float *act;                       /* [max(S,F of experts; N,Fs of shared)] */
};

/* gate.c: saved's gate arrays, count and global_count from x. is_kept: backward follows, so that
 * balance and tally count it. Collective. */
enum mt_status mt_moe_gate_forward(struct mt_moe *moe, int layer, const float *x,
                                   struct mt_arena *arena, struct mt_moe_saved *saved,
                                   bool is_kept);
/* Adds the router's part to d_x [N,D] and to its weight's gradient, from saved->d_weight. */
enum mt_status mt_moe_gate_backward(struct mt_moe *moe, int layer, float *d_x,
                                    const struct mt_moe_saved *saved, double token_share);

/* dispatch.c: saved->route from count and the layer's placement; saved's rows are cut. */
void mt_moe_route(struct mt_moe *moe, int layer, struct mt_arena *arena, struct mt_moe_saved *saved,
                  bool is_kept);
/* x [N,D] and weights to the experts: saved->rows, saved->row_weight. */
enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, const float *x,
                                     const struct mt_moe_saved *saved);
enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, const struct mt_moe_saved *saved);
/* moe->rows (weighted outputs) back to their tokens: out [N,D] = or += their sum. */
enum mt_status mt_moe_combine(struct mt_moe *moe, float *out, const struct mt_moe_saved *saved,
                              bool accumulate);
/* Its mirror: d_out [N,D] to the experts, into moe->rows. */
enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, const float *d_out,
                                             const struct mt_moe_saved *saved);
enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, const struct mt_moe_saved *saved);
/* moe->rows (gradient of saved->rows) and d_row_weight [S] back: d_x [N,D] = or +=, d_weight. */
enum mt_status mt_moe_dispatch_backward(struct mt_moe *moe, float *d_x, const float *d_row_weight,
                                        const struct mt_moe_saved *saved, bool accumulate);

/* experts.c: moe->rows [S,D] = weighted outputs of saved->rows; keeps saved->gate and up. */
enum mt_status mt_moe_experts_forward(struct mt_moe *moe, int layer,
                                      const struct mt_moe_saved *saved);
/* From moe->rows = gradient of the outputs: moe->rows = gradient of the inputs, d_row_weight [S],
 * weight gradients. Overwrites saved->gate and saved->up, which recomputation fills first. */
enum mt_status mt_moe_experts_backward(struct mt_moe *moe, int layer, float *d_row_weight,
                                       const struct mt_moe_saved *saved);

/* shared.c: all shared experts as one SwiGLU of width Fs. out [N,D] =, d_x [N,D] =. Without shared
 * experts nothing happens. */
enum mt_status mt_moe_shared_forward(struct mt_moe *moe, int layer, float *out, const float *x,
                                     const struct mt_moe_saved *saved);
enum mt_status mt_moe_shared_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                                      const struct mt_moe_saved *saved);

/* Cuts [count] floats. */
static inline float *mt_moe_cut_floats(struct mt_arena *arena, int64_t count)
{
    return mt_arena_cut(arena, count * (int64_t)sizeof(float));
}

/* Cuts what recomputation does not keep: gate and up, of shared experts too. */
static inline void mt_moe_cut_inner(const struct mt_moe *moe, struct mt_arena *arena,
                                    struct mt_moe_saved *saved)
{
    saved->gate = mt_moe_cut_floats(arena, saved->route->n_row * moe->inner);
    saved->up = mt_moe_cut_floats(arena, saved->route->n_row * moe->inner);
    saved->shared_gate = mt_moe_cut_floats(arena, saved->n * moe->shared_inner);
    saved->shared_up = mt_moe_cut_floats(arena, saved->n * moe->shared_inner);
}

#endif
