/* Products of many weights with few rows each, in bfloat16: what experts are when tokens are few.
 * One launch for all groups, where cuBLAS takes one a group: 64 experts are 192 launches a layer.
 * Weights are read once, 16 bytes at a time, and multiplied by the matrix instruction.
 *
 * A block makes 16 columns of y for all rows of its group. Its warps take turns along n_in, 32
 * elements at a time, and their sums are added in the order of the warps. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"
#include "kernel/cuda/product.h"

enum { COLUMNS = 16, WARPS = 4, STEP = 32, ROW_TILE = 8 };

struct few_rows {
    const uint16_t *weight[MT_CUDA_FEW_GROUPS]; /* [n_out, n_in] */
    int first[MT_CUDA_FEW_GROUPS + 1];          /* rows of group g: first[g] .. first[g + 1] - 1 */
    float *y;                                   /* [n, n_out] */
    const uint16_t *x;                          /* [n, n_in] */
    int64_t n_out, n_in;
};

/* Elements at .. at + 7 of a row [n_in], as four words; 0 beyond its end, or without a row. */
__device__ __forceinline__ uint4 load_words(const uint16_t *row, int64_t at, int64_t n_in,
                                            bool is_there)
{
    if (is_there && at < n_in) {
        return mt_load_bits8(row + at);
    }
    return make_uint4(0, 0, 0, 0);
}

/* Two matrix instructions. Which k stands where in a fragment is for a and b the same, so that each
 * lane reads its 8 neighbours at once. */
__device__ __forceinline__ void multiply_words(float (&sum)[4], uint4 upper, uint4 lower, uint4 row)
{
    const unsigned a[2][4] = {{upper.x, lower.x, upper.y, lower.y},
                              {upper.z, lower.z, upper.w, lower.w}};
    const unsigned b[2][2] = {{row.x, row.y}, {row.z, row.w}};
    mt_multiply_add(sum, a[0], b[0]);
    mt_multiply_add(sum, a[1], b[1]);
}

__global__ void __launch_bounds__(WARPS *MT_WARP) multiply_few_rows(const struct few_rows f)
{
    MT_SHARED(float, parts, [WARPS][MT_CUDA_FEW_ROWS][COLUMNS]);
    const int group = (int)blockIdx.y;
    const int warp = (int)threadIdx.x / MT_WARP;
    const int g = (int)threadIdx.x % MT_WARP / 4;
    const int t = (int)threadIdx.x % 4;
    const int n_row = f.first[group + 1] - f.first[group];
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + g;
    const uint16_t *w = f.weight[group] + column * f.n_in;
    const uint16_t *x = f.x + (f.first[group] + g) * f.n_in;
    float sum[2][4] = {};
    for (int64_t at = warp * STEP + 8 * t; at - 8 * t < f.n_in; at += WARPS * STEP) {
        const uint4 upper = load_words(w, at, f.n_in, column < f.n_out);
        const uint4 lower = load_words(w + 8 * f.n_in, at, f.n_in, column + 8 < f.n_out);
        multiply_words(sum[0], upper, lower, load_words(x, at, f.n_in, g < n_row));
        if (n_row > ROW_TILE) {
            const uint4 row = load_words(x + 8 * f.n_in, at, f.n_in, g + 8 < n_row);
            multiply_words(sum[1], upper, lower, row);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = i / 4 * ROW_TILE + 2 * t + i % 2;
        parts[warp][row][g + i % 4 / 2 * 8] = sum[i / 4][i % 4];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_row * COLUMNS; i += WARPS * MT_WARP) {
        const int row = i / COLUMNS;
        const int64_t at = (int64_t)blockIdx.x * COLUMNS + i % COLUMNS;
        float all = 0.0F;
        for (int part = 0; part < WARPS; part++) {
            all += parts[part][row][i % COLUMNS];
        }
        if (at < f.n_out) {
            f.y[(f.first[group] + row) * f.n_out + at] = all;
        }
    }
}

bool mt_cuda_has_few_rows(const struct mt_cuda *cuda, const void *x,
                          const struct mt_weight *const *weight, struct mt_groups groups)
{
    bool is_right = cuda->dtype == MT_BFLOAT16 && groups.n_group > 1 && weight[0]->n_in % 8 == 0 &&
                    reinterpret_cast<uintptr_t>(x) % 16 == 0;
    for (int i = 0; i < groups.n_group; i++) {
        is_right = is_right && groups.offset[i + 1] - groups.offset[i] <= cuda->ways.few_rows &&
                   reinterpret_cast<uintptr_t>(weight[i]->forward_pack) % 16 == 0;
    }
    return is_right;
}

static void launch(struct mt_cuda *cuda, const struct few_rows *f, int n_group)
{
    if (n_group > 0) {
        const dim3 grid(mt_cuda_blocks(f->n_out, COLUMNS), (unsigned)n_group);
        mt_launch(multiply_few_rows, grid, WARPS * MT_WARP, 0, cuda->stream, *f);
    }
}

void mt_cuda_few_rows_forward(struct mt_cuda *cuda, float *y, const void *x,
                              const struct mt_weight *const *weight, struct mt_groups groups)
{
    struct few_rows f = {};
    f.y = y;
    f.x = static_cast<const uint16_t *>(x);
    f.n_out = weight[0]->n_out;
    f.n_in = weight[0]->n_in;
    int n = 0;
    for (int i = 0; i < groups.n_group; i++) {
        if (n == MT_CUDA_FEW_GROUPS) {
            launch(cuda, &f, n);
            n = 0;
        }
        f.first[n] = (int)(groups.offset[i] - groups.offset[0]);
        f.first[n + 1] = (int)(groups.offset[i + 1] - groups.offset[0]);
        f.weight[n] = static_cast<const uint16_t *>(weight[i]->forward_pack);
        n += f.first[n + 1] > f.first[n] ? 1 : 0;
    }
    launch(cuda, &f, n);
}
