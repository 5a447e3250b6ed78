/* Sigmoid and its gradient, four elements a thread; a result may take the place of its argument. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { THREADS = 256, PER_BLOCK = 4 * THREADS };

__device__ __forceinline__ int64_t first_of_thread()
{
    return blockIdx.x * (int64_t)PER_BLOCK + 4 * (int64_t)threadIdx.x;
}

__global__ void __launch_bounds__(THREADS)
    squash(float *y, const float *x, int64_t n, bool has_quads)
{
    const int64_t at = first_of_thread();
    if (at < n) {
        const bool is_whole = has_quads && at + 4 <= n;
        const float4 v = mt_load_quad(x, at, n, is_whole);
        mt_store_quad(
            y, at, n, is_whole,
            make_float4(mt_sigmoid(v.x), mt_sigmoid(v.y), mt_sigmoid(v.z), mt_sigmoid(v.w)));
    }
}

__global__ void __launch_bounds__(THREADS)
    squash_backward(float *d_x, const float *d_y, const float *y, int64_t n, bool has_quads)
{
    const int64_t at = first_of_thread();
    if (at < n) {
        const bool is_whole = has_quads && at + 4 <= n;
        const float4 d = mt_load_quad(d_y, at, n, is_whole);
        const float4 s = mt_load_quad(y, at, n, is_whole);
        mt_store_quad(d_x, at, n, is_whole,
                      make_float4(d.x * s.x * (1.0F - s.x), d.y * s.y * (1.0F - s.y),
                                  d.z * s.z * (1.0F - s.z), d.w * s.w * (1.0F - s.w)));
    }
}

void mt_cuda_sigmoid_forward(struct mt_cuda *cuda, float *y, const float *x, int64_t n)
{
    mt_launch(squash, mt_cuda_blocks(n, PER_BLOCK), THREADS, 0, cuda->stream, y, x, n,
              mt_has_quads(y, 4) && mt_has_quads(x, 4));
}

void mt_cuda_sigmoid_backward(struct mt_cuda *cuda, float *d_x, const float *d_y, const float *y,
                              int64_t n)
{
    mt_launch(squash_backward, mt_cuda_blocks(n, PER_BLOCK), THREADS, 0, cuda->stream, d_x, d_y, y,
              n, mt_has_quads(d_x, 4) && mt_has_quads(d_y, 4) && mt_has_quads(y, 4));
}
