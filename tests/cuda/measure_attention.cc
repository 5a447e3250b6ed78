/* Attention, norms and biases. */
#include "cuda/measure.h"

static void measure_attention_of(bench *b, enum mt_dtype dtype)
{
    const struct sizes &s = b->s;
    const struct mt_attention shape = {s.n_sequence, s.length,   s.n_head,
                                       s.n_kv_head,  s.head_dim, 0};
    const int64_t n_query = n_token(s) * s.n_head * s.head_dim;
    const int64_t n_key = n_token(s) * s.n_kv_head * s.head_dim;
    const int64_t n_row = n_token(s) * s.n_head;
    struct mt_cuda *cuda = b->cuda(dtype);
    /* Half of T x T, two products forward; backward has the scores again and four more. */
    const double product = (double)(s.length * n_query);
    const double bytes = 8.0 * (double)(n_query + n_key);
    for (const bool is_forward : {true, false}) {
        const struct mt_rope rope = {b->values(s.length * s.head_dim / 2),
                                     b->values(s.length * s.head_dim / 2)};
        const struct mt_attention_forward forward = {
            b->values(n_query),
            b->values(n_row),
            b->values(n_query),
            b->values(n_key),
            b->values(n_key),
            b->zeros(mt_cuda_attention_scratch_bytes(dtype, &shape)),
            &rope,
            nullptr};
        if (is_forward) {
            b->measure("attention forward", dtype, bytes, 2.0 * product,
                       [&] { mt_cuda_attention_forward(cuda, &forward, &shape); });
            continue;
        }
        const struct mt_attention_backward back = {b->values(n_query),
                                                   b->values(n_key),
                                                   b->values(n_key),
                                                   b->values(n_query),
                                                   forward.o,
                                                   forward.lse,
                                                   forward.q,
                                                   forward.k,
                                                   forward.v,
                                                   forward.scratch,
                                                   &rope,
                                                   nullptr};
        b->measure("attention backward", dtype, 2.0 * bytes, 5.0 * product,
                   [&] { mt_cuda_attention_backward(cuda, &back, &shape); });
    }
}

static void measure_norms(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t width = b->s.width;
    const double array = 4.0 * (double)(n * width);
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    float *y = b->values(n * width);
    float *rstd = b->values(n);
    float *x = b->values(n * width);
    float *w = b->values(width);
    b->measure("norm forward", MT_FLOAT32, 2.0 * array, 0.0,
               [=] { mt_cuda_rms_norm_forward(cuda, y, rstd, x, w, n, width, 1e-6F); });
    const struct mt_add_rms_norm_forward add = {b->values(n * width), b->values(n * width),
                                                b->values(n),         b->values(n * width),
                                                b->values(width),     1e-6F};
    b->measure("norm forward with its addition", MT_FLOAT32, 4.0 * array, 0.0,
               [=] { mt_cuda_add_rms_norm_forward(cuda, &add, n, width); });
    const struct mt_rms_norm_backward back = {b->values(n * width),
                                              b->values(width),
                                              b->values(n * width),
                                              b->values(n * width),
                                              b->values(width),
                                              b->values(n),
                                              false};
    b->measure("norm backward", MT_FLOAT32, 3.0 * array, 0.0,
               [=] { mt_cuda_rms_norm_backward(cuda, &back, n, width); });
}

static void measure_biases(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t width = b->s.width;
    const double array = 4.0 * (double)(n * width);
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    float *y = b->values(n * width);
    float *bias = b->values(width);
    b->measure("bias forward", MT_FLOAT32, 2.0 * array, 0.0,
               [=] { mt_cuda_bias_forward(cuda, y, bias, n, width); });
    float *d_y = b->values(n * width);
    float *d_bias = b->values(width);
    b->measure("bias backward", MT_FLOAT32, array, 0.0,
               [=] { mt_cuda_bias_backward(cuda, d_bias, d_y, n, width); });
}

void measure_attention(bench *b)
{
    measure_attention_of(b, MT_FLOAT32);
    measure_attention_of(b, MT_BFLOAT16);
    measure_norms(b);
    measure_biases(b);
}
