/* Matrix products by cuBLAS. It counts columns first: a row-major [n, k] is its [k, n], so y = x
 * W^T is its y^T = W x^T with W read as transposed, and so on. Which of cuBLAS's calls each product
 * takes is product_ways.cu's; forward with few rows in every group is our own (few_rows.cu). */
#include "kernel/cuda/product.h"

#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"
#include "kernel/cuda/product_ways.h"

#include <limits.h>

enum { QUADS = 256 };

/* ---- operands ---- */

__global__ void __launch_bounds__(QUADS)
    round_values(uint16_t *out, const float *in, int64_t n, bool has_quads)
{
    const int64_t at = 4 * ((int64_t)blockIdx.x * QUADS + threadIdx.x);
    if (at < n) {
        const bool is_whole = at + 4 <= n;
        mt_store_quad_bf16(out, at, n, is_whole, mt_load_quad(in, at, n, has_quads && is_whole));
    }
}

static void round_to(struct mt_cuda *cuda, uint16_t *out, const float *in, int64_t n)
{
    mt_launch(round_values, mt_cuda_blocks(n, 4 * QUADS), QUADS, 0, cuda->stream, out, in, n,
              mt_has_quads(in, 4));
}

const void *mt_cuda_operand(struct mt_cuda *cuda, const float *x, int64_t n)
{
    if (cuda->dtype == MT_FLOAT32) {
        return x;
    }
    uint16_t *rounded = static_cast<uint16_t *>(mt_cuda_cut(cuda, n * (int64_t)sizeof(uint16_t)));
    if (rounded != NULL) {
        round_to(cuda, rounded, x, n);
    }
    return rounded;
}

static int64_t element_bytes(const struct mt_cuda *cuda)
{
    return cuda->dtype == MT_BFLOAT16 ? 2 : 4;
}

int64_t mt_cuda_weight_bytes(const struct mt_cuda *cuda, int64_t n_out, int64_t n_in)
{
    return mt_cuda_ceil(n_out * n_in * element_bytes(cuda), 64) * 64;
}

void mt_cuda_weight_pack(struct mt_cuda *cuda, struct mt_weight *weight, const float *values)
{
    const int64_t n = weight->n_out * weight->n_in;
    if (cuda->dtype == MT_BFLOAT16) {
        round_to(cuda, static_cast<uint16_t *>(weight->forward_pack), values, n);
        return;
    }
    mt_cuda_check(cuda,
                  cudaMemcpyAsync(weight->forward_pack, values, (size_t)n * sizeof(float),
                                  cudaMemcpyDeviceToDevice, cuda->stream),
                  "packing a weight");
}

/* ---- groups of rows ---- */

static int narrow(int64_t n)
{
    MT_ASSERT(n >= 0 && n <= INT_MAX);
    return (int)n;
}

/* Products of a call, as groups come; one batch of them. */
struct batch {
    struct mt_cuda *cuda;
    struct mt_cuda_product_kind kind;
    struct mt_cuda_product list[MT_CUDA_PRODUCTS];
    int n;
};

static void batch_init(struct batch *batch, struct mt_cuda *cuda, cublasOperation_t a,
                       cublasOperation_t b)
{
    batch->cuda = cuda;
    batch->kind = {a, b, cuda->dtype == MT_BFLOAT16 ? CUDA_R_16BF : CUDA_R_32F};
    batch->n = 0;
}

static void flush(struct batch *batch)
{
    mt_cuda_multiply(batch->cuda, &batch->kind, batch->list, batch->n);
    batch->n = 0;
}

static void add(struct batch *batch, const struct mt_cuda_product *product)
{
    if (batch->n == MT_CUDA_PRODUCTS) {
        flush(batch);
    }
    batch->list[batch->n++] = *product;
}

static const void *row_at(const struct mt_cuda *cuda, const void *rows, int64_t row, int64_t width)
{
    return static_cast<const char *>(rows) + row * width * element_bytes(cuda);
}

void mt_cuda_products_forward(struct mt_cuda *cuda, float *y, const void *x,
                              const struct mt_weight *const *weight, struct mt_groups groups)
{
    if (mt_cuda_has_few_rows(cuda, x, weight, groups)) {
        mt_cuda_few_rows_forward(cuda, y, x, weight, groups);
        return;
    }
    struct batch batch;
    batch_init(&batch, cuda, CUBLAS_OP_T, CUBLAS_OP_N);
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const int n_out = narrow(weight[i]->n_out);
        const int n_in = narrow(weight[i]->n_in);
        const struct mt_cuda_product product = {weight[i]->forward_pack,
                                                row_at(cuda, x, row, n_in),
                                                y + row * n_out,
                                                n_out,
                                                narrow(n),
                                                n_in,
                                                n_in,
                                                n_in,
                                                0.0F};
        if (n > 0) {
            add(&batch, &product);
        }
    }
    flush(&batch);
}

void mt_cuda_products_input(struct mt_cuda *cuda, float *d_x, const void *d_y,
                            const struct mt_weight *const *weight, struct mt_groups groups,
                            bool accumulate)
{
    struct batch batch;
    batch_init(&batch, cuda, CUBLAS_OP_N, CUBLAS_OP_N);
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const int n_out = narrow(weight[i]->n_out);
        const int n_in = narrow(weight[i]->n_in);
        const struct mt_cuda_product product = {weight[i]->forward_pack,
                                                row_at(cuda, d_y, row, n_out),
                                                d_x + row * n_in,
                                                n_in,
                                                narrow(n),
                                                n_out,
                                                n_in,
                                                n_out,
                                                accumulate ? 1.0F : 0.0F};
        if (n > 0) {
            add(&batch, &product);
        }
    }
    flush(&batch);
}

void mt_cuda_products_weight(struct mt_cuda *cuda, float *const *d_w, const void *d_y,
                             const void *x, struct mt_cuda_weight_shape shape,
                             struct mt_groups groups)
{
    struct batch batch;
    batch_init(&batch, cuda, CUBLAS_OP_N, CUBLAS_OP_T);
    const int n_out = narrow(shape.n_out);
    const int n_in = narrow(shape.n_in);
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const struct mt_cuda_product product = {row_at(cuda, x, row, n_in),
                                                row_at(cuda, d_y, row, n_out),
                                                d_w[i],
                                                n_in,
                                                n_out,
                                                narrow(n),
                                                n_in,
                                                n_out,
                                                1.0F};
        if (n > 0) {
            add(&batch, &product);
        }
    }
    flush(&batch);
}

/* ---- the operations ---- */

static int64_t rows_of(struct mt_groups groups)
{
    return groups.offset[groups.n_group] - groups.offset[0];
}

void mt_cuda_grouped_forward(struct mt_cuda *cuda, float *y, const float *x,
                             const struct mt_weight *const *weight, struct mt_groups groups)
{
    const int64_t n_in = weight[0]->n_in;
    mt_cuda_begin(cuda);
    const void *rows = mt_cuda_operand(cuda, x + groups.offset[0] * n_in, rows_of(groups) * n_in);
    if (rows != NULL) {
        mt_cuda_products_forward(cuda, y + groups.offset[0] * weight[0]->n_out, rows, weight,
                                 groups);
    }
}

void mt_cuda_grouped_backward_input(struct mt_cuda *cuda, float *d_x, const float *d_y,
                                    const struct mt_weight *const *weight, struct mt_groups groups,
                                    bool accumulate)
{
    const int64_t n_out = weight[0]->n_out;
    mt_cuda_begin(cuda);
    const void *rows =
        mt_cuda_operand(cuda, d_y + groups.offset[0] * n_out, rows_of(groups) * n_out);
    if (rows != NULL) {
        mt_cuda_products_input(cuda, d_x + groups.offset[0] * weight[0]->n_in, rows, weight, groups,
                               accumulate);
    }
}

void mt_cuda_grouped_backward_weight(struct mt_cuda *cuda, float *const *d_w, const float *d_y,
                                     const float *x, int64_t n_out, int64_t n_in,
                                     struct mt_groups groups)
{
    mt_cuda_begin(cuda);
    const void *left =
        mt_cuda_operand(cuda, d_y + groups.offset[0] * n_out, rows_of(groups) * n_out);
    const void *right = mt_cuda_operand(cuda, x + groups.offset[0] * n_in, rows_of(groups) * n_in);
    if (left != NULL && right != NULL) {
        mt_cuda_products_weight(cuda, d_w, left, right, {n_out, n_in}, groups);
    }
}

void mt_cuda_linear_forward(struct mt_cuda *cuda, float *y, const float *x,
                            const struct mt_weight *weight, int64_t n)
{
    const int64_t offset[2] = {0, n};
    mt_cuda_grouped_forward(cuda, y, x, &weight, {1, offset});
}

void mt_cuda_linear_backward_input(struct mt_cuda *cuda, float *d_x, const float *d_y,
                                   const struct mt_weight *weight, int64_t n, bool accumulate)
{
    const int64_t offset[2] = {0, n};
    mt_cuda_grouped_backward_input(cuda, d_x, d_y, &weight, {1, offset}, accumulate);
}

void mt_cuda_linear_backward_weight(struct mt_cuda *cuda, float *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in, int64_t n)
{
    const int64_t offset[2] = {0, n};
    mt_cuda_grouped_backward_weight(cuda, &d_w, d_y, x, n_out, n_in, {1, offset});
}
