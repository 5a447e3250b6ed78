/* The attention part of a layer: norm, projections with optional biases, optional qk_norm, causal
 * attention with rotary embedding, output projection. */
#include "model/internal.h"

struct shape {
    struct mt_attention attention;
    int64_t n_token, width, q_width, kv_width;
};

static struct shape shape_of(const struct mt_model *model, const struct mt_micro_batch *micro)
{
    const struct mt_config *config = model->config;
    const struct mt_attention attention = {
        .n_sequence = micro->n_sequence,
        .length = micro->length,
        .n_head = config->model.num_attention_heads,
        .n_kv_head = config->model.num_key_value_heads,
        .head_dim = config->model.head_dim,
        .n_past = micro->cache != NULL ? micro->cache->n : 0,
    };
    return (struct shape){
        .attention = attention,
        .n_token = mt_micro_n_token(micro),
        .width = config->model.hidden_size,
        .q_width = attention.n_head * attention.head_dim,
        .kv_width = attention.n_kv_head * attention.head_dim,
    };
}

static const struct mt_attention_segments *segments_of(const struct mt_micro_batch *micro)
{
    return micro->segments.n > 0 ? &micro->segments : NULL;
}

/* Rows and width that qk_norm normalises: per head, or over the projection. */
struct norm_rows {
    int64_t n, width;
};

static struct norm_rows qk_norm_rows(const struct mt_model *model, const struct shape *shape,
                                     int64_t projection_width)
{
    if (model->config->model.qk_norm == MT_QK_NORM_HEAD) {
        const int64_t head_dim = shape->attention.head_dim;
        return (struct norm_rows){shape->n_token * (projection_width / head_dim), head_dim};
    }
    return (struct norm_rows){shape->n_token, projection_width};
}

static void qk_norm_forward(struct mt_model *model, struct mt_model_half *half,
                            const struct mt_layer_tensors *tensors, struct mt_layer_saved *saved,
                            const struct shape *shape)
{
    const struct norm_rows q = qk_norm_rows(model, shape, shape->q_width);
    const struct norm_rows k = qk_norm_rows(model, shape, shape->kv_width);
    saved->q_raw = saved->q;
    saved->k_raw = saved->k;
    saved->q = mt_half_floats(half, shape->n_token * shape->q_width);
    saved->k = mt_half_floats(half, shape->n_token * shape->kv_width);
    saved->q_rstd = mt_half_floats(half, q.n);
    saved->k_rstd = mt_half_floats(half, k.n);
    mt_model_norm_forward(model, tensors->q_norm, saved->q, saved->q_rstd, saved->q_raw, q.n,
                          q.width);
    mt_model_norm_forward(model, tensors->k_norm, saved->k, saved->k_rstd, saved->k_raw, k.n,
                          k.width);
}

/* d_q, d_k become the gradients of the projections' outputs. */
static void qk_norm_backward(struct mt_model *model, const struct mt_layer_tensors *tensors,
                             const struct mt_layer_saved *saved, const struct shape *shape,
                             float *d_q, float *d_k)
{
    const struct norm_rows q = qk_norm_rows(model, shape, shape->q_width);
    const struct norm_rows k = qk_norm_rows(model, shape, shape->kv_width);
    const struct mt_rms_norm_backward q_args = {.d_x = d_q,
                                                .d_w = mt_store_grad(model->store, tensors->q_norm),
                                                .d_y = d_q,
                                                .x = saved->q_raw,
                                                .w = mt_store_value(model->store, tensors->q_norm),
                                                .rstd = saved->q_rstd};
    mt_rms_norm_backward(model->device, &q_args, q.n, q.width);
    const struct mt_rms_norm_backward k_args = {.d_x = d_k,
                                                .d_w = mt_store_grad(model->store, tensors->k_norm),
                                                .d_y = d_k,
                                                .x = saved->k_raw,
                                                .w = mt_store_value(model->store, tensors->k_norm),
                                                .rstd = saved->k_rstd};
    mt_rms_norm_backward(model->device, &k_args, k.n, k.width);
}

/* y [n, n_out] = h W^T, plus the bias if there is one (-1: not). */
static void project_one(struct mt_model *model, int weight, int bias, float *y, const float *h,
                        int64_t n)
{
    const struct mt_weight *matrix = mt_store_weight(model->store, weight);
    mt_linear_forward(model->device, y, h, matrix, n);
    if (bias >= 0) {
        mt_bias_forward(model->device, y, mt_store_value(model->store, bias), n, matrix->n_out);
    }
}

static void project(struct mt_model *model, struct mt_model_half *half,
                    const struct mt_layer_tensors *tensors, struct mt_layer_saved *saved,
                    const struct shape *shape)
{
    const int64_t n = shape->n_token;
    saved->h_attention = mt_half_floats(half, n * shape->width);
    saved->rstd_attention = mt_half_floats(half, n);
    saved->q = mt_half_floats(half, n * shape->q_width);
    saved->k = mt_half_floats(half, n * shape->kv_width);
    saved->v = mt_half_floats(half, n * shape->kv_width);
    mt_model_add_norm_forward(model, tensors->input_norm, saved->h_attention, saved->rstd_attention,
                              saved->x, saved->x_add, n);
    project_one(model, tensors->q, tensors->q_bias, saved->q, saved->h_attention, n);
    project_one(model, tensors->k, tensors->k_bias, saved->k, saved->h_attention, n);
    project_one(model, tensors->v, tensors->v_bias, saved->v, saved->h_attention, n);
    saved->q_raw = saved->k_raw = saved->q_rstd = saved->k_rstd = NULL;
    if (tensors->q_norm >= 0) {
        qk_norm_forward(model, half, tensors, saved, shape);
    }
}

/* What attention reads. */
struct keys {
    const float *k, *v;
};

/* The layer's keys and values of all tokens so far, these included. */
static struct keys join_cache(struct mt_model *model, const struct mt_model_cache *cache, int layer,
                              const struct mt_layer_saved *saved, int64_t n)
{
    if (cache == NULL) {
        return (struct keys){saved->k, saved->v};
    }
    const int64_t start = layer * cache->capacity * cache->width;
    const int64_t at = start + cache->n * cache->width;
    MT_ASSERT(cache->n + n <= cache->capacity);
    mt_rows_copy(model->device, cache->keys + at, NULL, saved->k, NULL, n, cache->width);
    mt_rows_copy(model->device, cache->values + at, NULL, saved->v, NULL, n, cache->width);
    return (struct keys){cache->keys + start, cache->values + start};
}

/* Everything that backward needs, from saved->x: in forward, and in backward when it was not kept.
 */
static enum mt_status attend(struct mt_model *model, struct mt_model_half *half, int layer,
                             struct mt_layer_saved *saved, const struct shape *shape)
{
    project(model, half, &model->tensors->layer[layer], saved, shape);
    const struct keys keys = join_cache(model, half->micro.cache, layer, saved, shape->n_token);
    MT_TRY(mt_comm_poll(model->comm));
    saved->o = mt_half_floats(half, shape->n_token * shape->q_width);
    saved->lse = mt_half_floats(half, shape->n_token * shape->attention.n_head);
    const int64_t mark = mt_arena_mark(&half->arena);
    const struct mt_rope rope = {model->cosine, model->sine};
    const struct mt_attention_forward args = {
        .o = saved->o,
        .lse = saved->lse,
        .q = saved->q,
        .k = keys.k,
        .v = keys.v,
        .scratch = mt_arena_cut(&half->arena,
                                mt_attention_scratch_bytes(model->device, &shape->attention)),
        .rope = &rope,
        .segments = segments_of(&half->micro)};
    mt_attention_forward(model->device, &args, &shape->attention);
    mt_arena_release(&half->arena, mark);
    return mt_comm_poll(model->comm);
}

enum mt_status mt_attention_layer_forward(struct mt_model *model, struct mt_model_half *half,
                                          int layer)
{
    struct mt_layer_saved *saved = &half->saved[layer];
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const struct shape shape = shape_of(model, &half->micro);
    mt_record_set_layer(layer);
    mt_span_begin(MT_PHASE_ATTENTION);
    const int64_t mark = mt_arena_mark(&half->arena);
    MT_TRY(attend(model, half, layer, saved, &shape));
    mt_linear_forward(model->device, saved->x_middle, saved->o,
                      mt_store_weight(model->store, tensors->o), shape.n_token);
    if (mt_model_recomputes_attention(model)) {
        mt_arena_release(&half->arena, mark);
    }
    mt_span_add_work(shape.n_token, 0);
    mt_span_end(MT_PHASE_ATTENTION);
    return MT_OK;
}

/* d_h (+)= d_y W of one projection y = h W^T + bias, and the bias's gradient. */
static void project_backward(struct mt_model *model, int tensor, int bias, float *d_h,
                             const float *d_y, int64_t n, bool accumulate)
{
    const struct mt_weight *weight = mt_store_weight(model->store, tensor);
    mt_linear_backward_input(model->device, d_h, d_y, weight, n, accumulate);
    if (bias >= 0) {
        mt_bias_backward(model->device, mt_store_grad(model->store, bias), d_y, n, weight->n_out);
    }
}

static void project_backward_weight(struct mt_model *model, int tensor, const float *d_y,
                                    const float *h, int64_t n)
{
    const struct mt_weight *weight = mt_store_weight(model->store, tensor);
    mt_linear_backward_weight(model->device, mt_store_grad(model->store, tensor), d_y, h,
                              weight->n_out, weight->n_in, n);
}

/* Between ranks the gradients of W_q, W_k and W_v wait until those of the layer below are on their
 * way to its experts: a quarter of this layer's backward, under which they travel. Not where
 * attention is computed again: its h would have to be held meanwhile. */
static bool leaves_rest(const struct mt_model *model, int layer)
{
    return model->comm->topology.n_rank > 1 && !mt_model_recomputes_attention(model) && layer > 0 &&
           !mt_config_is_dense_layer(model->config, layer - 1);
}

static void add_rest(struct mt_model *model, const struct mt_model_half *half, int layer,
                     const struct mt_layer_saved *saved)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const int64_t n = mt_micro_n_token(&half->micro);
    project_backward_weight(model, tensors->q, half->d_q, saved->h_attention, n);
    project_backward_weight(model, tensors->k, half->d_k, saved->h_attention, n);
    project_backward_weight(model, tensors->v, half->d_v, saved->h_attention, n);
}

/* half->d_q, d_k and d_v, from half->d_x through W_o. */
static enum mt_status attend_backward(struct mt_model *model, struct mt_model_half *half, int layer,
                                      const struct mt_layer_saved *saved, const struct shape *shape)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const int64_t n = shape->n_token;
    const int64_t mark = mt_arena_mark(&half->arena);
    float *d_o = mt_half_floats(half, n * shape->q_width);
    project_backward_weight(model, tensors->o, half->d_x, saved->o, n);
    project_backward(model, tensors->o, -1, d_o, half->d_x, n, false);
    MT_TRY(mt_comm_poll(model->comm));
    const struct mt_rope rope = {model->cosine, model->sine};
    const struct mt_attention_backward args = {
        .d_q = half->d_q,
        .d_k = half->d_k,
        .d_v = half->d_v,
        .d_o = d_o,
        .o = saved->o,
        .lse = saved->lse,
        .q = saved->q,
        .k = saved->k,
        .v = saved->v,
        .scratch = mt_arena_cut(&half->arena,
                                mt_attention_scratch_bytes(model->device, &shape->attention)),
        .rope = &rope,
        .segments = segments_of(&half->micro)};
    mt_attention_backward(model->device, &args, &shape->attention);
    mt_arena_release(&half->arena, mark);
    if (tensors->q_norm >= 0) {
        qk_norm_backward(model, tensors, saved, shape, half->d_q, half->d_k);
    }
    return mt_comm_poll(model->comm);
}

/* d_x += what comes through q, k, v and the norm. */
static void open_backward(struct mt_model *model, struct mt_model_half *half, int layer,
                          const struct mt_layer_saved *saved, const struct shape *shape)
{
    const struct mt_layer_tensors *tensors = &model->tensors->layer[layer];
    const int64_t n = shape->n_token;
    const int64_t mark = mt_arena_mark(&half->arena);
    float *d_h = mt_half_floats(half, n * shape->width);
    project_backward(model, tensors->q, tensors->q_bias, d_h, half->d_q, n, false);
    project_backward(model, tensors->k, tensors->k_bias, d_h, half->d_k, n, true);
    project_backward(model, tensors->v, tensors->v_bias, d_h, half->d_v, n, true);
    const struct mt_rms_norm_backward norm = {
        .d_x = half->d_x,
        .d_w = mt_store_grad(model->store, tensors->input_norm),
        .d_y = d_h,
        .x = saved->x,
        .w = mt_store_value(model->store, tensors->input_norm),
        .rstd = saved->rstd_attention,
        .accumulate = true};
    mt_rms_norm_backward(model->device, &norm, n, shape->width);
    mt_arena_release(&half->arena, mark);
}

enum mt_status mt_attention_layer_backward(struct mt_model *model, struct mt_model_half *half,
                                           int layer)
{
    const struct shape shape = shape_of(model, &half->micro);
    const int64_t n = shape.n_token;
    mt_record_set_layer(layer);
    mt_span_begin(MT_PHASE_ATTENTION_BACKWARD);
    struct mt_layer_saved saved = half->saved[layer];
    saved.x_add = NULL; /* forward has added it */
    half->d_q = mt_half_floats(half, n * shape.q_width);
    half->d_k = mt_half_floats(half, n * shape.kv_width);
    half->d_v = mt_half_floats(half, n * shape.kv_width);
    if (mt_model_recomputes_attention(model)) {
        MT_TRY(attend(model, half, layer, &saved, &shape));
    }
    MT_TRY(attend_backward(model, half, layer, &saved, &shape));
    open_backward(model, half, layer, &saved, &shape);
    if (!leaves_rest(model, layer)) {
        add_rest(model, half, layer, &saved);
        mt_arena_release(&half->arena, half->mark);
    }
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_ATTENTION_BACKWARD);
    return MT_OK;
}

enum mt_status mt_attention_layer_backward_rest(struct mt_model *model, struct mt_model_half *half,
                                                int layer)
{
    if (!leaves_rest(model, layer)) {
        return MT_OK;
    }
    mt_record_set_layer(layer);
    mt_span_begin(MT_PHASE_ATTENTION_BACKWARD);
    add_rest(model, half, layer, &half->saved[layer]);
    mt_span_end(MT_PHASE_ATTENTION_BACKWARD);
    return mt_comm_poll(model->comm);
}
