/* The head: final norm, logits and cross-entropy in slices of rows, so that logits [N,V] never
 * exist as a whole. */
#include "base/size.h"
#include "model/internal.h"

/* One slice of rows: logits, loss, and with `d_hidden` their gradients. */
static double slice_loss(struct mt_model *model, const float *hidden, const int32_t *target,
                         int64_t n, float *logits, float *d_hidden, float scale)
{
    const int head = model->tensors->head;
    const struct mt_weight *weight = mt_store_weight(model->store, head);
    mt_linear_forward(model->device, logits, hidden, weight, n);
    double loss = 0;
    mt_cross_entropy(model->device, &loss, logits, target, n, weight->n_out, scale);
    if (d_hidden != NULL) {
        mt_linear_backward_input(model->device, d_hidden, logits, weight, n, false);
        mt_linear_backward_weight(model->device, mt_store_grad(model->store, head), logits, hidden,
                                  weight->n_out, weight->n_in, n);
    }
    return loss;
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
    const float scale = with_gradient ? (float)micro->token_share : 0.0F;
    *loss_sum = 0;
    for (int64_t row = 0; row < n; row += model->head_slice) {
        const int64_t n_row = mt_min_i64(model->head_slice, n - row);
        *loss_sum += slice_loss(model, hidden + row * width, micro->target + row, n_row, logits,
                                with_gradient ? d_hidden + row * width : NULL, scale);
    }
    if (with_gradient) {
        norm_backward(model, half, d_hidden, rstd, n);
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
    mt_linear_forward(model->device, logits, hidden,
                      mt_store_weight(model->store, model->tensors->head), 1);
    mt_arena_release(&half->arena, mark);
    return MT_OK;
}
