/* What moves rows and numbers: gate, rows, embedding, loss, optimizer, sums. */
#include "cuda/measure.h"

static void measure_gate(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t n_expert = b->s.n_expert;
    const int64_t n_pair = n * b->s.top_k;
    const struct mt_gate gate = {n_expert, b->s.top_k, true, 1.0F};
    const double bytes = 8.0 * (double)(n * n_expert + n_pair);
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    for (const bool is_forward : {true, false}) {
        struct mt_gate_forward forward = {};
        forward.expert = b->integers(n_pair, (int32_t)n_expert);
        forward.weight = b->values(n_pair);
        forward.probability = b->values(n * n_expert);
        forward.lse = b->values(n);
        forward.count = static_cast<int64_t *>(b->zeros(8 * n_expert));
        forward.probability_sum = static_cast<double *>(b->zeros(8 * n_expert));
        forward.lse_square_sum = static_cast<double *>(b->zeros(8));
        forward.logits = b->values(n * n_expert);
        if (is_forward) {
            b->measure("gate forward", MT_FLOAT32, bytes, 0.0,
                       [&] { mt_cuda_gate_forward(cuda, &forward, n, &gate); });
            continue;
        }
        const struct mt_gate_backward back = {b->values(n * n_expert),
                                              b->values(n_pair),
                                              forward.expert,
                                              forward.weight,
                                              forward.probability,
                                              forward.lse,
                                              b->values(n_expert),
                                              0.01F,
                                              0.001F};
        b->measure("gate backward", MT_FLOAT32, bytes, 0.0,
                   [&] { mt_cuda_gate_backward(cuda, &back, n, &gate); });
    }
}

/* Each token's row to its experts, and the sum of what they give. */
static void measure_moves(bench *b)
{
    const int64_t width = b->s.width;
    const int64_t top_k = b->s.top_k;
    const int64_t n = n_token(b->s);
    const int64_t n_pair = n * top_k;
    std::vector<int64_t> to(static_cast<size_t>(n_pair));
    std::vector<int64_t> from(static_cast<size_t>(n_pair));
    for (int64_t i = 0; i < n_pair; i++) {
        to[(size_t)i] = (i % top_k * n + i / top_k) * width; /* rows lie by choice */
        from[(size_t)i] = i / top_k * width;
    }
    const double row_bytes = 4.0 * (double)width;
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    for (const bool is_copy : {true, false}) {
        float *rows = b->values(n_pair * width);
        float *tokens = b->values(n * width);
        const int64_t *out = static_cast<int64_t *>(b->copy_of(to.data(), to.size() * 8));
        const int64_t *in = static_cast<int64_t *>(b->copy_of(from.data(), from.size() * 8));
        if (is_copy) {
            b->measure("rows copied to experts", MT_FLOAT32, row_bytes * (double)(n + n_pair), 0.0,
                       [=] { mt_cuda_rows_copy(cuda, rows, out, tokens, in, n_pair, width); });
            continue;
        }
        const struct mt_rows_combine combine = {tokens, rows, out, top_k, width, false};
        b->measure("rows combined", MT_FLOAT32, row_bytes * (double)(n + n_pair), 0.0,
                   [=] { mt_cuda_rows_combine(cuda, &combine, n); });
    }
}

static void measure_embedding(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t width = b->s.width;
    const int64_t vocab = b->s.vocab;
    const double bytes = 8.0 * (double)(n * width);
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    float *x = b->values(n * width);
    float *table = b->values(vocab * width);
    const int32_t *token = b->integers(n, (int32_t)vocab);
    b->measure("embedding forward", MT_FLOAT32, bytes, 0.0,
               [=] { mt_cuda_embedding_forward(cuda, x, token, table, n, width); });
    float *d_table = b->values(vocab * width);
    float *d_x = b->values(n * width);
    const int32_t *again = b->integers(n, (int32_t)vocab);
    b->measure("embedding backward", MT_FLOAT32, 1.5 * bytes, 0.0,
               [=] { mt_cuda_embedding_backward(cuda, d_table, again, d_x, n, width); });
}

static void measure_loss(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t vocab = b->s.vocab;
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    double *loss = static_cast<double *>(b->zeros(8));
    float *logits = b->values(n * vocab);
    const int32_t *target = b->integers(n, (int32_t)vocab);
    b->measure("cross-entropy", MT_FLOAT32, 8.0 * (double)(n * vocab), 0.0,
               [=] { mt_cuda_cross_entropy(cuda, loss, logits, target, n, vocab, 0.001F); });
}

static void measure_update(bench *b, enum mt_dtype dtype)
{
    const int64_t width = b->s.width;
    const int64_t n = width * width;
    const int n_item = b->s.is_small ? 3 : 24;
    const struct mt_adamw scalars = {1e-4, 0.9, 0.95, 1e-8, 0.1, 1.0, 7};
    struct mt_cuda *cuda = b->cuda(dtype);
    std::vector<struct mt_weight> weights;
    std::vector<struct mt_adamw_item> items;
    for (int i = 0; i < n_item; i++) {
        weights.push_back(b->weight(dtype, width, width));
    }
    for (int i = 0; i < n_item; i++) {
        items.push_back({b->values(n), b->values(n), b->values(n), b->values(n), n, true,
                         &weights[(size_t)i], 0});
    }
    const double pack_bytes = dtype == MT_BFLOAT16 ? 2.0 : 4.0;
    b->measure("optimizer with packs", dtype, (32.0 + pack_bytes) * (double)(n * n_item), 0.0,
               [&] { mt_cuda_adamw_update(cuda, items.data(), n_item, &scalars); });
}

static void measure_numbers(bench *b)
{
    const int64_t n = n_token(b->s) * b->s.width;
    const double array = 4.0 * (double)n;
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    double *sum = static_cast<double *>(b->zeros(8));
    float *x = b->values(n);
    b->measure("sum of squares", MT_FLOAT32, array, 0.0,
               [=] { mt_cuda_sum_squares(cuda, sum, x, n); });
    float *zeroed = b->values(n);
    b->measure("fill with zeros", MT_FLOAT32, array, 0.0,
               [=] { mt_cuda_fill_zero(cuda, zeroed, n); });
    float *y = b->values(n);
    float *argument = b->values(n);
    b->measure("sigmoid forward", MT_FLOAT32, 2.0 * array, 0.0,
               [=] { mt_cuda_sigmoid_forward(cuda, y, argument, n); });
    float *d_x = b->values(n);
    float *d_y = b->values(n);
    float *value = b->values(n);
    b->measure("sigmoid backward", MT_FLOAT32, 3.0 * array, 0.0,
               [=] { mt_cuda_sigmoid_backward(cuda, d_x, d_y, value, n); });
}

void measure_rows(bench *b)
{
    measure_gate(b);
    measure_moves(b);
    measure_embedding(b);
    measure_loss(b);
    measure_update(b, MT_FLOAT32);
    measure_update(b, MT_BFLOAT16);
    measure_numbers(b);
}
