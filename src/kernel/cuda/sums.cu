/* Sums over arrays in double, in chunks that follow from n alone. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { THREADS = 256, CHUNK = 32768, PARTIALS = 256 };

/* Threads' sums [THREADS] into one, in one order; thread 0 has it. */
__device__ double sum_block(double *sums, double mine)
{
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    return sums[0];
}

__global__ void __launch_bounds__(THREADS)
    square_chunks(double *partial, const float *x, int64_t n, int64_t chunk, bool has_quads)
{
    MT_SHARED(double, sums, [THREADS]);
    const int64_t begin = blockIdx.x * chunk;
    const int64_t end = mt_cuda_min(n, begin + chunk);
    double mine = 0.0;
    for (int64_t i = begin + 4 * (int64_t)threadIdx.x; i < end; i += 4 * THREADS) {
        const float4 v = mt_load_quad(x, i, end, has_quads && i + 4 <= end);
        mine += (double)v.x * (double)v.x + (double)v.y * (double)v.y;
        mine += (double)v.z * (double)v.z + (double)v.w * (double)v.w;
    }
    const double sum = sum_block(sums, mine);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(THREADS) sum_partials(double *sum, const double *partial, int n)
{
    MT_SHARED(double, sums, [THREADS]);
    const double all = sum_block(sums, (int)threadIdx.x < n ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) {
        *sum = all;
    }
}

void mt_cuda_sum_squares(struct mt_cuda *cuda, double *sum, const float *x, int64_t n)
{
    const int64_t chunk = mt_cuda_max(CHUNK, 4 * mt_cuda_ceil(n, 4 * PARTIALS));
    const int64_t n_chunk = mt_cuda_ceil(n, chunk);
    mt_cuda_begin(cuda);
    double *partial = static_cast<double *>(mt_cuda_cut(cuda, PARTIALS * (int64_t)sizeof(double)));
    if (partial == NULL) {
        return;
    }
    mt_launch(square_chunks, (unsigned)mt_cuda_max(1, n_chunk), THREADS, 0, cuda->stream, partial,
              x, n, chunk, mt_has_quads(x, 4));
    mt_launch(sum_partials, 1, THREADS, 0, cuda->stream, sum, partial,
              (int)mt_cuda_max(1, n_chunk));
}

void mt_cuda_fill_zero(struct mt_cuda *cuda, float *x, int64_t n)
{
    mt_cuda_check(cuda, cudaMemsetAsync(x, 0, (size_t)n * sizeof(float), cuda->stream),
                  "filling memory");
}
