/* What the files of model/ share: the model, and what a layer's forward keeps. */
#ifndef MT_MODEL_INTERNAL_H
#define MT_MODEL_INTERNAL_H

#include "base/memory.h"
#include "base/record.h"
#include "model/model.h"

/* Kept from a layer's forward for its backward; all cut from the activation arena. With
 * train.recompute, what attention computes from x (and with "layer", h_ffn and what the
 * feed-forward network computes from it) is not kept: backward computes it again, by the same
 * operations on the same values, so with the same bits. */
struct mt_layer_saved {
    float *x;              /* [N,D] the layer's input; until its norm has run without x_add */
    const float *x_add;    /* [N,D] x_middle of the layer below; NULL: nothing is missing in x */
    float *h_attention;    /* [N,D] normed input of attention */
    float *rstd_attention; /* [N] */
    float *q, *k, *v;      /* [N,H,Dh], [N,Hk,Dh]: as attention reads them, not rotated */
    float *q_raw, *k_raw;  /* before qk_norm; NULL without */
    float *q_rstd, *k_rstd;
    float *o;                 /* [N,H,Dh] */
    float *lse;               /* [B,H,T] */
    float *x_middle;          /* [N,D] after attention; until h_ffn is made without x */
    float *h_ffn;             /* [N,D] normed input of the feed-forward network */
    float *rstd_ffn;          /* [N] */
    float *mlp_gate, *mlp_up; /* [N,Fd] of a dense layer */
    struct mt_moe_saved moe;
};

/* What each half of a micro-batch has for itself; one that is not cut is the first half. */
struct mt_model_half {
    struct mt_micro_batch micro; /* its sequences */
    struct mt_arena arena;
    struct mt_layer_saved *saved; /* [L] */
    float *x_last;                /* [N,D] output of the last layer, in the arena */
    const float *x_last_add;      /* [N,D] what x_last still lacks; NULL: nothing */
    float *d_x;                   /* [N,D] running gradient of the residual stream */
    float *h_ffn;                 /* [N,D] every layer's saved.h_ffn with "layer"; else NULL */
    /* In backward, from one stage of a layer to the next. */
    int64_t mark;           /* of the arena, where backward begins: each layer returns to it */
    float *d_h;             /* [N,D] gradient of the feed-forward network's normed input */
    float *d_q, *d_k, *d_v; /* gradients of the projections, until those of their weights */
};

struct mt_model {
    const struct mt_config *config;
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    const struct mt_model_tensors *tensors;
    struct mt_moe *moe;   /* NULL: all layers are dense */
    float *cosine, *sine; /* dev [max_seq_len, Dh/2] */
    int n_half;           /* that micro-batches are cut into */
    struct mt_model_half half[MT_MAX_HALF];
    int64_t head_slice; /* rows of logits that exist at a time */
    double *slice_loss; /* [slices of a half] what the host sees of them */
};

static inline bool mt_model_recomputes_attention(const struct mt_model *model)
{
    return model->config->train.recompute != MT_RECOMPUTE_NONE;
}

static inline bool mt_model_recomputes_ffn(const struct mt_model *model)
{
    return model->config->train.recompute == MT_RECOMPUTE_LAYER;
}

/* Arena cuts in floats. */
static inline float *mt_half_floats(struct mt_model_half *half, int64_t n)
{
    return (float *)mt_arena_cut(&half->arena, n * (int64_t)sizeof(float));
}

static inline int mt_half_index(const struct mt_model *model, const struct mt_model_half *half)
{
    return (int)(half - model->half);
}

static inline int64_t mt_micro_n_token(const struct mt_micro_batch *micro)
{
    return micro->n_sequence * micro->length;
}

/* size.c: floats that one layer needs per token for its backward. kept: for as long as all layers
 * are on their way; again: computed anew in the backward of one layer, so there once. inner: gate
 * and up of experts under balanced load, shared ones too; mlp: of a dense layer; shared_norm: the
 * buffer h_ffn. kept is without both. */
struct mt_layer_floats {
    int64_t kept, kept_mlp, kept_inner;
    int64_t again_attention, again_mlp, again_inner, shared_norm;
};
void mt_model_layer_floats(const struct mt_config *config, struct mt_layer_floats *floats);
/* Rows of logits that exist at a time. */
int64_t mt_model_head_slice_rows(int64_t vocab, int64_t n_token);

/* The residual stream is added where the next norm reads it: attention and feed-forward network
 * write their own results, and norms take the sum of two arrays in the same pass.
 *
 * attention.c, of half->saved[layer]: completes x; x_middle [N,D] = attention(norm(x)), which may
 * be x_add. Backward: d_x becomes the gradient of x; `rest` is for the gradients of weights that
 * it left, while d_x travels to the experts below. */
enum mt_status mt_attention_layer_forward(struct mt_model *model, struct mt_model_half *half,
                                          int layer);
enum mt_status mt_attention_layer_backward(struct mt_model *model, struct mt_model_half *half,
                                           int layer);
enum mt_status mt_attention_layer_backward_rest(struct mt_model *model, struct mt_model_half *half,
                                                int layer);

/* ffn.c, in the stages of moe.h; a dense layer computes in `begin`. x_middle += x; out [N,D] =
 * ffn(norm(x_middle)), so that x_middle is out's x_add. `keep`: backward follows. Backward: d_x
 * becomes the gradient of x_middle. */
enum mt_status mt_ffn_layer_forward_begin(struct mt_model *model, struct mt_model_half *half,
                                          int layer, float *out, bool keep);
enum mt_status mt_ffn_layer_forward_experts(struct mt_model *model, struct mt_model_half *half,
                                            int layer);
enum mt_status mt_ffn_layer_forward_end(struct mt_model *model, struct mt_model_half *half,
                                        int layer);
enum mt_status mt_ffn_layer_backward_begin(struct mt_model *model, struct mt_model_half *half,
                                           int layer);
enum mt_status mt_ffn_layer_backward_experts(struct mt_model *model, struct mt_model_half *half,
                                             int layer);
enum mt_status mt_ffn_layer_backward_end(struct mt_model *model, struct mt_model_half *half,
                                         int layer);

/* head.c: loss over x_last in slices; with_gradient: half->d_x [N,D] and weight gradients. */
enum mt_status mt_head_loss(struct mt_model *model, struct mt_model_half *half, bool with_gradient,
                            double *loss_sum);

/* RMSNorm with this model's eps: a tensor of the table over rows [n, width]. */
void mt_model_norm_forward(struct mt_model *model, int tensor, float *y, float *rstd,
                           const float *x, int64_t n, int64_t width);
/* The same of x [n,D] += x_add [n,D]; x_add NULL: of x. */
void mt_model_add_norm_forward(struct mt_model *model, int tensor, float *y, float *rstd, float *x,
                               const float *x_add, int64_t n);

#endif
