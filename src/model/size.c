/* Counting: parameters, FLOPs per token, bytes of activations. */
#include "base/size.h"
#include "model/internal.h"

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
    const int64_t shared =
        3 * width * mt_config_shared_width(config) + (config->moe.shared_gate ? width : 0);
    const int64_t head = config->model.vocab_size * width;
    int64_t vectors = 2 * width + (config->model.attention_bias ? q_width + 2 * kv_width : 0);
    if (config->model.qk_norm == MT_QK_NORM_HEAD) {
        vectors += 2 * head_dim;
    } else if (config->model.qk_norm == MT_QK_NORM_PROJECTION) {
        vectors += q_width + kv_width;
    }
    const int64_t outside = n_layer * attention + n_dense * dense_ffn + n_moe * (router + shared);
    const int64_t embed = config->model.tie_word_embeddings ? 0 : head;
    /* looked up, or used elementwise */
    const int64_t rest = embed + width + n_layer * vectors;
    size->n_product = outside + n_moe * config->moe.top_k * expert + head;
    size->n_parameter = outside + n_moe * config->moe.num_experts * expert + head + rest;
    size->n_active = size->n_product + rest;
    /* Forward scores and values: 4 T H Dh per token and layer over the full T x T; backward twice.
     */
    size->train_flops_per_score = 12.0 * (double)q_width * (double)n_layer;
    size->train_flops_per_token = 6.0 * (double)size->n_product +
                                  size->train_flops_per_score * (double)config->model.max_seq_len;
}

void mt_model_layer_floats(const struct mt_config *config, struct mt_layer_floats *floats)
{
    const int64_t width = config->model.hidden_size;
    const int64_t head_dim = config->model.head_dim;
    const int64_t q_width = config->model.num_attention_heads * head_dim;
    const int64_t kv_width = config->model.num_key_value_heads * head_dim;
    const int64_t raw = config->model.qk_norm == MT_QK_NORM_NONE ? 0 : q_width + kv_width;
    const bool keeps_attention = config->train.recompute == MT_RECOMPUTE_NONE;
    const bool keeps_ffn = config->train.recompute != MT_RECOMPUTE_LAYER;
    /* h, q and o, k and v; lse and what norms divided by. */
    const int64_t attention =
        width + 2 * q_width + 2 * kv_width + raw + 3 * config->model.num_attention_heads + 1;
    const int64_t mlp = 2 * config->model.dense_intermediate_size;
    const int64_t routed_inner = 2 * config->moe.top_k * config->moe.expert_intermediate_size;
    const int64_t shared_inner = 2 * mt_config_shared_width(config);
    const int64_t stream = 2 * width + 1; /* x, x_middle */
    *floats = (struct mt_layer_floats){
        .kept = stream + (keeps_attention ? attention : 0) + (keeps_ffn ? width : 0),
        .kept_mlp = keeps_ffn ? mlp : 0,
        .kept_inner = keeps_ffn ? routed_inner + shared_inner : 0,
        .again_attention = keeps_attention ? 0 : attention,
        .again_mlp = keeps_ffn ? 0 : mlp,
        .again_inner = keeps_ffn ? 0 : routed_inner + shared_inner,
        .shared_norm = keeps_ffn ? 0 : width,
    };
}

/* What one layer's backward, or the head, works in beside what layers keep; per token. */
static int64_t working_floats(const struct mt_config *config, const struct mt_layer_floats *layer,
                              int64_t n_token)
{
    const int64_t width = config->model.hidden_size;
    const int64_t head_dim = config->model.head_dim;
    const int64_t q_width = config->model.num_attention_heads * head_dim;
    const int64_t kv_width = config->model.num_key_value_heads * head_dim;
    const int64_t vocab = config->model.vocab_size;
    /* d_q, d_k and d_v, beside them first d_o and then d_h. */
    const int64_t attention =
        q_width + 2 * kv_width + mt_max_i64(q_width, width) + layer->again_attention;
    const int64_t act = mt_ceil_div(mt_min_i64(n_token, MT_EXPERT_PANEL_ROWS) *
                                        config->model.dense_intermediate_size,
                                    mt_max_i64(n_token, 1));
    const int64_t mlp = width + act + layer->again_mlp;
    const int64_t experts = width + layer->again_inner;
    const int64_t logits = mt_model_head_slice_rows(vocab, n_token) * vocab;
    const int64_t head = 2 * width + 1 + mt_ceil_div(logits, mt_max_i64(n_token, 1));
    const int64_t widest = mt_max_i64(mt_max_i64(attention, head), mt_max_i64(mlp, experts));
    return layer->shared_norm + 2 * width + widest; /* beside x_last and d_x */
}

/* Buffers of the exchange and of the experts, which all layers share: what experts write, what
 * travels there and back, three offsets of two floats a row. */
static int64_t exchange_floats(const struct mt_config *config, int n_rank, int64_t n_token)
{
    const int64_t row = config->model.hidden_size + 1;
    const int64_t n_row = n_token * config->moe.top_k;
    const int64_t n_travel = n_row - n_row / n_rank;
    const int64_t routed = mt_min_i64(n_row, MT_EXPERT_PANEL_ROWS);
    const int64_t shared =
        mt_min_i64(n_token, MT_EXPERT_PANEL_ROWS) * mt_config_shared_width(config);
    return n_row * (row + 6) + 2 * n_travel * row +
           mt_max_i64(routed * config->moe.expert_intermediate_size, shared) +
           n_token * config->moe.num_experts;
}

/* Of one half of a micro-batch. */
static int64_t half_bytes(const struct mt_config *config, int n_rank, int64_t n_sequence)
{
    const int64_t n_token = n_sequence * config->model.max_seq_len;
    const int64_t n_layer = config->model.num_layers;
    const int64_t n_dense = mt_min_i64(config->model.first_k_dense, n_layer);
    const int64_t n_moe = n_layer - n_dense;
    struct mt_layer_floats layer;
    mt_model_layer_floats(config, &layer);
    /* Rows that came here, where they and the tokens' own rows lie (six offsets of two floats), and
     * what the gate saves. */
    const int64_t routed = config->moe.top_k * (config->model.hidden_size + 16) +
                           config->moe.num_experts + 2 + layer.kept_inner;
    const int64_t per_token = n_layer * layer.kept + n_dense * layer.kept_mlp + n_moe * routed;
    const int64_t exchange = n_moe > 0 ? exchange_floats(config, n_rank, n_token) : 0;
    /* Attention's scratch per thread: a head's keys and values, packed and with gradients, and a
     * block's queries and scores (kernel/cpu/attention_block.h). */
    enum { HEAD_ROWS = 5, BLOCK_QUERIES = 64, BLOCK_ROWS = 3, BLOCK_SCORES = 2 * 64 * 256 };
    const int64_t rows =
        HEAD_ROWS * config->model.max_seq_len + (int64_t)BLOCK_ROWS * BLOCK_QUERIES;
    const int64_t head =
        (rows * config->model.head_dim + BLOCK_SCORES) * mt_max_i64(config->device.threads, 1);
    return (n_token * (per_token + working_floats(config, &layer, n_token)) + exchange + head) *
           (int64_t)sizeof(float);
}

int64_t mt_model_activation_bytes(const struct mt_config *config, int n_rank, int64_t n_sequence)
{
    const int64_t n_half = mt_model_n_half(config, n_rank, n_sequence); /* as if all were nodes */
    return n_half * half_bytes(config, n_rank, mt_ceil_div(n_sequence, n_half));
}

int64_t mt_model_skew_bytes(const struct mt_config *config, int64_t n_sequence)
{
    const int64_t n_half = mt_model_n_half(config, MT_MAX_HALF, n_sequence);
    const int64_t n_token = mt_round_up(n_sequence, n_half) * config->model.max_seq_len;
    const int64_t n_moe = config->model.num_layers -
                          mt_min_i64(config->model.first_k_dense, config->model.num_layers);
    const int64_t width = config->model.hidden_size;
    const int64_t inner = config->moe.expert_intermediate_size;
    const int64_t slice = mt_moe_slice_rows(n_token, config->moe.top_k);
    const int64_t own = n_token * config->moe.top_k;
    const bool keeps_inner = config->train.recompute != MT_RECOMPUTE_LAYER;
    const int64_t kept = width + 1 + (keeps_inner ? 2 * inner : 0);
    if (n_moe == 0) {
        return 0;
    }
    /* Rows kept beyond the balanced ones; the slice that is not kept; what comes in and goes out in
     * a slice, with three offsets of two floats a row; what travels to its own rank when there are
     * several slices; rows sent again. */
    const int64_t floats = n_moe * (slice - own) * kept + slice * (width + 1 + 2 * inner) +
                           (slice - own) * (2 * width + 2 + 6) + 2 * own * (width + 1) +
                           own * (width + 1);
    return floats * (int64_t)sizeof(float);
}
