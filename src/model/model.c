/* The model: creation, and forward and backward over its layers. */
#include "base/size.h"
#include "device/memory.h"
#include "model/internal.h"
#include "model/rope.h"

#include <string.h>

/* Logits of at most this many floats exist at a time: 4 MiB, so that they stay in a core's share of
 * the last-level cache. */
enum { HEAD_SLICE_FLOATS = 1 << 20, HEAD_SLICE_MIN_ROWS = 16 };

int64_t mt_model_head_slice_rows(int64_t vocab, int64_t n_token)
{
    const int64_t rows = mt_max_i64(HEAD_SLICE_FLOATS / vocab, HEAD_SLICE_MIN_ROWS);
    return mt_max_i64(1, mt_min_i64(rows, n_token));
}

int mt_model_n_half(const struct mt_config *config, int n_node, int64_t max_sequence)
{
    const bool is_wanted =
        config->comm.overlap == MT_COMM_OVERLAP_ON ||
        (config->comm.overlap == MT_COMM_OVERLAP_AUTO && n_node > 1 && max_sequence > 1);
    return is_wanted && config->model.first_k_dense < config->model.num_layers ? MT_MAX_HALF : 1;
}

/* Bytes of a half's arena: all that layers keep, plus the widest working set of one of them,
 * in which recomputation puts what it does not keep.
 * Each MoE layer is counted with all rows of all ranks; what is not touched costs nothing. */
static enum mt_status arena_bytes(const struct mt_model *model,
                                  const struct mt_model_options *options, int64_t *bytes)
{
    const struct mt_config *config = model->config;
    const int64_t n_sequence = mt_ceil_div(options->max_sequence, model->n_half);
    const int64_t n = n_sequence * config->model.max_seq_len;
    const int64_t q_width = config->model.num_attention_heads * config->model.head_dim;
    const int64_t n_layer = options->training ? config->model.num_layers + 1 : 1;
    const int64_t dense = config->model.dense_intermediate_size;
    const struct mt_attention attention = {n_sequence,
                                           config->model.max_seq_len,
                                           config->model.num_attention_heads,
                                           config->model.num_key_value_heads,
                                           config->model.head_dim,
                                           0};
    struct mt_layer_floats layer;
    mt_model_layer_floats(config, &layer);
    const int64_t per_token = layer.kept + layer.kept_mlp;
    /* Forwards without a backward cut what layers keep, and more: once. */
    const int64_t again =
        layer.again_attention + layer.again_mlp + config->model.hidden_size; /* h_ffn */
    const int64_t scratch_per_token = 6 * config->model.hidden_size + 4 * q_width + again;
    const int64_t dense_scratch = dense > 0 ? mt_expert_scratch_bytes(model->device, dense, n) : 0;
    enum { CUTS_PER_LAYER = 64, CUT_PADDING = 64 };
    const int64_t working = n * (scratch_per_token + 2) * (int64_t)sizeof(float) + /* and losses */
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
        .n_half = model->n_half,
        .max_token = mt_ceil_div(options->max_sequence, model->n_half) * config->model.max_seq_len,
        .max_token_any =
            mt_ceil_div(options->max_sequence_any, model->n_half) * config->model.max_seq_len,
        .n_slot = options->n_slot,
        .training = options->training,
    };
    const enum mt_status status = mt_moe_create(&moe, &model->moe);
    mt_memory_free(tensors);
    return status;
}

/* Made by the host, once. */
static enum mt_status create_rope(struct mt_model *model, const struct mt_config *config)
{
    const int64_t length = config->model.max_seq_len;
    const int64_t n_angle = config->model.head_dim / 2;
    const int64_t n = length * n_angle;
    const int64_t n_bytes = n * (int64_t)sizeof(float);
    struct mt_device *device = model->device;
    double *frequency = NULL;
    float *room = NULL;
    MT_TRY(MT_DEVICE_ALLOCATE(device, model->cosine, n, "rotary tables"));
    MT_TRY(MT_DEVICE_ALLOCATE(device, model->sine, n, "rotary tables"));
    MT_TRY(MT_ALLOCATE(frequency, n_angle, "rotary frequencies"));
    enum mt_status status = MT_ALLOCATE(room, 2 * n, "rotary tables");
    if (status == MT_OK) {
        float *const cosine = mt_device_room(device, model->cosine, room);
        float *const sine = mt_device_room(device, model->sine, room + n);
        mt_rope_frequencies(config, frequency);
        mt_rope_tables(cosine, sine, length, config->model.head_dim, frequency,
                       config->model.rope_magnitude);
        mt_device_upload(device, model->cosine, cosine, n_bytes);
        mt_device_upload(device, model->sine, sine, n_bytes);
    }
    mt_memory_free(room);
    mt_memory_free(frequency);
    return status;
}

/* For the operations of this room on a batch of n tokens. */
static enum mt_status reserve(struct mt_model *model, const struct mt_config *config, int64_t n)
{
    const int64_t q_width = config->model.num_attention_heads * config->model.head_dim;
    const int64_t width = mt_max_i64(config->model.hidden_size, q_width);
    MT_TRY(mt_device_reserve(model->device, n,
                             mt_max_i64(width, config->model.dense_intermediate_size)));
    return mt_device_reserve(model->device, model->head_slice,
                             mt_max_i64(width, config->model.vocab_size));
}

static enum mt_status create(struct mt_model *model, const struct mt_model_options *options)
{
    const struct mt_config *config = options->config;
    const int64_t n = options->max_sequence * config->model.max_seq_len;
    int64_t bytes = 0;
    model->n_half =
        mt_model_n_half(config, options->comm->topology.n_node, options->max_sequence_any);
    model->head_slice = mt_model_head_slice_rows(config->model.vocab_size, n);
    MT_TRY(create_rope(model, config));
    MT_TRY(reserve(model, config, n));
    MT_TRY(MT_ALLOCATE(model->slice_loss, 1 + n / model->head_slice, "losses"));
    MT_TRY(create_moe(model, options));
    MT_TRY(arena_bytes(model, options, &bytes));
    for (int h = 0; h < model->n_half; h++) {
        struct mt_model_half *half = &model->half[h];
        MT_TRY(mt_device_arena_init(model->device, &half->arena, bytes, "activations"));
        MT_TRY(MT_ALLOCATE(half->saved, config->model.num_layers, "saved activations"));
    }
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
    for (int h = 0; h < MT_MAX_HALF; h++) {
        mt_device_arena_clear(model->device, &model->half[h].arena);
        mt_memory_free(model->half[h].saved);
    }
    mt_moe_destroy(model->moe);
    mt_memory_free(model->slice_loss);
    mt_device_free(model->device, model->sine);
    mt_device_free(model->device, model->cosine);
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

/* The segments of tokens [first, end) of all; both are borders. */
static struct mt_attention_segments cut_segments(const struct mt_attention_segments *all,
                                                 int64_t first, int64_t end)
{
    struct mt_attention_segments own = {0, all->start};
    if (all->n == 0) {
        return own;
    }
    while (own.start[0] - all->start[0] < first) {
        own.start++;
    }
    while (own.start[own.n] - all->start[0] < end) {
        own.n++;
    }
    return own;
}

/* The sequences of each half; where they are odd, the first has one more. */
static void cut_micro(struct mt_model *model, const struct mt_micro_batch *micro)
{
    int64_t first = 0;
    for (int h = 0; h < model->n_half; h++) {
        const int64_t end = mt_ceil_div(micro->n_sequence * (h + 1), model->n_half);
        struct mt_micro_batch *own = &model->half[h].micro;
        *own = *micro;
        own->n_sequence = end - first;
        own->token = micro->token + first * micro->length;
        own->target = micro->target == NULL ? NULL : micro->target + first * micro->length;
        own->segments = cut_segments(&micro->segments, first * micro->length, end * micro->length);
        first = end;
    }
}

static void begin_micro(struct mt_model *model, const struct mt_micro_batch *micro)
{
    cut_micro(model, micro);
    mt_record_set_micro(micro->index);
    for (int h = 0; h < model->n_half; h++) {
        mt_arena_release(&model->half[h].arena, 0);
    }
    if (model->moe != NULL) {
        mt_moe_begin_micro(model->moe, micro->index, micro->is_last, model->n_half);
    }
}

static const int32_t *lend_tokens(struct mt_model *model, const int32_t *token, int64_t n)
{
    return mt_device_lend(model->device, token, n * (int64_t)sizeof(*token));
}

/* x [N,D] in the arena = embedding of the half. */
static enum mt_status embed(struct mt_model *model, struct mt_model_half *half, float **x)
{
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    MT_TRY(mt_store_use_bucket(model->store, model->tensors->bucket_embed));
    mt_record_set_layer(-1);
    mt_span_begin(MT_PHASE_EMBED);
    *x = mt_half_floats(half, n * width);
    mt_embedding_forward(model->device, *x, lend_tokens(model, half->micro.token, n),
                         mt_store_value(model->store, model->tensors->embed), n, width);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_EMBED);
    return MT_OK;
}

static bool has_experts(const struct mt_model *model, int64_t layer)
{
    return layer >= 0 && layer < model->config->model.num_layers &&
           !mt_config_is_dense_layer(model->config, layer);
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

/* The halves, in their order. */
static enum mt_status each_half(struct mt_model *model, int layer,
                                enum mt_status (*stage)(struct mt_model *model,
                                                        struct mt_model_half *half, int layer))
{
    enum mt_status status = MT_OK;
    for (int h = 0; h < model->n_half && status == MT_OK; h++) {
        status = stage(model, &model->half[h], layer);
    }
    return status;
}

static enum mt_status embed_half(struct mt_model *model, struct mt_model_half *half, int layer)
{
    MT_ASSERT(layer == 0);
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    half->h_ffn = mt_model_recomputes_ffn(model) ? mt_half_floats(half, n * width) : NULL;
    half->x_last_add = NULL;
    return embed(model, half, &half->x_last);
}

/* From the sums of the layer below until rows are on their way to experts. */
static enum mt_status begin_half(struct mt_model *model, struct mt_model_half *half, int layer)
{
    if (layer > 0) {
        MT_TRY(mt_ffn_layer_forward_end(model, half, layer - 1));
    }
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    struct mt_layer_saved *saved = &half->saved[layer];
    saved->x = half->x_last;
    saved->x_add = half->x_last_add;
    half->x_last = mt_half_floats(half, n * width);
    saved->x_middle = mt_half_floats(half, n * width);
    half->x_last_add = saved->x_middle;
    MT_TRY(mt_attention_layer_forward(model, half, layer));
    return mt_ffn_layer_forward_begin(model, half, layer, half->x_last, true);
}

/* Rows travel to experts under the other half's attention or experts, and back under its experts or
 * the attention of the layer above. */
enum mt_status mt_model_forward(struct mt_model *model, const struct mt_micro_batch *micro)
{
    begin_micro(model, micro);
    MT_TRY(each_half(model, 0, embed_half));
    for (int l = 0; l < (int)model->config->model.num_layers; l++) {
        MT_TRY(begin_layer(model, l, true));
        MT_TRY(each_half(model, l, begin_half));
        MT_TRY(each_half(model, l, mt_ffn_layer_forward_experts));
    }
    return MT_OK;
}

/* A bucket's gradients start travelling once its last backward is done. */
static enum mt_status reduce_when_last(struct mt_model *model, const struct mt_micro_batch *micro,
                                       int bucket)
{
    return micro->is_last ? mt_store_reduce_bucket_begin(model->store, bucket) : MT_OK;
}

/* Also begins the last layer's backward, since a half's gradients travel under the other's head. */
enum mt_status mt_model_head_and_loss(struct mt_model *model, const struct mt_micro_batch *micro,
                                      double *loss_sum)
{
    const int64_t width = model->config->model.hidden_size;
    const int last = (int)model->config->model.num_layers - 1;
    *loss_sum = 0;
    MT_TRY(begin_layer_backward(model, last));
    for (int h = 0; h < model->n_half; h++) {
        struct mt_model_half *half = &model->half[h];
        double loss = 0;
        MT_TRY(mt_ffn_layer_forward_end(model, half, last));
        half->d_x = mt_half_floats(half, mt_micro_n_token(&half->micro) * width);
        half->mark = mt_arena_mark(&half->arena);
        MT_TRY(mt_head_loss(model, half, true, &loss));
        *loss_sum += loss;
        MT_TRY(mt_ffn_layer_backward_begin(model, half, last));
    }
    return reduce_when_last(model, micro, model->tensors->bucket_head);
}

static void embed_backward(struct mt_model *model, const struct mt_model_half *half)
{
    mt_record_set_layer(-1);
    mt_span_begin(MT_PHASE_EMBED_BACKWARD);
    const int64_t n = mt_micro_n_token(&half->micro);
    mt_embedding_backward(model->device, mt_store_grad(model->store, model->tensors->embed),
                          lend_tokens(model, half->micro.token, n), half->d_x, n,
                          model->config->model.hidden_size);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_EMBED_BACKWARD);
}

/* From gradients that come back from experts until those of the layer below are on their way, and
 * what need not be done before. */
static enum mt_status end_half_backward(struct mt_model *model, struct mt_model_half *half,
                                        int layer)
{
    MT_TRY(mt_ffn_layer_backward_end(model, half, layer));
    MT_TRY(mt_attention_layer_backward(model, half, layer));
    if (layer == 0) {
        embed_backward(model, half);
        return MT_OK;
    }
    MT_TRY(mt_ffn_layer_backward_begin(model, half, layer - 1));
    return mt_attention_layer_backward_rest(model, half, layer);
}

enum mt_status mt_model_backward(struct mt_model *model, const struct mt_micro_batch *micro)
{
    for (int l = (int)model->config->model.num_layers - 1; l >= 0; l--) {
        MT_TRY(each_half(model, l, mt_ffn_layer_backward_experts));
        MT_TRY(begin_layer_backward(model, l - 1));
        MT_TRY(each_half(model, l, end_half_backward));
        MT_TRY(end_layer_backward(model, l));
        MT_TRY(reduce_when_last(model, micro, model->tensors->layer[l].bucket));
    }
    return reduce_when_last(model, micro, model->tensors->bucket_embed);
}

/* One half by itself, keeping nothing but x_last. */
static enum mt_status count_half(struct mt_model *model, struct mt_model_half *half)
{
    const int64_t n = mt_micro_n_token(&half->micro);
    const int64_t width = model->config->model.hidden_size;
    float *x = NULL;
    MT_TRY(embed(model, half, &x));
    float *next = mt_half_floats(half, n * width);
    float *x_middle = mt_half_floats(half, n * width); /* read as x_add before it is written */
    for (int l = 0; l < (int)model->config->model.num_layers; l++) {
        half->saved[l] =
            (struct mt_layer_saved){.x = x, .x_add = l > 0 ? x_middle : NULL, .x_middle = x_middle};
        const int64_t mark = mt_arena_mark(&half->arena);
        MT_TRY(begin_layer(model, l, false));
        MT_TRY(mt_attention_layer_forward(model, half, l));
        MT_TRY(mt_ffn_layer_forward_begin(model, half, l, next, false));
        MT_TRY(mt_ffn_layer_forward_experts(model, half, l));
        MT_TRY(mt_ffn_layer_forward_end(model, half, l));
        mt_arena_release(&half->arena, mark);
        float *const swap = x;
        x = next;
        next = swap;
    }
    half->x_last = x;
    half->x_last_add = x_middle;
    return MT_OK;
}

enum mt_status mt_model_count(struct mt_model *model, const struct mt_micro_batch *micro)
{
    begin_micro(model, micro);
    for (int h = 0; h < model->n_half; h++) {
        MT_TRY(count_half(model, &model->half[h]));
    }
    return MT_OK;
}

enum mt_status mt_model_evaluate(struct mt_model *model, const struct mt_micro_batch *micro,
                                 double *loss_sum)
{
    MT_TRY(mt_model_count(model, micro));
    *loss_sum = 0;
    for (int h = 0; h < model->n_half; h++) {
        double loss = 0;
        MT_TRY(mt_head_loss(model, &model->half[h], false, &loss));
        *loss_sum += loss;
    }
    return MT_OK;
}
