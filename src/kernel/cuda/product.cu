/* Matrix products by cuBLAS. It counts columns first: a row-major [n, k] is its [k, n], so y = x
 * W^T is its y^T = W x^T with W read as transposed, and so on.
 *
 * Groups: many small ones go in one call of cublasGemmGroupedBatchedEx, whose kernels use a
 * warp's matrix instructions only; from GROUPED_ROWS rows a group on one product after another
 * on side streams, with the large kernels of one product, wins. bfloat16 goes one by one at any
 * size: the grouped call is documented for results of its operands' type, and ours are float32.
 * Forward with few rows in every group is our own (few_rows.cu). */
#include "kernel/cuda/product.h"

#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

#include <limits.h>

enum { GROUPED_ROWS = 256, GROUPS_AT_ONCE = 128, QUADS = 256 };

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

/* ---- one product, in cuBLAS's words ---- */

/* c [m, n] = a [m, k] b [k, n] + beta c, columns first */
struct gemm {
    const void *a, *b;
    float *c;
    int m, n, k, lda, ldb;
    float beta;
};
/* What products of one call have in common. */
struct kind {
    cublasOperation_t a, b;
    cudaDataType type;
};

static int narrow(int64_t n)
{
    MT_ASSERT(n >= 0 && n <= INT_MAX);
    return (int)n;
}

static void multiply(struct mt_cuda *cuda, cublasHandle_t blas, const struct kind *kind,
                     const struct gemm *g)
{
    const float alpha = 1.0F;
    mt_cuda_check_blas(cuda,
                       cublasGemmEx(blas, kind->a, kind->b, g->m, g->n, g->k, &alpha, g->a,
                                    kind->type, g->lda, g->b, kind->type, g->ldb, &g->beta, g->c,
                                    CUDA_R_32F, g->m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "a product");
}

/* ---- many at once ---- */

/* A kernel's parameters are copied at the launch: pointers reach the device without a staging
 * buffer that somebody would have to wait for. */
struct pointers {
    const void *at[3 * GROUPS_AT_ONCE];
};

__global__ void store_pointers(const void **table, struct pointers list)
{
    table[threadIdx.x] = list.at[threadIdx.x];
}

static void multiply_grouped(struct mt_cuda *cuda, const struct kind *kind, const struct gemm *list,
                             int n)
{
    struct pointers pointers = {};
    cublasOperation_t a[GROUPS_AT_ONCE];
    cublasOperation_t b[GROUPS_AT_ONCE];
    int size[6][GROUPS_AT_ONCE];
    int one[GROUPS_AT_ONCE];
    float alpha[GROUPS_AT_ONCE];
    float beta[GROUPS_AT_ONCE];
    for (int i = 0; i < n; i++) {
        const struct gemm *g = &list[i];
        const int sizes[6] = {g->m, g->n, g->k, g->lda, g->ldb, g->m};
        for (int j = 0; j < 6; j++) {
            size[j][i] = sizes[j];
        }
        a[i] = kind->a;
        b[i] = kind->b;
        one[i] = 1;
        alpha[i] = 1.0F;
        beta[i] = g->beta;
        pointers.at[i] = g->a;
        pointers.at[n + i] = g->b;
        pointers.at[2 * n + i] = g->c;
    }
    const void **table = static_cast<const void **>(
        mt_cuda_cut(cuda, (int64_t)sizeof(const void *) * 3 * GROUPS_AT_ONCE));
    if (table == NULL) {
        return;
    }
    mt_launch(store_pointers, 1, 3 * (unsigned)n, 0, cuda->stream, table, pointers);
    void **c = const_cast<void **>(table + 2 * n);
    mt_cuda_check_blas(cuda,
                       cublasGemmGroupedBatchedEx(cuda->blas, a, b, size[0], size[1], size[2],
                                                  alpha, table, kind->type, size[3], table + n,
                                                  kind->type, size[4], beta, c, CUDA_R_32F, size[5],
                                                  n, one, CUBLAS_COMPUTE_32F),
                       "grouped products");
}

/* Side streams start where the main one is, and the main one goes on when they are done. */
static void multiply_apart(struct mt_cuda *cuda, const struct kind *kind, const struct gemm *list,
                           int n)
{
    const int n_side = n < MT_CUDA_SIDES ? n : MT_CUDA_SIDES;
    mt_cuda_check(cuda, cudaEventRecord(cuda->forked, cuda->stream), "an event");
    for (int i = 0; i < n_side; i++) {
        mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->side[i], cuda->forked, 0), "a wait");
    }
    for (int i = 0; i < n; i++) {
        multiply(cuda, cuda->side_blas[i % n_side], kind, &list[i]);
    }
    for (int i = 0; i < n_side; i++) {
        mt_cuda_check(cuda, cudaEventRecord(cuda->joined[i], cuda->side[i]), "an event");
        mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->stream, cuda->joined[i], 0), "a wait");
    }
}

static void multiply_all(struct mt_cuda *cuda, const struct kind *kind, const struct gemm *list,
                         int n, int64_t n_row)
{
    if (n == 1) {
        multiply(cuda, cuda->blas, kind, list);
    } else if (kind->type == CUDA_R_16BF || n_row >= (int64_t)GROUPED_ROWS * n) {
        multiply_apart(cuda, kind, list, n);
    } else if (n > 1) {
        multiply_grouped(cuda, kind, list, n);
    }
}

/* ---- groups of rows ---- */

/* Products of a call, as groups come; one batch of them. */
struct batch {
    struct mt_cuda *cuda;
    struct kind kind;
    struct gemm list[GROUPS_AT_ONCE];
    int n;
    int64_t n_row;
};

static void flush(struct batch *batch)
{
    multiply_all(batch->cuda, &batch->kind, batch->list, batch->n, batch->n_row);
    batch->n = 0;
    batch->n_row = 0;
}

static void add(struct batch *batch, const struct gemm *g, int64_t n_row)
{
    if (batch->n == GROUPS_AT_ONCE) {
        flush(batch);
    }
    batch->list[batch->n++] = *g;
    batch->n_row += n_row;
}

static struct kind kind_of(const struct mt_cuda *cuda, cublasOperation_t a, cublasOperation_t b)
{
    return {a, b, cuda->dtype == MT_BFLOAT16 ? CUDA_R_16BF : CUDA_R_32F};
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
    batch.cuda = cuda;
    batch.kind = kind_of(cuda, CUBLAS_OP_T, CUBLAS_OP_N);
    batch.n = 0;
    batch.n_row = 0;
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const int n_out = narrow(weight[i]->n_out);
        const int n_in = narrow(weight[i]->n_in);
        const struct gemm g = {weight[i]->forward_pack,
                               row_at(cuda, x, row, n_in),
                               y + row * n_out,
                               n_out,
                               narrow(n),
                               n_in,
                               n_in,
                               n_in,
                               0.0F};
        if (n > 0) {
            add(&batch, &g, n);
        }
    }
    flush(&batch);
}

void mt_cuda_products_input(struct mt_cuda *cuda, float *d_x, const void *d_y,
                            const struct mt_weight *const *weight, struct mt_groups groups,
                            bool accumulate)
{
    struct batch batch;
    batch.cuda = cuda;
    batch.kind = kind_of(cuda, CUBLAS_OP_N, CUBLAS_OP_N);
    batch.n = 0;
    batch.n_row = 0;
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const int n_out = narrow(weight[i]->n_out);
        const int n_in = narrow(weight[i]->n_in);
        const struct gemm g = {weight[i]->forward_pack,
                               row_at(cuda, d_y, row, n_out),
                               d_x + row * n_in,
                               n_in,
                               narrow(n),
                               n_out,
                               n_in,
                               n_out,
                               accumulate ? 1.0F : 0.0F};
        if (n > 0) {
            add(&batch, &g, n);
        }
    }
    flush(&batch);
}

void mt_cuda_products_weight(struct mt_cuda *cuda, float *const *d_w, const void *d_y,
                             const void *x, struct mt_cuda_weight_shape shape,
                             struct mt_groups groups)
{
    struct batch batch;
    batch.cuda = cuda;
    batch.kind = kind_of(cuda, CUBLAS_OP_N, CUBLAS_OP_T);
    batch.n = 0;
    batch.n_row = 0;
    const int n_out = narrow(shape.n_out);
    const int n_in = narrow(shape.n_in);
    for (int i = 0; i < groups.n_group; i++) {
        const int64_t row = groups.offset[i] - groups.offset[0];
        const int64_t n = groups.offset[i + 1] - groups.offset[i];
        const struct gemm g = {row_at(cuda, x, row, n_in),
                               row_at(cuda, d_y, row, n_out),
                               d_w[i],
                               n_in,
                               n_out,
                               narrow(n),
                               n_in,
                               n_out,
                               1.0F};
        if (n > 0) {
            add(&batch, &g, n);
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
