/* The model: a decoder-only transformer whose feed-forward layers are Mixtures of Experts.
 *
 *   x = embed(token)
 *   each layer:  x += attention(norm(x));  x += ffn(norm(x))      ffn: MoE, or dense in the first
 *   loss = cross-entropy(norm(x) head^T)                          first_k_dense layers
 *
 * Forward and backward of one micro-batch; parameters, gradients and their movement are the
 * store's. All activations live in one arena, planned at creation. */
#ifndef MT_MODEL_MODEL_H
#define MT_MODEL_MODEL_H

#include "config/config.h"
#include "kernel/kernel.h"
#include "moe/moe.h"
#include "store/store.h"

struct mt_model;

/* ---- tensors: one table (model/tensors.c) ---- */

/* Rows of the table that one layer uses; -1: not there. */
struct mt_layer_tensors {
    int input_norm, q, k, v, o, q_bias, k_bias, v_bias, q_norm, k_norm, post_attention_norm;
    int mlp_gate, mlp_up, mlp_down; /* dense layers */
    struct mt_moe_tensors moe;
    int bucket; /* of this layer's dense tensors */
};
struct mt_model_tensors {
    struct mt_tensor_table table;
    int embed, norm, head; /* head = embed when tied */
    int bucket_embed, bucket_head;
    struct mt_layer_tensors *layer; /* [L] */
};
enum mt_status mt_model_tensors_init(struct mt_model_tensors *tensors,
                                     const struct mt_config *config);
void mt_model_tensors_clear(struct mt_model_tensors *tensors);

/* Parameters of the whole model; those a token multiplies with (active experts only, embedding
 * lookup not); FLOPs of training one token of a full-length sequence: 6 x those plus attention
 * scores over the full T x T. */
struct mt_model_size {
    int64_t n_parameter, n_active, n_product;
    double train_flops_per_token; /* scores of a token and all T of its sequence */
    double train_flops_per_score; /* of which so many a pair of tokens */
};
void mt_model_size(const struct mt_config *config, struct mt_model_size *size);

/* ---- running it ---- */

struct mt_model_options {
    const struct mt_config *config;
    struct mt_device *device;
    struct mt_comm *comm;
    struct mt_store *store;
    const struct mt_model_tensors *tensors;
    int64_t max_sequence;     /* largest B of this rank */
    int64_t max_sequence_any; /* largest B of any rank */
    int n_slot;               /* copies of a layer's experts: mt_moe_slots */
    bool training;
};
enum mt_status mt_model_create(const struct mt_model_options *options, struct mt_model **out);
void mt_model_destroy(struct mt_model *model);       /* NULL allowed */
struct mt_moe *mt_model_moe(struct mt_model *model); /* NULL: all layers are dense */

/* Keys and values of a sequence's tokens so far, so that generation computes only what is new: one
 * allocation, as large as the longest sequence needs. */
struct mt_model_cache {
    struct mt_device *device;
    int64_t n, capacity;  /* tokens; capacity = max_seq_len. n = 0: another sequence begins */
    int64_t width;        /* Hk Dh */
    float *keys, *values; /* dev [L, capacity, Hk, Dh] as attention reads them, not rotated */
};
/* MT_ERR_RESOURCE when they overflow. */
enum mt_status mt_model_cache_bytes(const struct mt_config *config, int64_t *bytes);
enum mt_status mt_model_cache_init(struct mt_model_cache *cache, struct mt_device *device,
                                   const struct mt_config *config);
void mt_model_cache_clear(struct mt_model_cache *cache);

/* One micro-batch of this rank; n_sequence may be 0, length is the same on all ranks. */
struct mt_micro_batch {
    int64_t n_sequence, length;
    const int32_t *token, *target;         /* [B,T] */
    struct mt_attention_segments segments; /* that attention keeps to; n 0: each sequence is one */
    double token_share;                    /* 1 / tokens of the global batch */
    int index;                             /* of the step; 0 in evaluations */
    bool is_last;                 /* of the step: dense reductions start under its backward */
    struct mt_model_cache *cache; /* of the one sequence, whose next tokens these are; or NULL */
};

/* Forward through all layers, keeping what backward needs. Collective. */
enum mt_status mt_model_forward(struct mt_model *model, const struct mt_micro_batch *micro);
/* Loss and its gradient with respect to the last layer's output; *loss_sum: sum over this rank's
 * tokens, nats. After forward. */
enum mt_status mt_model_head_and_loss(struct mt_model *model, const struct mt_micro_batch *micro,
                                      double *loss_sum);
/* Backward through all layers; gradients are added to the store's. Collective. */
enum mt_status mt_model_backward(struct mt_model *model, const struct mt_micro_batch *micro);

/* Forward without keeping anything: counts of experts for window = "exact". Collective. */
enum mt_status mt_model_count(struct mt_model *model, const struct mt_micro_batch *micro);
/* Loss without gradients: sum over this rank's tokens. Collective. */
enum mt_status mt_model_evaluate(struct mt_model *model, const struct mt_micro_batch *micro,
                                 double *loss_sum);
/* Logits [V] after the last of `length` >= 1 tokens of one sequence: all of them without a cache,
 * else those behind the tokens in the cache, which they then join. Collective. */
enum mt_status mt_model_next_logits(struct mt_model *model, struct mt_model_cache *cache,
                                    const int32_t *token, int64_t length, float *logits);

/* Halves that micro-batches are cut into, whose exchanges and computation overlap: comm.overlap on
 * so many nodes, for micro-batches of at most max_sequence sequences on any rank. */
int mt_model_n_half(const struct mt_config *config, int n_node, int64_t max_sequence);

/* Bytes of activations that a run under balanced load touches on a rank, which then computes as
 * many rows as it has; all but one of n_rank travel. n_sequence: B. */
int64_t mt_model_activation_bytes(const struct mt_config *config, int n_rank, int64_t n_sequence);
/* What any other routing can add to it on the busiest rank: rows of experts come in slices. */
int64_t mt_model_skew_bytes(const struct mt_config *config, int64_t n_sequence);

#endif
