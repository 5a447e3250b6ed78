/* What the files of moe/ share: the object behind mt_moe, and the stages of a layer.
 *
 * layer.c calls the stages in order; each opens its own span, and every array it needs was made by
 * mt_moe_create or is cut from the activation arena. Blocks of rows travel between two buffers:
 * `near` holds what this rank's tokens send and get back, `far` one slice of what its experts
 * receive and return. What the experts compute stands behind `near` in the same block of memory,
 * so that one array of offsets reaches rows that travelled and rows that did not. */
#ifndef MT_MOE_CONTEXT_H
#define MT_MOE_CONTEXT_H

#include "base/memory.h"
#include "base/record.h"
#include "moe/balance.h"
#include "moe/carrier.h"
#include "moe/moe.h"
#include "moe/outlook.h"
#include "moe/route.h"
#include "moe/tally.h"
#include "placement/policy.h"
#include "placement/workload.h"

/* Choices that do not come from the router (given.c). */
struct mt_given {
    enum mt_routing routing;
    int workload; /* in the table; -1: none */
    double skew;
    uint64_t seed;
    int *default_owner; /* [L,E] */
    double *weight;     /* [R,E] of the layer at hand */
    int64_t *replay;    /* [L,E] counts of the step to replay */
    struct mt_arena scratch;
};

struct mt_moe {
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    bool training;
    bool recompute; /* gate and up, of shared experts too, are computed again in backward */
    int n_layer, first_layer; /* MoE layers are first_layer .. n_layer - 1 */
    int n_rank, n_expert, top_k;
    int n_slot;                         /* copies of a layer */
    int64_t width, inner, shared_inner; /* D, F, Fs (0: no shared experts) */
    int64_t max_token;                  /* N of this rank */
    int64_t max_row;                    /* largest S: all rows of all ranks */
    int64_t slice_rows;                 /* W: rows computed at a time */
    int64_t saved_bytes_max, kept_bytes_max;
    double loss_coef, z_loss_coef;
    struct mt_gate gate;
    struct mt_moe_tensors *tensors; /* [L] */

    const struct mt_policy *policy;
    struct mt_cluster cluster;
    struct mt_arena scratch; /* of policies and splits */
    bool rematerialize, calibrate;
    int overlap;
    int64_t reshard_interval;
    struct mt_placement *planned;   /* [L] before the gate, of the last micro-batch */
    struct mt_placement *placement; /* [L] in force */
    bool *is_held;                  /* [L] copies have stayed from the micro-batch before */
    struct mt_placement stayed;     /* what they were, of the layer at hand, for predictions */
    bool has_stayed;                /* there are such, and training goes on with them */
    bool waits_for_late;            /* before any row, for studies */
    bool has_late;                  /* late copies are on their way */
    struct mt_given given;
    int *owner;         /* [L,E] wanted, when owners move */
    int64_t step;       /* 1-based */
    int n_micro, micro; /* micro-batches of the step, the current one */
    bool is_last_micro;
    int64_t n_move; /* owners that changed before this step */
    struct mt_history history, recent;
    int64_t *micro_count;              /* [L,E] of the current micro-batch */
    int64_t history_step, recent_step; /* their n_step as the checkpoint sees it */
    int64_t *owner_state;              /* [1 + L*E] R, then owners, as the checkpoint sees them */
    int64_t *place_state;              /* [1 + L*(1 + max_instance)] R, then planned */
    struct mt_balance balance;
    struct mt_tally tally;
    struct mt_outlook outlook;
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
    struct mt_carrier carrier;
    struct mt_arrivals arrivals;     /* the slice that is being computed */
    float *near;                     /* [N*K, D+1], then rows, d_row_weight */
    float *again;                    /* [N*K, D+1] rows that backward sends again */
    float *far;                      /* [W, D+1] */
    float *rows;                     /* [W,D] by instance: outputs, gradients */
    float *d_row_weight;             /* [W] */
    int64_t *row_token, *row_choice; /* [max(N*K,W)] scratch: x and weight of a row, or -1 */
    void *expert_scratch;            /* of mt_expert_*, for routed and shared experts */
};

/* given.c. Nothing is allocated when routing is learned. */
enum mt_status mt_given_init(struct mt_given *given, const struct mt_config *config, int n_rank);
void mt_given_clear(struct mt_given *given);
/* expert [n,K] of this rank's tokens in the step and micro-batch at hand. */
void mt_moe_give_choices(struct mt_moe *moe, int layer, int64_t n, int32_t *expert);

/* gate.c: saved's gate arrays, count and global_count from x. is_kept: backward follows, so that
 * balance and tally count it. Collective. */
enum mt_status mt_moe_gate_forward(struct mt_moe *moe, int layer, const float *x,
                                   struct mt_arena *arena, struct mt_moe_saved *saved,
                                   bool is_kept);
/* Adds the router's part to d_x [N,D] and to its weight's gradient, from saved->d_weight. */
enum mt_status mt_moe_gate_backward(struct mt_moe *moe, int layer, float *d_x,
                                    const struct mt_moe_saved *saved, double token_share);

/* placing.c: the moments of the policy (its head has the picture). mt_moe_prefetch,
 * _prefetch_backward and _end_reduce are public. */
void mt_moe_correct(struct mt_moe *moe, int layer);
enum mt_status mt_moe_end_late(struct mt_moe *moe, int layer); /* late copies are here */
enum mt_status mt_moe_end_forward(struct mt_moe *moe, int layer, bool is_kept);
enum mt_status mt_moe_begin_reduce(struct mt_moe *moe, int layer);

/* plan_check.c: MT_ERR_INTERNAL on all ranks when they have planned `layer` (placement and quota)
 * in different ways. Collective; called in debug builds (MT_CHECK_PLANS) after every split. */
enum mt_status mt_moe_check_plan(struct mt_moe *moe, int layer);

/* dispatch.c: saved->route from count and the layer's placement; saved->rows are cut for the first
 * slice. */
enum mt_status mt_moe_route(struct mt_moe *moe, int layer, struct mt_arena *arena,
                            struct mt_moe_saved *saved, bool is_kept);
struct mt_moe_rows mt_moe_cut_rows(const struct mt_moe *moe, struct mt_arena *arena, int64_t n_row);
/* Cuts what recomputation does not keep: gate and up of the first slice, of shared experts too. */
void mt_moe_cut_inner(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved);
/* Rows of x [N,D] and their weights into `near` [N*K, D+1], all slices. */
void mt_moe_pack_rows(struct mt_moe *moe, float *near, const float *x,
                      const struct mt_moe_saved *saved);
/* One slice to the experts: rows->x and weight, moe->arrivals. */
enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, const struct mt_route *route, int slice,
                                     float *near);
enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, const struct mt_moe_saved *saved, int slice,
                                   const struct mt_moe_rows *rows);
/* moe->rows (weighted outputs of the slice that arrived last) back into moe->near. */
enum mt_status mt_moe_combine_slice(struct mt_moe *moe, const struct mt_route *route, int slice);
/* All slices are back: out [N,D] = or += the sum of each token's rows. */
void mt_moe_combine(struct mt_moe *moe, float *out, const struct mt_moe_saved *saved,
                    bool accumulate);
/* Its mirror: rows of d_out [N,D] into moe->near, then slice by slice to the experts: moe->rows. */
void mt_moe_pack_gradients(struct mt_moe *moe, const float *d_out,
                           const struct mt_moe_saved *saved);
enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, const struct mt_route *route,
                                             int slice);
enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, const struct mt_route *route,
                                           int slice);
/* moe->rows (gradient of the slice's inputs) and moe->d_row_weight back into moe->near. */
enum mt_status mt_moe_dispatch_backward_slice(struct mt_moe *moe, const struct mt_route *route,
                                              int slice);
/* All slices are back: d_x [N,D] = or +=, saved->d_weight. */
void mt_moe_dispatch_backward(struct mt_moe *moe, float *d_x, const struct mt_moe_saved *saved,
                              bool accumulate);

/* experts.c, on the slice of moe->arrivals: moe->rows [W,D] = weighted outputs; fills rows->gate
 * and up. Rows of late copies come last, when those are here. */
enum mt_status mt_moe_experts_forward(struct mt_moe *moe, int layer, const struct mt_route *route,
                                      const struct mt_moe_rows *rows);
/* rows->gate and up once more, for backward. */
enum mt_status mt_moe_experts_again(struct mt_moe *moe, int layer, const struct mt_route *route,
                                    const struct mt_moe_rows *rows);
/* From moe->rows = gradient of the outputs: moe->rows = gradient of the inputs, moe->d_row_weight,
 * weight gradients. Overwrites rows->gate and up. */
enum mt_status mt_moe_experts_backward(struct mt_moe *moe, int layer, const struct mt_route *route,
                                       const struct mt_moe_rows *rows);

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

#endif
