#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/product.h"
#include "kernel/cpu/vector.h"

/* Experts whose sums run side by side over one row. */
enum { EXPERTS = 4 };

struct forward {
    float *logits;
    const float *x, *w;
    int64_t n_expert, width;
};

/* logits [EXPERTS] = w [EXPERTS, width] x [width]; each sum in the order of mt_dot. */
MT_INLINE void dot_experts(float *logits, const float *x, const float *w, int64_t width)
{
    float lane[EXPERTS][MT_LANES] = {{0}};
    int64_t i = 0;
    for (; i + MT_LANES <= width; i += MT_LANES) {
#pragma GCC unroll 4
        for (int e = 0; e < EXPERTS; e++) {
#pragma omp simd
            for (int j = 0; j < MT_LANES; j++) {
                lane[e][j] += x[i + j] * w[e * width + i + j];
            }
        }
    }
    for (int e = 0; e < EXPERTS; e++) {
        for (int j = 0; i + j < width; j++) {
            lane[e][j] += x[i + j] * w[e * width + i + j];
        }
        logits[e] = mt_lanes_sum(lane[e]);
    }
}

/* Without fused multiply-adds, so that the same logits come out on every instruction set: a near
 * tie is decided alike on all ranks of a mixed cluster. */
MT_CLONES static void forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const int64_t width = f->width;
    const int64_t whole = f->n_expert - f->n_expert % EXPERTS;
    for (int64_t expert = 0; expert < whole; expert += EXPERTS) {
        for (int64_t row = chunk->begin; row < chunk->end; row++) {
            dot_experts(f->logits + row * f->n_expert + expert, f->x + row * width,
                        f->w + expert * width, width);
        }
    }
    for (int64_t expert = whole; expert < f->n_expert; expert++) {
        for (int64_t row = chunk->begin; row < chunk->end; row++) {
            f->logits[row * f->n_expert + expert] =
                mt_dot(f->x + row * width, f->w + expert * width, width);
        }
    }
}

void mt_cpu_router_forward(struct mt_device *device, float *logits, const float *x, const float *w,
                           int64_t n, int64_t n_expert, int64_t width)
{
    struct forward f = {logits, x, w, n_expert, width};
    mt_cpu_for_chunks(device, n, 32, forward_rows, &f);
}

struct backward {
    const struct mt_router_backward *args;
    int64_t n, n_expert, width;
};

/* d_x [rows, D] += d_logits w */
static void backward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    mt_cpu_multiply(&(struct mt_cpu_product){
        .c = b->args->d_x + chunk->begin * b->width,
        .c_stride = b->width,
        .a = b->args->d_logits + chunk->begin * b->n_expert,
        .a_row_stride = b->n_expert,
        .a_column_stride = 1,
        .b = b->args->w,
        .b_stride = b->width,
        .m = chunk->end - chunk->begin,
        .n = b->width,
        .k = b->n_expert,
        .accumulate = true,
    });
}

/* d_w [experts, D] += d_logits^T x: every element one sum over the rows in order. Rows in blocks
 * whose x stays cached while the experts go by. */
static void backward_weight(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    const int64_t block = mt_max_i64(16, 65536 / b->width);
    for (int64_t row = 0; row < b->n; row += block) {
        mt_cpu_multiply(&(struct mt_cpu_product){
            .c = b->args->d_w + chunk->begin * b->width,
            .c_stride = b->width,
            .a = b->args->d_logits + row * b->n_expert + chunk->begin,
            .a_row_stride = 1,
            .a_column_stride = b->n_expert,
            .b = b->args->x + row * b->width,
            .b_stride = b->width,
            .m = chunk->end - chunk->begin,
            .n = b->width,
            .k = mt_min_i64(block, b->n - row),
            .accumulate = true,
        });
    }
}

void mt_cpu_router_backward(struct mt_device *device, const struct mt_router_backward *args,
                            int64_t n, int64_t n_expert, int64_t width)
{
    struct backward b = {args, n, n_expert, width};
    mt_cpu_for_chunks(device, n, 64, backward_rows, &b);
    mt_cpu_for_chunks(device, n_expert, 8, backward_weight, &b);
}
