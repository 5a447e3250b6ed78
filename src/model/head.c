/* The head: final norm, logits and cross-entropy in slices of rows, so that logits [N,V] never
 * exist as a whole. */
#include "base/size.h"
#include "device/memory.h"
#include "model/internal.h"

struct slice {
    const float *hidden;
    const int32_t *target; /* host */
    float *d_hidden;       /* NULL: no gradients */
    int64_t n;
};

/* One slice of rows: logits, *loss (dev), and with `d_hidden` their gradients. */
static void slice_loss(struct mt_model *model, const struct slice *slice, float *logits,
                       double *loss, float scale)
{
    const int head = model->tensors->head;
    const int64_t n = slice->n;
    const struct mt_weight *weight = mt_store_weight(model->store, head);
    mt_linear_forward(model->device, logits, slice->hidden, weight, n);
    mt_cross_entropy(model->device, loss, logits,
                     mt_device_lend(model->device, slice->target, n * (int64_t)sizeof(int32_t)), n,
                     weight->n_out, scale);
    if (slice->d_hidden != NULL) {
        mt_linear_backward_input(model->device, slice->d_hidden, logits, weight, n, false);
        mt_linear_backward_weight(model->device, mt_store_grad(model->store, head), logits,
                                  slice->hidden, weight->n_out, weight->n_in, n);
    }
}

static void norm_backward(struct mt_model *model, struct mt_model_half *half, const float *d_hidden,
                          const float *rstd, int64_t n)
{
    const struct mt_rms_norm_backward args = {
        .d_x = half->d_x,
        .d_w = mt_store_grad(model->store, model->tensors->norm),
        .d_y = d_hidden,
        .x = half->x_last,
        .w = mt_store_value(model->store, model->tensors->norm),
        .rstd = rstd};
    mt_rms_norm_backward(model->device, &args, n, model->config->model.hidden_size);
}

enum mt_status mt_head_loss(struct mt_model *model, struct mt_model_half *half, bool with_gradient,
                            double *loss_sum)
{
    const struct mt_micro_batch *micro = &half->micro;
    const int64_t n = mt_micro_n_token(micro);
    const int64_t width = model->config->model.hidden_size;
    MT_TRY(mt_store_use_bucket(model->store, model->tensors->bucket_head));
    mt_record_set_layer(-1);
    mt_span_begin(MT_PHASE_HEAD);
    const int64_t mark = mt_arena_mark(&half->arena);
    float *hidden = mt_half_floats(half, n * width);
    float *rstd = mt_half_floats(half, n);
    float *d_hidden = with_gradient ? mt_half_floats(half, n * width) : NULL;
    float *logits = mt_half_floats(half, model->head_slice * model->config->model.vocab_size);
    mt_model_add_norm_forward(model, model->tensors->norm, hidden, rstd, half->x_last,
                              half->x_last_add, n);
    half->x_last_add = NULL;
    const int64_t n_slice = mt_ceil_div(n, model->head_slice);
    const int64_t loss_bytes = n_slice * (int64_t)sizeof(double);
    double *loss = mt_arena_cut(&half->arena, loss_bytes);
    const float scale = with_gradient ? (float)micro->token_share : 0.0F;
    for (int64_t i = 0; i < n_slice; ++i) {
        const int64_t row = i * model->head_slice;
        const struct slice slice = {.hidden = hidden + row * width,
                                    .target = micro->target + row,
                                    .d_hidden = with_gradient ? d_hidden + row * width : NULL,
                                    .n = mt_min_i64(model->head_slice, n - row)};
        slice_loss(model, &slice, logits, &loss[i], scale);
    }
    if (with_gradient) {
        norm_backward(model, half, d_hidden, rstd, n);
    }
    mt_device_download(model->device, model->slice_loss, loss, loss_bytes);
    MT_TRY(mt_device_wait(model->device));
    *loss_sum = 0;
    for (int64_t i = 0; i < n_slice; ++i) {
        *loss_sum += model->slice_loss[i];
    }
    mt_arena_release(&half->arena, mark);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_HEAD);
    return MT_OK;
}

enum mt_status mt_model_next_logits(struct mt_model *model, struct mt_model_cache *cache,
                                    const int32_t *token, int64_t length, float *logits)
{
    const int64_t width = model->config->model.hidden_size;
    const struct mt_micro_batch micro = {
        .n_sequence = 1, .length = length, .token = token, .cache = cache};
    struct mt_model_half *half = &model->half[0];
    MT_ASSERT(length >= 1);
    MT_TRY(mt_model_count(model, &micro)); /* leaves x_last and x_last_add */
    if (cache != NULL) {
        cache->n += length;
    }
    MT_TRY(mt_store_use_bucket(model->store, model->tensors->bucket_head));
    const int64_t mark = mt_arena_mark(&half->arena);
    float *hidden = mt_half_floats(half, width);
    float *rstd = mt_half_floats(half, 1);
    const int64_t last = (length - 1) * width;
    mt_model_add_norm_forward(model, model->tensors->norm, hidden, rstd, half->x_last + last,
                              half->x_last_add + last, 1);
    const struct mt_weight *weight = mt_store_weight(model->store, model->tensors->head);
    float *result = mt_half_floats(half, weight->n_out);
    mt_linear_forward(model->device, result, hidden, weight, 1);
    mt_device_download(model->device, logits, result, weight->n_out * (int64_t)sizeof(*logits));
    mt_arena_release(&half->arena, mark);
    return mt_device_wait(model->device);
}
