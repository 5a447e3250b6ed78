/* The feed-forward part of a layer: residual and norm, Mixture of Experts or a dense SwiGLU. */
#include "model/internal.h"

/* saved->mlp_gate and saved->mlp_up, cut here: in backward when they were not kept. */
static void gate_and_up(struct mt_model *model, struct mt_model_half *half,
                        const struct mt_layer_tensors *tensors, struct mt_layer_saved *saved,
                        int64_t n)
{
    struct mt_store *store = model->store;
    const int64_t inner = model->config->model.dense_intermediate_size;
    saved->mlp_gate = mt_half_floats(half, n * inner);
    saved->mlp_up = mt_half_floats(half, n * inner);
    mt_linear_forward(model->device, saved->mlp_gate, saved->h_ffn,
                      mt_store_weight(store, tensors->mlp_gate), n);
    mt_linear_forward(model->device, saved->mlp_up, saved->h_ffn,
                      mt_store_weight(store, tensors->mlp_up), n);
}

static void *cut_scratch(struct mt_model *model, struct mt_model_half *half, int64_t n)
{
    const int64_t inner = model->config->model.dense_intermediate_size;
    return mt_arena_cut(&half->arena, mt_expert_scratch_bytes(model->device, inner, n));
}

/* The layer as one expert that sees every token. */
struct dense {
    const struct mt_weight *gate, *up, *down;
};

static struct dense dense_of(const struct mt_model *model, const struct mt_layer_tensors *tensors)
{
    return (struct dense){.gate = mt_store_weight(model->store, tensors->mlp_gate),
                          .up = mt_store_weight(model->store, tensors->mlp_up),
                          .down = mt_store_weight(model->store, tensors->mlp_down)};
}

static void dense_forward(struct mt_model *model, struct mt_model_half *half,
                          const struct mt_layer_tensors *tensors, float *out,
                          struct mt_layer_saved *saved, int64_t n)
{
    mt_span_begin(MT_PHASE_DENSE_FFN);
    const int64_t offset[2] = {0, n};
    const int64_t inner = model->config->model.dense_intermediate_size;
    const int64_t before = mt_arena_mark(&half->arena);
    saved->mlp_gate = mt_half_floats(half, n * inner);
    saved->mlp_up = mt_half_floats(half, n * inner);
    const int64_t after = mt_arena_mark(&half->arena);
    const struct dense dense = dense_of(model, tensors);
    const struct mt_expert_weights weights = {&dense.gate, &dense.up, &dense.down};
    const struct mt_expert_forward args = {.y = out,
                                           .gate = saved->mlp_gate,
                                           .up = saved->mlp_up,
                                           .x = saved->h_ffn,
                                           .scratch = cut_scratch(model, half, n)};
    mt_expert_forward(model->device, &args, &weights, (struct mt_groups){1, offset});
    mt_arena_release(&half->arena, mt_model_recomputes_ffn(model) ? before : after);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_DENSE_FFN);
}

/* d_h [N,D] = gradient of the normed input from d_x [N,D]. */
static void dense_backward(struct mt_model *model, struct mt_model_half *half,
                           const struct mt_layer_tensors *tensors, struct mt_layer_saved *saved,
                           int64_t n)
{
    mt_span_begin(MT_PHASE_DENSE_FFN_BACKWARD);
    if (mt_model_recomputes_ffn(model)) {
        gate_and_up(model, half, tensors, saved, n);
    }
    const int64_t offset[2] = {0, n};
    const struct dense dense = dense_of(model, tensors);
    const struct mt_expert_weights weights = {&dense.gate, &dense.up, &dense.down};
    float *const d_gate = mt_store_grad(model->store, tensors->mlp_gate);
    float *const d_up = mt_store_grad(model->store, tensors->mlp_up);
    float *const d_down = mt_store_grad(model->store, tensors->mlp_down);
    const struct mt_expert_backward args = {.d_x = half->d_h,
                                            .gate = saved->mlp_gate,
                                            .up = saved->mlp_up,
                                            .d_y = half->d_x,
                                            .x = saved->h_ffn,
                                            .d_gate_weight = &d_gate,
                                            .d_up_weight = &d_up,
                                            .d_down_weight = &d_down,
                                            .scratch = cut_scratch(model, half, n)};
    mt_expert_backward(model->device, &args, &weights, (struct mt_groups){1, offset});
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_DENSE_FFN_BACKWARD);
}

enum mt_status mt_ffn_layer_forward_begin(struct mt_model *model, struct mt_model_half *half,
                                          int layer, float *out, bool keep)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    const bool is_shared = keep && mt_model_recomputes_ffn(model);
    struct mt_layer_saved *saved = &half->saved[layer];
    mt_record_set_layer(layer);
    saved->h_ffn = is_shared ? half->h_ffn : mt_half_floats(half, n * width);
    saved->rstd_ffn = mt_half_floats(half, n);
    mt_model_add_norm_forward(model, tensors->post_attention_norm, saved->h_ffn, saved->rstd_ffn,
                              saved->x_middle, saved->x, n);
    if (mt_config_is_dense_layer(model->config, layer)) {
        dense_forward(model, half, tensors, out, saved, n);
        return MT_OK;
    }
    const struct mt_moe_forward args = {.out = out,
                                        .x = saved->h_ffn,
                                        .n = n,
                                        .arena = &half->arena,
                                        .saved = keep ? &saved->moe : NULL};
    return mt_moe_forward_begin(model->moe, layer, mt_half_index(model, half), &args);
}

enum mt_status mt_ffn_layer_forward_experts(struct mt_model *model, struct mt_model_half *half,
                                            int layer)
{
    mt_record_set_layer(layer);
    return mt_config_is_dense_layer(model->config, layer)
               ? MT_OK
               : mt_moe_forward_experts(model->moe, layer, mt_half_index(model, half));
}

enum mt_status mt_ffn_layer_forward_end(struct mt_model *model, struct mt_model_half *half,
                                        int layer)
{
    mt_record_set_layer(layer);
    return mt_config_is_dense_layer(model->config, layer)
               ? MT_OK
               : mt_moe_forward_end(model->moe, mt_half_index(model, half));
}

enum mt_status mt_ffn_layer_backward_begin(struct mt_model *model, struct mt_model_half *half,
                                           int layer)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    struct mt_layer_saved saved = half->saved[layer];
    mt_record_set_layer(layer);
    half->d_h = mt_half_floats(half, n * width);
    if (mt_model_recomputes_ffn(model)) {
        mt_model_norm_forward(model, tensors->post_attention_norm, saved.h_ffn, saved.rstd_ffn,
                              saved.x_middle, n, width);
    }
    if (mt_config_is_dense_layer(model->config, layer)) {
        dense_backward(model, half, tensors, &saved, n);
        return MT_OK;
    }
    const struct mt_moe_backward args = {
        .d_x = half->d_h, .d_out = half->d_x, .saved = &saved.moe, .arena = &half->arena};
    return mt_moe_backward_begin(model->moe, layer, mt_half_index(model, half), &args);
}

enum mt_status mt_ffn_layer_backward_experts(struct mt_model *model, struct mt_model_half *half,
                                             int layer)
{
    mt_record_set_layer(layer);
    return mt_config_is_dense_layer(model->config, layer)
               ? MT_OK
               : mt_moe_backward_experts(model->moe, layer, mt_half_index(model, half));
}

enum mt_status mt_ffn_layer_backward_end(struct mt_model *model, struct mt_model_half *half,
                                         int layer)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const struct mt_layer_saved *saved = &half->saved[layer];
    mt_record_set_layer(layer);
    if (!mt_config_is_dense_layer(model->config, layer)) {
        MT_TRY(mt_moe_backward_end(model->moe, layer, mt_half_index(model, half),
                                   half->micro.token_share));
    }
    const struct mt_rms_norm_backward norm = {
        .d_x = half->d_x,
        .d_w = mt_store_grad(model->store, tensors->post_attention_norm),
        .d_y = half->d_h,
        .x = saved->x_middle,
        .w = mt_store_value(model->store, tensors->post_attention_norm),
        .rstd = saved->rstd_ffn,
        .accumulate = true};
    mt_rms_norm_backward(model->device, &norm, mt_micro_n_token(&half->micro),
                         model->config->model.hidden_size);
    mt_arena_release(&half->arena, half->mark);
    return MT_OK;
}
