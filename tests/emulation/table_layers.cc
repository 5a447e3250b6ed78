/* Biases, norms and attention of the emulated GPU, staged. */
#include "emulation/staging.h"

static void bias_forward(struct mt_device *device, float *y, const float *bias, int64_t n,
                         int64_t width)
{
    call c(device);
    mt_cuda_bias_forward(c.cuda, c.inout(y, n * width), c.in(bias, width), n, width);
    c.finish();
}

static void bias_backward(struct mt_device *device, float *d_bias, const float *d_y, int64_t n,
                          int64_t width)
{
    call c(device);
    mt_cuda_bias_backward(c.cuda, c.inout(d_bias, width), c.in(d_y, n * width), n, width);
    c.finish();
}

static void rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                             const float *w, int64_t n, int64_t width, float eps)
{
    call c(device);
    float *out = y == x ? c.inout(y, n * width) : c.out(y, n * width);
    mt_cuda_rms_norm_forward(c.cuda, out, c.out(rstd, n), c.in(x, n * width), c.in(w, width), n,
                             width, eps);
    c.finish();
}

static void add_rms_norm_forward(struct mt_device *device,
                                 const struct mt_add_rms_norm_forward *args, int64_t n,
                                 int64_t width)
{
    call c(device);
    const struct mt_add_rms_norm_forward copy = {
        c.inout(args->sum, n * width), c.out(args->y, n * width), c.out(args->rstd, n),
        c.in(args->x, n * width),      c.in(args->w, width),      args->eps};
    mt_cuda_add_rms_norm_forward(c.cuda, &copy, n, width);
    c.finish();
}

static void rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                              int64_t n, int64_t width)
{
    call c(device);
    struct mt_rms_norm_backward copy = *args;
    const bool is_read = args->accumulate || args->d_x == args->d_y;
    copy.d_x = is_read ? c.inout(args->d_x, n * width) : c.out(args->d_x, n * width);
    copy.d_w = c.inout(args->d_w, width);
    copy.d_y = c.in(args->d_y, n * width);
    copy.x = c.in(args->x, n * width);
    copy.w = c.in(args->w, width);
    copy.rstd = c.in(args->rstd, n);
    mt_cuda_rms_norm_backward(c.cuda, &copy, n, width);
    c.finish();
}

static int64_t attention_scratch_bytes(const struct mt_device *device,
                                       const struct mt_attention *shape)
{
    return mt_cuda_attention_scratch_bytes(device->dtype, shape);
}

static struct mt_rope rope_of(call *c, const struct mt_rope *rope, const struct mt_attention *shape)
{
    const int64_t n = (shape->n_past + shape->length) * (shape->head_dim / 2);
    return {rope != nullptr ? c->in(rope->cosine, n) : nullptr,
            rope != nullptr ? c->in(rope->sine, n) : nullptr};
}

static void attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                              const struct mt_attention *shape)
{
    call c(device);
    const int64_t n_token = shape->n_sequence * shape->length;
    const int64_t n_query = n_token * shape->n_head * shape->head_dim;
    const int64_t n_key = (shape->n_past + n_token) * shape->n_kv_head * shape->head_dim;
    const struct mt_rope rope = rope_of(&c, args->rope, shape);
    const struct mt_attention_forward copy = {c.out(args->o, n_query),
                                              c.out(args->lse, n_token * shape->n_head),
                                              c.in(args->q, n_query),
                                              c.in(args->k, n_key),
                                              c.in(args->v, n_key),
                                              c.scratch(attention_scratch_bytes(device, shape)),
                                              args->rope != nullptr ? &rope : nullptr,
                                              args->segments};
    mt_cuda_attention_forward(c.cuda, &copy, shape);
    c.finish();
}

static void attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                               const struct mt_attention *shape)
{
    call c(device);
    const int64_t n_token = shape->n_sequence * shape->length;
    const int64_t n_query = n_token * shape->n_head * shape->head_dim;
    const int64_t n_key = n_token * shape->n_kv_head * shape->head_dim;
    const struct mt_rope rope = rope_of(&c, args->rope, shape);
    const struct mt_attention_backward copy = {c.out(args->d_q, n_query),
                                               c.out(args->d_k, n_key),
                                               c.out(args->d_v, n_key),
                                               c.in(args->d_o, n_query),
                                               c.in(args->o, n_query),
                                               c.in(args->lse, n_token * shape->n_head),
                                               c.in(args->q, n_query),
                                               c.in(args->k, n_key),
                                               c.in(args->v, n_key),
                                               c.scratch(attention_scratch_bytes(device, shape)),
                                               args->rope != nullptr ? &rope : nullptr,
                                               args->segments};
    mt_cuda_attention_backward(c.cuda, &copy, shape);
    c.finish();
}

void emu_fill_layers(struct mt_kernel_table *table)
{
    table->bias_forward = bias_forward;
    table->bias_backward = bias_backward;
    table->rms_norm_forward = rms_norm_forward;
    table->add_rms_norm_forward = add_rms_norm_forward;
    table->rms_norm_backward = rms_norm_backward;
    table->attention_scratch_bytes = attention_scratch_bytes;
    table->attention_forward = attention_forward;
    table->attention_backward = attention_backward;
}
