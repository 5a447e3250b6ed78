/* The model: creation, and forward and backward over its layers. */
#include "base/size.h"
#include "model/internal.h"

#include <string.h>

/* Logits of at most this many floats exist at a time: 4 MiB, so that they stay in a core's share of
 * the last-level cache. */
enum { HEAD_SLICE_FLOATS = 1 << 20, HEAD_SLICE_MIN_ROWS = 16 };

int64_t mt_model_head_slice_rows(int64_t vocab, int64_t n_token)
{
    const int64_t rows = mt_max_i64(HEAD_SLICE_FLOATS / vocab, HEAD_SLICE_MIN_ROWS);
    return mt_max_i64(1, mt_min_i64(rows, n_token));
}

/* Bytes of the arena: everything kept by all layers, plus the widest working set of one of them,
 * in which recomputation puts what it does not keep.
 * Each MoE layer is counted with all rows of all ranks; what is not touched costs nothing. */
static enum mt_status arena_bytes(const struct mt_model *model,
                                  const struct mt_model_options *options, int64_t *bytes)
{
    const struct mt_config *config = model->config;
    const int64_t n = options->max_sequence * config->model.max_seq_len;
    const int64_t q_width = config->model.num_attention_heads * config->model.head_dim;
    const int64_t n_layer = options->training ? config->model.num_layers + 1 : 1;
    const int64_t dense = config->model.dense_intermediate_size;
    const struct mt_attention attention = {
        options->max_sequence, config->model.max_seq_len, config->model.num_attention_heads,
        config->model.num_key_value_heads, config->model.head_dim};
    struct mt_layer_floats layer;
    mt_model_layer_floats(config, &layer);
    const int64_t per_token = layer.kept + layer.kept_mlp;
    /* Forwards without a backward cut what layers keep, and more: once. */
    const int64_t again =
        layer.again_attention + layer.again_mlp + config->model.hidden_size; /* h_ffn */
    const int64_t scratch_per_token = 6 * config->model.hidden_size + 4 * q_width + again;
    const int64_t dense_scratch = dense > 0 ? mt_expert_scratch_bytes(model->device, dense, n) : 0;
    enum { CUTS_PER_LAYER = 64, CUT_PADDING = 64 };
    const int64_t working = n * scratch_per_token * (int64_t)sizeof(float) +
                            mt_attention_scratch_bytes(model->device, &attention) + dense_scratch +
                            model->head_slice * config->model.vocab_size * (int64_t)sizeof(float) +
                            (int64_t)CUTS_PER_LAYER * CUT_PADDING;
    int64_t layer_bytes = 0;
    int64_t kept = 0;
    const int64_t moe = model->moe != NULL ? mt_moe_saved_bytes_max(model->moe) : 0;
    const int64_t moe_kept = model->moe != NULL ? mt_moe_kept_bytes_max(model->moe) : 0;
    if (!mt_size_multiply(n, per_token * (int64_t)sizeof(float), &layer_bytes) ||
        !mt_size_add(layer_bytes, (int64_t)CUTS_PER_LAYER * CUT_PADDING, &layer_bytes) ||
        !mt_size_add(layer_bytes, moe_kept, &layer_bytes) ||
        !mt_size_multiply(layer_bytes, n_layer, &kept) || !mt_size_add(kept, moe, &kept) ||
        !mt_size_add(kept, moe, &kept) || !mt_size_add(kept, working, bytes)) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the activations of %lld layers overflow 2^63 bytes; expected a model that "
                       "fits; lower train.micro_batch_size, model.max_seq_len or the widths",
                       (long long)config->model.num_layers);
    }
    return MT_OK;
}

static enum mt_status create_moe(struct mt_model *model, const struct mt_model_options *options)
{
    const struct mt_config *config = options->config;
    if (config->model.first_k_dense >= config->model.num_layers) {
        return MT_OK;
    }
    struct mt_moe_tensors *tensors = NULL;
    MT_TRY(MT_ALLOCATE(tensors, config->model.num_layers, "MoE tensors"));
    for (int64_t l = 0; l < config->model.num_layers; l++) {
        tensors[l] = options->tensors->layer[l].moe;
    }
    const struct mt_moe_options moe = {
        .config = config,
        .device = options->device,
        .comm = options->comm,
        .store = options->store,
        .tensors = tensors,
        .max_token = options->max_sequence * config->model.max_seq_len,
        .max_token_any = options->max_sequence_any * config->model.max_seq_len,
        .n_slot = options->n_slot,
        .training = options->training,
    };
    const enum mt_status status = mt_moe_create(&moe, &model->moe);
    mt_memory_free(tensors);
    return status;
}

static enum mt_status create(struct mt_model *model, const struct mt_model_options *options)
{
    const struct mt_config *config = options->config;
    const int64_t length = config->model.max_seq_len;
    const int64_t half = config->model.head_dim / 2;
    const int64_t n = options->max_sequence * length;
    int64_t bytes = 0;
    model->head_slice = mt_model_head_slice_rows(config->model.vocab_size, n);
    MT_TRY(MT_ALLOCATE(model->saved, config->model.num_layers, "saved activations"));
    MT_TRY(MT_ALLOCATE(model->cosine, length * half, "rotary tables"));
    MT_TRY(MT_ALLOCATE(model->sine, length * half, "rotary tables"));
    mt_rope_tables(model->cosine, model->sine, length, config->model.head_dim,
                   config->model.rope_theta);
    MT_TRY(create_moe(model, options));
    MT_TRY(arena_bytes(model, options, &bytes));
    MT_TRY(mt_arena_init(&model->arena, bytes, "activations"));
    return MT_OK;
}

enum mt_status mt_model_create(const struct mt_model_options *options, struct mt_model **out)
{
    struct mt_model *model = NULL;
    MT_TRY(MT_ALLOCATE(model, 1, "model"));
    model->config = options->config;
    model->device = options->device;
    model->comm = options->comm;
    model->store = options->store;
    model->tensors = options->tensors;
    const enum mt_status status = create(model, options);
    if (status != MT_OK) {
        mt_model_destroy(model);
        return status;
    }
    *out = model;
    return MT_OK;
}

void mt_model_destroy(struct mt_model *model)
{
    if (model == NULL) {
        return;
    }
    mt_arena_clear(&model->arena);
    mt_moe_destroy(model->moe);
    mt_memory_free(model->sine);
    mt_memory_free(model->cosine);
    mt_memory_free(model->saved);
    mt_memory_free(model);
}

struct mt_moe *mt_model_moe(struct mt_model *model)
{
    return model->moe;
}

void mt_model_norm_forward(struct mt_model *model, int tensor, float *y, float *rstd,
                           const float *x, int64_t n, int64_t width)
{
    mt_rms_norm_forward(model->device, y, rstd, x, mt_store_value(model->store, tensor), n, width,
                        (float)model->config->model.rms_norm_eps);
}

void mt_model_add_norm_forward(struct mt_model *model, int tensor, float *y, float *rstd, float *x,
                               const float *x_add, int64_t n)
{
    const int64_t width = model->config->model.hidden_size;
    if (x_add == NULL) {
        mt_model_norm_forward(model, tensor, y, rstd, x, n, width);
        return;
    }
    const struct mt_add_rms_norm_forward args = {.sum = x,
                                                 .y = y,
                                                 .rstd = rstd,
                                                 .x = x_add,
                                                 .w = mt_store_value(model->store, tensor),
                                                 .eps = (float)model->config->model.rms_norm_eps};
    mt_add_rms_norm_forward(model->device, &args, n, width);
}

/* x [N,D] in the arena = embedding of the micro-batch. */
static enum mt_status embed(struct mt_model *model, const struct mt_micro_batch *micro, float **x)
{
    const int64_t n = mt_micro_n_token(micro);
    const int64_t width = model->config->model.hidden_size;
    MT_TRY(mt_store_use_bucket(model->store, model->tensors->bucket_embed));
    mt_record_set_layer(-1);
    mt_span_begin(MT_PHASE_EMBED);
    *x = mt_model_floats(model, n * width);
    mt_embedding_forward(model->device, *x, micro->token,
                         mt_store_value(model->store, model->tensors->embed), n, width);
    mt_span_end(MT_PHASE_EMBED);
    return MT_OK;
}

static bool has_experts(const struct mt_model *model, int64_t layer)
{
    return layer >= 0 && layer < model->config->model.num_layers &&
           !mt_config_is_dense_layer(model->config, layer);
}

static void begin_micro(struct mt_model *model, const struct mt_micro_batch *micro)
{
    mt_arena_release(&model->arena, 0);
    mt_record_set_micro(micro->index);
    if (model->moe != NULL) {
        mt_moe_begin_micro(model->moe, micro->index, micro->is_last);
    }
}

/* Copies of the layer's experts travel under its attention. */
static enum mt_status begin_layer(struct mt_model *model, int layer, bool is_kept)
{
    mt_record_set_layer(layer);
    MT_TRY(mt_store_use_bucket(model->store, model->tensors->layer[layer].bucket));
    return has_experts(model, layer) ? mt_moe_prefetch(model->moe, layer, is_kept) : MT_OK;
}

/* Copies for a layer's backward travel under the attention above it, the highest ones under the
 * head. */
static enum mt_status begin_layer_backward(struct mt_model *model, int64_t layer)
{
    return has_experts(model, layer) ? mt_moe_prefetch_backward(model->moe, (int)layer) : MT_OK;
}

static enum mt_status end_layer_backward(struct mt_model *model, int layer)
{
    return has_experts(model, layer) ? mt_moe_end_reduce(model->moe, layer) : MT_OK;
}

enum mt_status mt_model_forward(struct mt_model *model, const struct mt_micro_batch *micro)
{
    const int64_t n = mt_micro_n_token(micro);
    const int64_t width = model->config->model.hidden_size;
    float *x = NULL;
    const float *x_add = NULL;
    begin_micro(model, micro);
    model->h_ffn = mt_model_recomputes_ffn(model) ? mt_model_floats(model, n * width) : NULL;
    MT_TRY(embed(model, micro, &x));
    for (int l = 0; l < (int)model->config->model.num_layers; l++) {
        struct mt_layer_saved *saved = &model->saved[l];
        saved->x = x;
        saved->x_add = x_add;
        x = mt_model_floats(model, n * width);
        saved->x_middle = mt_model_floats(model, n * width);
        MT_TRY(begin_layer(model, l, true));
        MT_TRY(mt_attention_layer_forward(model, l, saved, micro));
        MT_TRY(mt_ffn_layer_forward(model, l, x, saved, n, true));
        x_add = saved->x_middle;
    }
    model->x_last = x;
    model->x_last_add = x_add;
    return MT_OK;
}

/* A bucket's gradients start travelling once its last backward is done. */
static enum mt_status reduce_when_last(struct mt_model *model, const struct mt_micro_batch *micro,
                                       int bucket)
{
    return micro->is_last ? mt_store_reduce_bucket_begin(model->store, bucket) : MT_OK;
}

enum mt_status mt_model_head_and_loss(struct mt_model *model, const struct mt_micro_batch *micro,
                                      double *loss_sum)
{
    const int64_t width = model->config->model.hidden_size;
    model->d_x = mt_model_floats(model, mt_micro_n_token(micro) * width);
    MT_TRY(begin_layer_backward(model, model->config->model.num_layers - 1));
    MT_TRY(mt_head_loss(model, micro, true, loss_sum));
    return reduce_when_last(model, micro, model->tensors->bucket_head);
}

enum mt_status mt_model_backward(struct mt_model *model, const struct mt_micro_batch *micro)
{
    for (int l = (int)model->config->model.num_layers - 1; l >= 0; l--) {
        const struct mt_layer_saved *saved = &model->saved[l];
        MT_TRY(mt_ffn_layer_backward(model, l, saved, micro));
        MT_TRY(begin_layer_backward(model, l - 1));
        MT_TRY(mt_attention_layer_backward(model, l, saved, micro));
        MT_TRY(end_layer_backward(model, l));
        MT_TRY(reduce_when_last(model, micro, model->tensors->layer[l].bucket));
    }
    mt_record_set_layer(-1);
    mt_span_begin(MT_PHASE_EMBED_BACKWARD);
    mt_embedding_backward(model->device, mt_store_grad(model->store, model->tensors->embed),
                          micro->token, model->d_x, mt_micro_n_token(micro),
                          model->config->model.hidden_size);
    mt_span_end(MT_PHASE_EMBED_BACKWARD);
    return reduce_when_last(model, micro, model->tensors->bucket_embed);
}

enum mt_status mt_model_count(struct mt_model *model, const struct mt_micro_batch *micro)
{
    const int64_t n = mt_micro_n_token(micro);
    const int64_t width = model->config->model.hidden_size;
    float *x = NULL;
    begin_micro(model, micro);
    MT_TRY(embed(model, micro, &x));
    float *next = mt_model_floats(model, n * width);
    float *x_middle = mt_model_floats(model, n * width); /* read as x_add before it is written */
    for (int l = 0; l < (int)model->config->model.num_layers; l++) {
        struct mt_layer_saved saved = {
            .x = x, .x_add = l > 0 ? x_middle : NULL, .x_middle = x_middle};
        const int64_t mark = mt_arena_mark(&model->arena);
        MT_TRY(begin_layer(model, l, false));
        MT_TRY(mt_attention_layer_forward(model, l, &saved, micro));
        MT_TRY(mt_ffn_layer_forward(model, l, next, &saved, n, false));
        mt_arena_release(&model->arena, mark);
        float *const swap = x;
        x = next;
        next = swap;
    }
    model->x_last = x;
    model->x_last_add = x_middle;
    return MT_OK;
}

enum mt_status mt_model_evaluate(struct mt_model *model, const struct mt_micro_batch *micro,
                                 double *loss_sum)
{
    MT_TRY(mt_model_count(model, micro));
    return mt_head_loss(model, micro, false, loss_sum);
}
