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
#include "moe/counts.h"
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

/* What each half of a micro-batch needs for itself, so that rows of one travel while those of the
 * other are computed. A micro-batch that is not cut is one half. */
struct mt_moe_half {
    struct mt_carrier carrier;
    struct mt_arrivals arrivals; /* the slice that is being computed */
    struct mt_arena plans;       /* host: routes, from forward to backward */
    float *near;                 /* [N*K, D+1], then rows, d_row_weight */
    float *far;                  /* [W, D+1] */
    float *rows;                 /* [W,D] by instance: outputs, gradients */
    float *d_row_weight;         /* [W] */
    /* From one stage of a layer to the next. */
    struct mt_arena *arena;
    int64_t mark, plans_mark;    /* of the arenas, before the layer cut anything */
    bool is_kept;                /* backward follows */
    float *result;               /* [N,D] out, in backward d_x */
    struct mt_moe_saved *saved;  /* the caller's, or `scratch` */
    struct mt_moe_saved scratch; /* of a forward without backward; in backward with gate and up
                                    anew, when they were not kept */
};

/* What the gates of a layer saw in the micro-batch at hand: sums over its halves. */
struct mt_moe_seen {
    int64_t *count;          /* [R,E] */
    double *probability_sum; /* [E] over own tokens */
    double lse_square_sum;
};

struct mt_moe {
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    bool training;
    bool is_shared_aside; /* a GPU's shared experts: beside counts and rows that travel */
    bool recompute;       /* gate and up, of shared experts too, are computed again in backward */
    int n_layer, first_layer; /* MoE layers are first_layer .. n_layer - 1 */
    int n_rank, n_expert, top_k;
    int n_slot;                         /* copies of a layer */
    int64_t width, inner, shared_inner; /* D, F, Fs (0: no shared experts) */
    int64_t max_token;                  /* N of a half of this rank */
    int64_t max_row;                    /* largest S: all rows of all ranks */
    int64_t slice_rows;                 /* W: rows of a half computed at a time */
    int64_t saved_bytes_max, kept_bytes_max;
    int64_t plans_bytes; /* of a half's arena of routes */
    double loss_coef, z_loss_coef;
    struct mt_gate gate;
    struct mt_moe_tensors *tensors; /* [L] */

    const struct mt_policy *policy;
    struct mt_cluster cluster;
    struct mt_arena scratch; /* of policies and splits */
    bool rematerialize, calibrate;
    enum mt_split_rule split; /* wanted: placement.split */
    int overlap;
    int64_t reshard_interval;
    struct mt_placement *planned;   /* [L] before the gate, of the last micro-batch */
    struct mt_placement *placement; /* [L] in force */
    bool *is_held;                  /* [L] copies have stayed from the micro-batch before */
    struct mt_placement stayed;     /* what they were, of the layer at hand, for predictions */
    bool has_stayed;                /* there are such, and training goes on with them */
    bool waits_for_late;            /* before any row, for studies */
    bool has_late;                  /* late copies are on their way */
    struct mt_placement first_late; /* with those that the first half asked for */
    struct mt_given given;
    int *owner;         /* [L,E] wanted, when owners move */
    int64_t step;       /* 1-based */
    int n_micro, micro; /* micro-batches of the step, the current one */
    int n_half;         /* that the current one is cut into */
    bool is_last_micro;
    int64_t n_move; /* owners that changed before this step */
    struct mt_history history, recent;
    int64_t *micro_count; /* [L,E] of the current micro-batch, all ranks */
    int64_t *own_count;   /* [L,E] of the current micro-batch, this rank */
    struct mt_moe_seen seen;
    int64_t *expected_count; /* [R,E] of a micro-batch, from the halves that have been seen */
    int64_t history_step, recent_step; /* their n_step as the checkpoint sees it */
    int64_t *owner_state;              /* [1 + L*E] R, then owners, as the checkpoint sees them */
    int64_t *place_state;              /* [1 + L*(1 + max_instance)] R, then planned */
    struct mt_balance balance;
    struct mt_tally tally;
    struct mt_outlook outlook;
    double *load_max_over_mean; /* [number of MoE layers] */

    /* One half and layer, until its route is made. */
    int64_t *count;          /* [R,E] rows of source r for expert e */
    int64_t *global_count;   /* [E] */
    int64_t *quota;          /* [R, max_instance] */
    int64_t *load;           /* [R] */
    double *probability_sum; /* [E] */
    double lse_square_sum;
    struct mt_counts counts; /* on their way to `count` */
    double *gate_sum;        /* dev [E + 1] of probabilities, then of squares */
    int32_t *choice;         /* [N,K] room for what the host sees of the device's */
    float *logits;           /* [N,E], in backward their gradient */
    int64_t *token_offset;   /* [N,K] in floats: the token's row in an [N,D] array */
    const struct mt_weight **weight[MT_EXPERT_MATRICES]; /* [E] of the experts here */
    float **weight_grad[MT_EXPERT_MATRICES];             /* [E] */

    /* Exchange. */
    struct mt_moe_half half[MT_MAX_HALF];
    float *again;                    /* [N*K, D+1] rows that backward sends again */
    int64_t *row_token, *row_choice; /* [max(N*K,W)] scratch: x and weight of a row, or -1 */
    void *expert_scratch;            /* of mt_expert_*, for routed and shared experts */
};

/* given.c. Nothing is allocated when routing is learned. */
enum mt_status mt_given_init(struct mt_given *given, const struct mt_config *config, int n_rank);
void mt_given_clear(struct mt_given *given);
/* expert [n,K] of this rank's tokens in the step, micro-batch and half at hand. */
void mt_moe_give_choices(struct mt_moe *moe, int layer, int half, int64_t n, int32_t *expert);

/* gate.c: gate arrays of half->saved from its x, and, at the end, count and global_count. When
 * backward follows, balance and tally count it. Collective. */
enum mt_status mt_moe_gate_begin(struct mt_moe *moe, int layer, struct mt_moe_half *half);
enum mt_status mt_moe_gate_end(struct mt_moe *moe, int layer, const struct mt_moe_half *half);
/* The half's choices [n,K] as the host has them after its gate. */
int32_t *mt_moe_choices(const struct mt_moe *moe, const struct mt_moe_saved *saved);
/* Adds the router's part to d_x [N,D] and to its weight's gradient, from saved->d_weight. */
enum mt_status mt_moe_gate_backward(struct mt_moe *moe, int layer, const struct mt_moe_half *half,
                                    double token_share);

/* placing.c: the moments of the policy (its head has the picture). mt_moe_prefetch,
 * _prefetch_backward and _end_reduce are public. */
enum mt_status mt_moe_correct(struct mt_moe *moe, int layer, const struct mt_moe_half *half);
enum mt_status mt_moe_end_late(struct mt_moe *moe, int layer); /* late copies are here */
enum mt_status mt_moe_end_forward(struct mt_moe *moe, int layer, bool is_kept);
enum mt_status mt_moe_begin_reduce(struct mt_moe *moe, int layer);

/* plan_check.c: MT_ERR_INTERNAL on all ranks when they have planned `layer` (placement and quota)
 * in different ways. Collective; called in debug builds (MT_CHECK_PLANS) after every split. */
enum mt_status mt_moe_check_plan(struct mt_moe *moe, int layer);

/* dispatch.c: half->saved's route from count and the layer's placement; its rows are cut for the
 * first slice. */
enum mt_status mt_moe_route(struct mt_moe *moe, int layer, struct mt_moe_half *half);
struct mt_moe_rows mt_moe_cut_rows(const struct mt_moe *moe, struct mt_arena *arena, int64_t n_row);
/* Cuts what recomputation does not keep: gate and up of the first slice; of shared experts. */
void mt_moe_cut_inner(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved);
void mt_moe_cut_shared(const struct mt_moe *moe, struct mt_arena *arena,
                       struct mt_moe_saved *saved);
/* Rows of saved->x [N,D] and their weights into `near` [N*K, D+1], all slices. */
void mt_moe_pack_rows(struct mt_moe *moe, float *near, const struct mt_moe_saved *saved);
/* One slice of `near` to the experts: rows->x and weight, half->arrivals. */
enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, struct mt_moe_half *half, int slice,
                                     float *near);
enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, struct mt_moe_half *half, int slice,
                                   const struct mt_moe_rows *rows);
/* half->rows (weighted outputs of the slice that arrived last) back into half->near. */
enum mt_status mt_moe_combine_begin(struct mt_moe *moe, struct mt_moe_half *half, int slice);
enum mt_status mt_moe_combine_end(struct mt_moe *moe, struct mt_moe_half *half);
/* All slices are back: half->result [N,D] = or += the sum of each token's rows. */
void mt_moe_combine(struct mt_moe *moe, struct mt_moe_half *half, bool accumulate);
/* Its mirror: rows of d_out [N,D] into half->near, then slice by slice to the experts: half->rows.
 */
void mt_moe_pack_gradients(struct mt_moe *moe, struct mt_moe_half *half, const float *d_out);
enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, struct mt_moe_half *half,
                                             int slice);
enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, struct mt_moe_half *half, int slice);
/* half->rows (gradient of the slice's inputs) and d_row_weight back into half->near. */
enum mt_status mt_moe_dispatch_backward_begin(struct mt_moe *moe, struct mt_moe_half *half,
                                              int slice);
enum mt_status mt_moe_dispatch_backward_end(struct mt_moe *moe, struct mt_moe_half *half);
/* All slices are back: half->result [N,D] = or +=, saved->d_weight. */
void mt_moe_dispatch_backward(struct mt_moe *moe, struct mt_moe_half *half, bool accumulate);

/* experts.c, on the slice of half->arrivals: half->rows [W,D] = weighted outputs; fills rows->gate
 * and up. Rows of late copies come last, when those are here. */
enum mt_status mt_moe_experts_forward(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                      const struct mt_moe_rows *rows);
/* rows->gate and up once more, for backward. */
enum mt_status mt_moe_experts_again(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                    const struct mt_moe_rows *rows);
/* From half->rows = gradient of the outputs: half->rows = gradient of the inputs, d_row_weight,
 * weight gradients. Overwrites rows->gate and up. */
enum mt_status mt_moe_experts_backward(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                       const struct mt_moe_rows *rows);
/* Those weight gradients that it left, while the gradient of the inputs travels. */
enum mt_status mt_moe_experts_backward_rest(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                            const struct mt_moe_rows *rows);

/* shared.c: all shared experts as one SwiGLU of width Fs. out [N,D] =, d_x [N,D] =. Without shared
 * experts nothing happens. Where moe->is_shared_aside, forward is `aside`: half->result beside what
 * follows until the routed experts; else it is `forward`, and the other of the two does nothing. */
enum mt_status mt_moe_reserve_shared(struct mt_moe *moe); /* when the layers are made */
enum mt_status mt_moe_shared_aside(struct mt_moe *moe, int layer, struct mt_moe_half *half);
void mt_moe_shared_join(struct mt_moe *moe);
enum mt_status mt_moe_shared_forward(struct mt_moe *moe, int layer, float *out,
                                     const struct mt_moe_saved *saved);
enum mt_status mt_moe_shared_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                                      const struct mt_moe_saved *saved);

static inline int mt_moe_half_index(const struct mt_moe *moe, const struct mt_moe_half *half)
{
    return (int)(half - moe->half);
}

/* Of those that share the layer's copies and statistics: without a backward, each is alone. */
static inline bool mt_moe_is_first_half(const struct mt_moe *moe, const struct mt_moe_half *half)
{
    return !half->is_kept || half == moe->half;
}

static inline bool mt_moe_is_last_half(const struct mt_moe *moe, const struct mt_moe_half *half)
{
    return !half->is_kept || mt_moe_half_index(moe, half) == moe->n_half - 1;
}

/* Cuts [count] floats. */
static inline float *mt_moe_cut_floats(struct mt_arena *arena, int64_t count)
{
    return mt_arena_cut(arena, count * (int64_t)sizeof(float));
}

#endif
