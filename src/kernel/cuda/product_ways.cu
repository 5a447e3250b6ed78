/* Several products of one call, by one of two ways each.
 *
 *     grouped   one launch of cublasGemmGroupedBatchedEx for all of them on the main stream. Its
 *               kernels use a warp's instructions only, and know one tile for all sizes
 *     apart     cublasGemmEx for each on one of a few side streams, with the large kernels of one
 *               product, which want a GPU's worth of tiles; a launch each, which the host has to
 *               keep ahead of
 *
 *     main stream   --- forked ------- grouped -------------- joined[0] joined[1] ---
 *     side 0               \__ apart, apart ________________/        /
 *     side 1                \_ apart _______________________________/
 *
 * bfloat16 goes apart at any size: the grouped call is documented for results of its operands'
 * type, and ours are float32. Which side a product goes to follows from sizes alone, and each side
 * has a workspace of its own, so that no result depends on what runs beside it. */
#include "kernel/cuda/product_ways.h"

#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

/* Of a result: what a block of cuBLAS's large kernels makes. */
enum { TILE = 128 };

struct mt_cuda_ways mt_cuda_planned_ways(void)
{
    struct mt_cuda_ways ways = {};
    ways.apart_tiles = 32;        /* MT_CUDA_SIDES times as many fill the 132 SMs of an H100 */
    ways.apart_flops = 100000000; /* 4 us of one launch at half of its 50 TFLOP/s in float32 */
    ways.few_rows = MT_CUDA_FEW_ROWS;
    return ways;
}

static int64_t flops_of(const struct mt_cuda_product *p)
{
    return INT64_C(2) * p->m * p->n * p->k;
}

bool mt_cuda_goes_apart(const struct mt_cuda_ways *ways, cudaDataType type,
                        const struct mt_cuda_product *product)
{
    const int64_t n_tile = mt_cuda_ceil(product->m, TILE) * mt_cuda_ceil(product->n, TILE);
    return type == CUDA_R_16BF ||
           (n_tile >= ways->apart_tiles && flops_of(product) >= ways->apart_flops);
}

static void multiply(struct mt_cuda *cuda, cublasHandle_t blas,
                     const struct mt_cuda_product_kind *kind, const struct mt_cuda_product *p)
{
    const float alpha = 1.0F;
    mt_cuda_check_blas(cuda,
                       cublasGemmEx(blas, kind->a, kind->b, p->m, p->n, p->k, &alpha, p->a,
                                    kind->type, p->lda, p->b, kind->type, p->ldb, &p->beta, p->c,
                                    CUDA_R_32F, p->m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "a product");
}

/* ---- grouped ---- */

/* A kernel's parameters are copied at the launch: pointers reach the device without a staging
 * buffer that somebody would have to wait for. */
struct pointers {
    const void *at[3 * MT_CUDA_PRODUCTS];
};

__global__ void store_pointers(const void **table, struct pointers list)
{
    table[threadIdx.x] = list.at[threadIdx.x];
}

static void multiply_grouped(struct mt_cuda *cuda, const struct mt_cuda_product_kind *kind,
                             const struct mt_cuda_product *const *list, int n)
{
    struct pointers pointers = {};
    cublasOperation_t a[MT_CUDA_PRODUCTS];
    cublasOperation_t b[MT_CUDA_PRODUCTS];
    int size[6][MT_CUDA_PRODUCTS];
    int one[MT_CUDA_PRODUCTS];
    float alpha[MT_CUDA_PRODUCTS];
    float beta[MT_CUDA_PRODUCTS];
    for (int i = 0; i < n; i++) {
        const struct mt_cuda_product *p = list[i];
        const int sizes[6] = {p->m, p->n, p->k, p->lda, p->ldb, p->m};
        for (int j = 0; j < 6; j++) {
            size[j][i] = sizes[j];
        }
        a[i] = kind->a;
        b[i] = kind->b;
        one[i] = 1;
        alpha[i] = 1.0F;
        beta[i] = p->beta;
        pointers.at[i] = p->a;
        pointers.at[n + i] = p->b;
        pointers.at[2 * n + i] = p->c;
    }
    const void **table = static_cast<const void **>(
        mt_cuda_cut(cuda, (int64_t)sizeof(const void *) * 3 * MT_CUDA_PRODUCTS));
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

/* ---- apart ---- */

/* The side with the least to do so far, the first of several. */
static int least_loaded(const int64_t *load)
{
    int least = 0;
    for (int i = 1; i < MT_CUDA_SIDES; i++) {
        least = load[i] < load[least] ? i : least;
    }
    return least;
}

/* Side streams start where the main one is; what it gets from here on runs beside them. */
static void begin_apart(struct mt_cuda *cuda, const struct mt_cuda_product_kind *kind,
                        const struct mt_cuda_product *const *list, int n)
{
    const int n_side = n < MT_CUDA_SIDES ? n : MT_CUDA_SIDES;
    int64_t load[MT_CUDA_SIDES] = {};
    if (n > 0) {
        mt_cuda_check(cuda, cudaEventRecord(cuda->forked, cuda->stream), "an event");
    }
    for (int i = 0; i < n_side; i++) {
        mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->side[i], cuda->forked, 0), "a wait");
    }
    for (int i = 0; i < n; i++) {
        const int side = least_loaded(load);
        load[side] += flops_of(list[i]);
        multiply(cuda, cuda->side_blas[side], kind, list[i]);
    }
}

/* The main stream goes on when they are done. */
static void end_apart(struct mt_cuda *cuda, int n)
{
    const int n_side = n < MT_CUDA_SIDES ? n : MT_CUDA_SIDES;
    for (int i = 0; i < n_side; i++) {
        mt_cuda_check(cuda, cudaEventRecord(cuda->joined[i], cuda->side[i]), "an event");
        mt_cuda_check(cuda, cudaStreamWaitEvent(cuda->stream, cuda->joined[i], 0), "a wait");
    }
}

void mt_cuda_multiply(struct mt_cuda *cuda, const struct mt_cuda_product_kind *kind,
                      const struct mt_cuda_product *list, int n)
{
    const struct mt_cuda_product *apart[MT_CUDA_PRODUCTS];
    const struct mt_cuda_product *grouped[MT_CUDA_PRODUCTS];
    int n_apart = 0;
    int n_grouped = 0;
    for (int i = 0; i < n; i++) {
        if (n > 1 && mt_cuda_goes_apart(&cuda->ways, kind->type, &list[i])) {
            apart[n_apart++] = &list[i];
        } else {
            grouped[n_grouped++] = &list[i];
        }
    }
    begin_apart(cuda, kind, apart, n_apart);
    if (n_grouped == 1) {
        multiply(cuda, cuda->blas, kind, grouped[0]);
    } else if (n_grouped > 1) {
        multiply_grouped(cuda, kind, grouped, n_grouped);
    }
    end_apart(cuda, n_apart);
}
