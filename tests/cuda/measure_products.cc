/* Matrix products: linear, packs, experts, router. */
#include "cuda/measure.h"

#include <cstdio>

static const enum mt_dtype types[] = {MT_FLOAT32, MT_BFLOAT16};

static double element_bytes(enum mt_dtype dtype)
{
    return dtype == MT_BFLOAT16 ? 2.0 : 4.0;
}

static void measure_linear(bench *b, enum mt_dtype dtype)
{
    const int64_t n = n_token(b->s);
    const int64_t width = b->s.width;
    struct mt_cuda *cuda = b->cuda(dtype);
    const double flops = 2.0 * (double)(n * width * width);
    const double bytes = 8.0 * (double)(n * width) + element_bytes(dtype) * (double)(width * width);
    struct mt_weight weight = b->weight(dtype, width, width);
    float *y = b->values(n * width);
    float *x = b->values(n * width);
    b->measure("linear forward", dtype, bytes, flops,
               [=] { mt_cuda_linear_forward(cuda, y, x, &weight, n); });
    weight = b->weight(dtype, width, width);
    float *d_x = b->values(n * width);
    float *d_y = b->values(n * width);
    b->measure("linear backward, input", dtype, bytes, flops,
               [=] { mt_cuda_linear_backward_input(cuda, d_x, d_y, &weight, n, false); });
    float *d_w = b->values(width * width);
    float *left = b->values(n * width);
    float *right = b->values(n * width);
    b->measure("linear backward, weight", dtype, bytes, flops,
               [=] { mt_cuda_linear_backward_weight(cuda, d_w, left, right, width, width, n); });
    const float *values = b->values(width * width);
    weight = b->weight(dtype, width, width);
    b->measure("weight pack", dtype, (4.0 + element_bytes(dtype)) * (double)(width * width), 0.0,
               [=] {
                   struct mt_weight packed = weight;
                   mt_cuda_weight_pack(cuda, &packed, values);
               });
}

/* All experts of a layer, each with as many rows. */
struct experts {
    std::vector<struct mt_weight> weights[3];
    std::vector<const struct mt_weight *> lists[3];
    std::vector<float *> gradients[3];
    std::vector<int64_t> offset;
    struct mt_expert_weights all;
    struct mt_groups groups;
    int64_t n;
};

static void make_experts(bench *b, struct experts *e, enum mt_dtype dtype, int64_t rows)
{
    const int64_t n_out[3] = {b->s.inner, b->s.inner, b->s.width};
    const int64_t n_in[3] = {b->s.width, b->s.width, b->s.inner};
    for (int part = 0; part < 3; part++) {
        for (int64_t i = 0; i < b->s.n_expert; i++) {
            e->weights[part].push_back(b->weight(dtype, n_out[part], n_in[part]));
            e->gradients[part].push_back(b->values(n_out[part] * n_in[part]));
        }
        for (const struct mt_weight &weight : e->weights[part]) {
            e->lists[part].push_back(&weight);
        }
    }
    for (int64_t i = 0; i <= b->s.n_expert; i++) {
        e->offset.push_back(i * rows);
    }
    e->all = {e->lists[0].data(), e->lists[1].data(), e->lists[2].data()};
    e->groups = {(int)b->s.n_expert, e->offset.data()};
    e->n = b->s.n_expert * rows;
}

static void measure_expert(bench *b, enum mt_dtype dtype, int64_t rows)
{
    const int64_t width = b->s.width;
    const int64_t inner = b->s.inner;
    struct mt_cuda *cuda = b->cuda(dtype);
    char name[64];
    for (const bool is_forward : {true, false}) {
        struct experts e = {};
        make_experts(b, &e, dtype, rows);
        const double of_weights = (double)(b->s.n_expert * 3 * width * inner);
        const double of_rows = 4.0 * (double)(e.n * (2 * width + 2 * inner));
        const double flops = 6.0 * (double)(e.n * width * inner);
        const struct mt_expert_forward forward = {
            b->values(e.n * width), b->values(e.n * inner),
            b->values(e.n * inner), b->values(e.n * width),
            b->values(e.n),         b->zeros(mt_cuda_expert_scratch_bytes(inner, e.n))};
        struct mt_expert_backward back = {};
        back.d_x = forward.y;
        back.d_row_weight = b->values(e.n);
        back.gate = forward.gate;
        back.up = forward.up;
        back.d_y = b->values(e.n * width);
        back.x = forward.x;
        back.row_weight = forward.row_weight;
        back.d_gate_weight = e.gradients[0].data();
        back.d_up_weight = e.gradients[1].data();
        back.d_down_weight = e.gradients[2].data();
        back.scratch = forward.scratch;
        std::snprintf(name, sizeof(name), "experts %s, %lld rows each",
                      is_forward ? "forward" : "backward", (long long)rows);
        if (is_forward) {
            b->measure(name, dtype, element_bytes(dtype) * of_weights + of_rows, flops,
                       [&] { mt_cuda_expert_forward(cuda, &forward, &e.all, e.groups); });
        } else {
            b->measure(name, dtype, (element_bytes(dtype) + 8.0) * of_weights + 2.0 * of_rows,
                       2.0 * flops,
                       [&] { mt_cuda_expert_backward(cuda, &back, &e.all, e.groups); });
        }
    }
}

static void measure_router(bench *b)
{
    const int64_t n = n_token(b->s);
    const int64_t n_expert = b->s.n_expert;
    const int64_t width = b->s.width;
    struct mt_cuda *cuda = b->cuda(MT_FLOAT32);
    const double bytes = 4.0 * (double)(n * width + n_expert * width + n * n_expert);
    const double flops = 2.0 * (double)(n * n_expert * width);
    float *logits = b->values(n * n_expert);
    float *x = b->values(n * width);
    float *w = b->values(n_expert * width);
    b->measure("router forward", MT_FLOAT32, bytes, flops,
               [=] { mt_cuda_router_forward(cuda, logits, x, w, n, n_expert, width); });
    const struct mt_router_backward back = {b->values(n * width), b->values(n_expert * width),
                                            b->values(n * n_expert), b->values(n * width),
                                            b->values(n_expert * width)};
    b->measure("router backward", MT_FLOAT32, 3.0 * bytes, 2.0 * flops,
               [=] { mt_cuda_router_backward(cuda, &back, n, n_expert, width); });
}

void measure_products(bench *b)
{
    static const int64_t all_rows[] = {4, 64, 512};
    for (const enum mt_dtype dtype : types) {
        measure_linear(b, dtype);
        for (const int64_t rows : all_rows) {
            if (!b->s.is_small || rows <= 4) {
                measure_expert(b, dtype, rows);
            }
        }
    }
    measure_router(b);
}
