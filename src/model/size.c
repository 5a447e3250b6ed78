/* Counting: parameters, FLOPs per token, bytes of activations. */
#include "base/size.h"
#include "model/model.h"

#include <string.h>

void mt_model_size(const struct mt_config *config, struct mt_model_size *size)
{
    const int64_t width = config->model.hidden_size;
    const int64_t head_dim = config->model.head_dim;
    const int64_t q_width = config->model.num_attention_heads * head_dim;
    const int64_t kv_width = config->model.num_key_value_heads * head_dim;
    const int64_t n_layer = config->model.num_layers;
    const int64_t n_dense = mt_min_i64(config->model.first_k_dense, n_layer);
    const int64_t n_moe = n_layer - n_dense;
    const int64_t expert = 3 * width * config->moe.expert_intermediate_size;
    const int64_t attention = width * (2 * q_width + 2 * kv_width);
    const int64_t dense_ffn = 3 * width * config->model.dense_intermediate_size;
    const int64_t router = config->moe.num_experts * width;
    const int64_t head = config->model.vocab_size * width;
    int64_t norms = 2 * width;
    if (config->model.qk_norm == MT_QK_NORM_HEAD) {
        norms += 2 * head_dim;
    } else if (config->model.qk_norm == MT_QK_NORM_PROJECTION) {
        norms += q_width + kv_width;
    }
    const int64_t outside = n_layer * attention + n_dense * dense_ffn +
                            n_moe * (router + config->moe.num_shared_experts * expert);
    const int64_t embed = config->model.tie_word_embeddings ? 0 : head;
    const int64_t rest = embed + width + n_layer * norms; /* looked up, or multiplied elementwise */
    size->n_product = outside + n_moe * config->moe.top_k * expert + head;
    size->n_parameter = outside + n_moe * config->moe.num_experts * expert + head + rest;
    size->n_active = size->n_product + rest;
    /* Forward scores and values: 4 T H Dh per token and layer over the full T x T; backward twice.
     */
    size->train_flops_per_token =
        6.0 * (double)size->n_product +
        12.0 * (double)config->model.max_seq_len * (double)q_width * (double)n_layer;
}

/* Floats that a layer's forward keeps outside its feed-forward network, per token. */
static int64_t attention_floats_per_token(const struct mt_config *config)
{
    const int64_t width = config->model.hidden_size;
    const int64_t head_dim = config->model.head_dim;
    const int64_t q_width = config->model.num_attention_heads * head_dim;
    const int64_t kv_width = config->model.num_key_value_heads * head_dim;
    const int64_t raw = config->model.qk_norm == MT_QK_NORM_NONE ? 0 : q_width + kv_width;
    return 4 * width + 2 * q_width + 2 * kv_width + raw + 4 * config->model.num_attention_heads;
}

int64_t mt_model_activation_bytes(const struct mt_config *config, int64_t n_sequence)
{
    const int64_t n_token = n_sequence * config->model.max_seq_len;
    const int64_t width = config->model.hidden_size;
    const int64_t n_layer = config->model.num_layers;
    const int64_t n_dense = mt_min_i64(config->model.first_k_dense, n_layer);
    const int64_t inner = config->moe.expert_intermediate_size;
    const int64_t routed = config->moe.top_k * (width + 2 * inner + 8) + config->moe.num_experts +
                           2 * config->moe.num_shared_experts * inner;
    const int64_t per_token = n_layer * attention_floats_per_token(config) +
                              n_dense * 2 * config->model.dense_intermediate_size +
                              (n_layer - n_dense) * routed;
    /* Beside what is kept: the working buffers of one layer (exchange blocks both ways, gradients).
     */
    const int64_t working = 8 * width + config->moe.top_k * (4 * width + 3 * inner);
    return n_token * (per_token + working) * (int64_t)sizeof(float);
}
