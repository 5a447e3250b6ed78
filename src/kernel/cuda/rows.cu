/* Rows by offsets: copies, and sums of a token's choices. A warp a row. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { WARPS = 8 };

struct copy {
    float *out;
    const float *in;
    const int64_t *out_offset, *in_offset; /* NULL: row after row */
    int64_t n, width;
};

__global__ void __launch_bounds__(WARPS *MT_WARP) copy_rows(const struct copy a)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    if (row >= a.n) {
        return;
    }
    const int64_t to = a.out_offset != nullptr ? a.out_offset[row] : row * a.width;
    const int64_t from = a.in_offset != nullptr ? a.in_offset[row] : row * a.width;
    if (to < 0 || from < 0) {
        return;
    }
    float *out = a.out + to;
    const float *in = a.in + from;
    const bool has_quads = mt_has_quads(out, a.width) && mt_has_quads(in, a.width);
    for (int64_t i = 4 * (int64_t)(threadIdx.x % MT_WARP); i < a.width; i += 4 * MT_WARP) {
        mt_store_quad(out, i, a.width, has_quads, mt_load_quad(in, i, a.width, has_quads));
    }
}

void mt_cuda_rows_copy(struct mt_cuda *cuda, float *out, const int64_t *out_offset, const float *in,
                       const int64_t *in_offset, int64_t n, int64_t width)
{
    const struct copy a = {out, in, out_offset, in_offset, n, width};
    mt_launch(copy_rows, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, a);
}

/* Choices in their order, whatever the width. */
__global__ void __launch_bounds__(WARPS *MT_WARP)
    combine_rows(const struct mt_rows_combine a, int64_t n)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    if (row >= n) {
        return;
    }
    float *out = a.out + row * a.width;
    const int64_t *offset = a.in_offset + row * a.n_choice;
    const bool has_quads = mt_has_quads(out, a.width);
    for (int64_t i = 4 * (int64_t)(threadIdx.x % MT_WARP); i < a.width; i += 4 * MT_WARP) {
        float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (a.accumulate) {
            sum = mt_load_quad(out, i, a.width, has_quads);
        }
        for (int64_t k = 0; k < a.n_choice; k++) {
            if (offset[k] >= 0) {
                const float *in = a.in + offset[k];
                sum = mt_add4(sum, mt_load_quad(in, i, a.width, mt_has_quads(in, a.width)));
            }
        }
        mt_store_quad(out, i, a.width, has_quads, sum);
    }
}

void mt_cuda_rows_combine(struct mt_cuda *cuda, const struct mt_rows_combine *args, int64_t n)
{
    mt_launch(combine_rows, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *args, n);
}
