/* RMS normalisation: a warp a row, four elements a lane at a time. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

/* Rows of a chunk of d_w's sum; there are at most so many chunks, which grow with n. */
enum { WARPS = 4, CHUNK_ROWS = 32, MAX_CHUNKS = 256, COLUMNS = 128 };

struct norm {
    float *y, *rstd;
    float *sum; /* NULL: x is normed; else sum += x is */
    const float *x, *w;
    int64_t n, width;
    float eps;
    bool has_quads;
};

__global__ void __launch_bounds__(WARPS *MT_WARP) norm_rows(const struct norm a)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    const int64_t first = 4 * (int64_t)(threadIdx.x % MT_WARP);
    if (row >= a.n) {
        return;
    }
    const float *x = a.x + row * a.width;
    float *sum = a.sum != nullptr ? a.sum + row * a.width : nullptr;
    float squares = 0.0F;
    for (int64_t i = first; i < a.width; i += 4 * MT_WARP) {
        float4 v = mt_load_quad(x, i, a.width, a.has_quads);
        if (sum != nullptr) {
            v = mt_add4(mt_load_quad(sum, i, a.width, a.has_quads), v);
            mt_store_quad(sum, i, a.width, a.has_quads, v);
        }
        squares = mt_dot4(v, v, squares);
    }
    const float rstd = 1.0F / sqrtf(mt_warp_sum(squares) / (float)a.width + a.eps);
    const float *in = sum != nullptr ? sum : x;
    for (int64_t i = first; i < a.width; i += 4 * MT_WARP) {
        const float4 v = mt_scale4(mt_load_quad(in, i, a.width, a.has_quads), rstd);
        const float4 w = mt_load_quad(a.w, i, a.width, a.has_quads);
        mt_store_quad(a.y + row * a.width, i, a.width, a.has_quads,
                      make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w));
    }
    if (first == 0) {
        a.rstd[row] = rstd;
    }
}

static void launch_norm(struct mt_cuda *cuda, const struct norm *a)
{
    mt_launch(norm_rows, mt_cuda_blocks(a->n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *a);
}

void mt_cuda_rms_norm_forward(struct mt_cuda *cuda, float *y, float *rstd, const float *x,
                              const float *w, int64_t n, int64_t width, float eps)
{
    const bool has_quads =
        mt_has_quads(y, width) && mt_has_quads(x, width) && mt_has_quads(w, width);
    const struct norm a = {y, rstd, nullptr, x, w, n, width, eps, has_quads};
    launch_norm(cuda, &a);
}

void mt_cuda_add_rms_norm_forward(struct mt_cuda *cuda, const struct mt_add_rms_norm_forward *args,
                                  int64_t n, int64_t width)
{
    const bool has_quads = mt_has_quads(args->y, width) && mt_has_quads(args->x, width) &&
                           mt_has_quads(args->w, width) && mt_has_quads(args->sum, width);
    const struct norm a = {args->y, args->rstd, args->sum, args->x,  args->w,
                           n,       width,      args->eps, has_quads};
    launch_norm(cuda, &a);
}

/* partial [chunks, width]: sums over the rows of a chunk, in their order. */
__global__ void __launch_bounds__(COLUMNS)
    sum_weight_chunks(float *partial, const struct mt_rms_norm_backward a, int64_t n, int64_t width,
                      int64_t chunk)
{
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    if (column >= width) {
        return;
    }
    const int64_t begin = blockIdx.y * chunk;
    const int64_t end = mt_cuda_min(n, begin + chunk);
    float sum = 0.0F;
    for (int64_t row = begin; row < end; row++) {
        sum += a.d_y[row * width + column] * (a.x[row * width + column] * a.rstd[row]);
    }
    partial[blockIdx.y * width + column] = sum;
}

__global__ void __launch_bounds__(COLUMNS)
    add_chunks(float *d_w, const float *partial, int64_t n_chunk, int64_t width)
{
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    if (column < width) {
        float sum = 0.0F;
        for (int64_t chunk = 0; chunk < n_chunk; chunk++) {
            sum += partial[chunk * width + column];
        }
        d_w[column] += sum;
    }
}

__global__ void __launch_bounds__(WARPS *MT_WARP)
    norm_rows_backward(const struct mt_rms_norm_backward a, int64_t n, int64_t width,
                       bool has_quads)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    const int64_t first = 4 * (int64_t)(threadIdx.x % MT_WARP);
    if (row >= n) {
        return;
    }
    const float *x = a.x + row * width;
    const float *d_y = a.d_y + row * width;
    const float rstd = a.rstd[row];
    float dot = 0.0F;
    for (int64_t i = first; i < width; i += 4 * MT_WARP) {
        const float4 g = mt_load_quad(d_y, i, width, has_quads);
        const float4 w = mt_load_quad(a.w, i, width, has_quads);
        const float4 v = mt_scale4(mt_load_quad(x, i, width, has_quads), rstd);
        dot = mt_dot4(make_float4(g.x * w.x, g.y * w.y, g.z * w.z, g.w * w.w), v, dot);
    }
    const float mean = mt_warp_sum(dot) / (float)width;
    for (int64_t i = first; i < width; i += 4 * MT_WARP) {
        const float4 g = mt_load_quad(d_y, i, width, has_quads);
        const float4 w = mt_load_quad(a.w, i, width, has_quads);
        const float4 v = mt_scale4(mt_load_quad(x, i, width, has_quads), rstd);
        float4 d = make_float4(g.x * w.x - v.x * mean, g.y * w.y - v.y * mean,
                               g.z * w.z - v.z * mean, g.w * w.w - v.w * mean);
        d = mt_scale4(d, rstd);
        if (a.accumulate) {
            d = mt_add4(mt_load_quad(a.d_x + row * width, i, width, has_quads), d);
        }
        mt_store_quad(a.d_x + row * width, i, width, has_quads, d);
    }
}

/* The weight's gradient first: d_x may take the place of d_y. */
void mt_cuda_rms_norm_backward(struct mt_cuda *cuda, const struct mt_rms_norm_backward *args,
                               int64_t n, int64_t width)
{
    const int64_t chunk = mt_cuda_max(CHUNK_ROWS, mt_cuda_ceil(n, MAX_CHUNKS));
    const int64_t n_chunk = mt_cuda_ceil(n, chunk);
    const unsigned n_column = mt_cuda_blocks(width, COLUMNS);
    mt_cuda_begin(cuda);
    float *partial =
        static_cast<float *>(mt_cuda_cut(cuda, n_chunk * width * (int64_t)sizeof(float)));
    if (partial == NULL) {
        return;
    }
    mt_launch(sum_weight_chunks, dim3(n_column, (unsigned)n_chunk), COLUMNS, 0, cuda->stream,
              partial, *args, n, width, chunk);
    mt_launch(add_chunks, n_column, COLUMNS, 0, cuda->stream, args->d_w, partial, n_chunk, width);
    const bool has_quads = mt_has_quads(args->d_x, width) && mt_has_quads(args->d_y, width) &&
                           mt_has_quads(args->x, width) && mt_has_quads(args->w, width);
    mt_launch(norm_rows_backward, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *args,
              n, width, has_quads);
}
