/* Biases: forward a warp a row; backward sums columns in double, rows of a chunk in their order and
 * then the chunks in theirs. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

/* Rows of a chunk; there are at most so many chunks, which grow with n. */
enum { WARPS = 8, CHUNK_ROWS = 32, MAX_CHUNKS = 256, COLUMNS = 128 };

__global__ void __launch_bounds__(WARPS *MT_WARP)
    add_bias(float *y, const float *bias, int64_t n, int64_t width, bool has_quads)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    if (row >= n) {
        return;
    }
    float *out = y + row * width;
    for (int64_t i = 4 * (int64_t)(threadIdx.x % MT_WARP); i < width; i += 4 * MT_WARP) {
        mt_store_quad(out, i, width, has_quads,
                      mt_add4(mt_load_quad(out, i, width, has_quads),
                              mt_load_quad(bias, i, width, has_quads)));
    }
}

void mt_cuda_bias_forward(struct mt_cuda *cuda, float *y, const float *bias, int64_t n,
                          int64_t width)
{
    mt_launch(add_bias, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, y, bias, n,
              width, mt_has_quads(y, width) && mt_has_quads(bias, width));
}

/* partial [chunks, width] */
__global__ void __launch_bounds__(COLUMNS)
    sum_bias_chunks(double *partial, const float *d_y, int64_t n, int64_t width, int64_t chunk)
{
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    if (column >= width) {
        return;
    }
    const int64_t begin = blockIdx.y * chunk;
    const int64_t end = mt_cuda_min(n, begin + chunk);
    double sum = 0.0;
    for (int64_t row = begin; row < end; row++) {
        sum += (double)d_y[row * width + column];
    }
    partial[blockIdx.y * width + column] = sum;
}

__global__ void __launch_bounds__(COLUMNS)
    add_bias_chunks(float *d_bias, const double *partial, int64_t n_chunk, int64_t width)
{
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    if (column < width) {
        double sum = 0.0;
        for (int64_t chunk = 0; chunk < n_chunk; chunk++) {
            sum += partial[chunk * width + column];
        }
        d_bias[column] += (float)sum;
    }
}

void mt_cuda_bias_backward(struct mt_cuda *cuda, float *d_bias, const float *d_y, int64_t n,
                           int64_t width)
{
    const int64_t chunk = mt_cuda_max(CHUNK_ROWS, mt_cuda_ceil(n, MAX_CHUNKS));
    const int64_t n_chunk = mt_cuda_ceil(n, chunk);
    const unsigned n_column = mt_cuda_blocks(width, COLUMNS);
    mt_cuda_begin(cuda);
    double *partial =
        static_cast<double *>(mt_cuda_cut(cuda, n_chunk * width * (int64_t)sizeof(double)));
    if (partial == NULL) {
        return;
    }
    mt_launch(sum_bias_chunks, dim3(n_column, (unsigned)n_chunk), COLUMNS, 0, cuda->stream, partial,
              d_y, n, width, chunk);
    mt_launch(add_bias_chunks, n_column, COLUMNS, 0, cuda->stream, d_bias, partial, n_chunk, width);
}
