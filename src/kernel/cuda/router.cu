/* The router: logits by our own kernel, an output a thread, summed over the width in order, so
 * that a row's logits have the same bits whatever rows are beside it. Gradients by cuBLAS in
 * float32. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { ROUTER_TILE = 16 };

__global__ void __launch_bounds__(ROUTER_TILE *ROUTER_TILE)
    route(float *logits, const float *x, const float *w, int64_t n, int64_t n_expert, int64_t width)
{
    MT_SHARED(float, rows, [ROUTER_TILE][ROUTER_TILE + 1]);
    MT_SHARED(float, experts, [ROUTER_TILE][ROUTER_TILE + 1]);
    const int i = (int)threadIdx.x % ROUTER_TILE;
    const int j = (int)threadIdx.x / ROUTER_TILE;
    const int64_t row = (int64_t)blockIdx.x * ROUTER_TILE;
    const int64_t expert = (int64_t)blockIdx.y * ROUTER_TILE;
    float sum = 0.0F;
    for (int64_t d = 0; d < width; d += ROUTER_TILE) {
        const bool is_inside = d + i < width;
        rows[j][i] = is_inside && row + j < n ? x[(row + j) * width + d + i] : 0.0F;
        experts[j][i] = is_inside && expert + j < n_expert ? w[(expert + j) * width + d + i] : 0.0F;
        __syncthreads();
        for (int k = 0; k < ROUTER_TILE; k++) {
            sum += rows[j][k] * experts[i][k];
        }
        __syncthreads();
    }
    if (row + j < n && expert + i < n_expert) {
        logits[(row + j) * n_expert + expert + i] = sum;
    }
}

void mt_cuda_router_forward(struct mt_cuda *cuda, float *logits, const float *x, const float *w,
                            int64_t n, int64_t n_expert, int64_t width)
{
    const dim3 grid((unsigned)mt_cuda_ceil(n, ROUTER_TILE),
                    (unsigned)mt_cuda_ceil(n_expert, ROUTER_TILE));
    mt_launch(route, grid, ROUTER_TILE * ROUTER_TILE, 0, cuda->stream, logits, x, w, n, n_expert,
              width);
}

/* Columns first: d_x^T [D,n] += w^T d_logits^T, d_w^T [D,E] += x^T d_logits. */
void mt_cuda_router_backward(struct mt_cuda *cuda, const struct mt_router_backward *args, int64_t n,
                             int64_t n_expert, int64_t width)
{
    const float one = 1.0F;
    const int rows = (int)n;
    const int experts = (int)n_expert;
    const int columns = (int)width;
    mt_cuda_check_blas(cuda,
                       cublasGemmEx(cuda->blas, CUBLAS_OP_N, CUBLAS_OP_N, columns, rows, experts,
                                    &one, args->w, CUDA_R_32F, columns, args->d_logits, CUDA_R_32F,
                                    experts, &one, args->d_x, CUDA_R_32F, columns,
                                    CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "the router's gradient");
    mt_cuda_check_blas(cuda,
                       cublasGemmEx(cuda->blas, CUBLAS_OP_N, CUBLAS_OP_T, columns, experts, rows,
                                    &one, args->x, CUDA_R_32F, columns, args->d_logits, CUDA_R_32F,
                                    experts, &one, args->d_w, CUDA_R_32F, columns,
                                    CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                       "the router's gradient");
}
