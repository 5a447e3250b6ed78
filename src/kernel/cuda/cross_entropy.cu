/* Cross-entropy: a block a row; the row's largest logit, the sum of its exponentials, its gradient.
 * The loss of a row and the sum over rows are in double, as on the CPU. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { THREADS = 256, WARPS = THREADS / MT_WARP };

struct loss {
    float *logits; /* [n,V] */
    const int32_t *target;
    double *row_loss; /* [n] */
    int64_t vocab;
    float scale;
    bool has_quads;
};

/* Of all threads, in every thread; one order of sums. */
__device__ float reduce_block(float *values, float mine, bool is_max)
{
    const float warp = is_max ? mt_warp_max(mine) : mt_warp_sum(mine);
    __syncthreads();
    if (threadIdx.x % MT_WARP == 0) {
        values[threadIdx.x / MT_WARP] = warp;
    }
    __syncthreads();
    float all = values[0];
    for (int i = 1; i < WARPS; i++) {
        all = is_max ? fmaxf(all, values[i]) : all + values[i];
    }
    return all;
}

__device__ __forceinline__ float exp_from(float x, float largest)
{
    return expf(x - largest);
}

__global__ void __launch_bounds__(THREADS) lose_rows(const struct loss a)
{
    MT_SHARED(float, values, [WARPS]);
    float *row = a.logits + blockIdx.x * a.vocab;
    const int64_t first = 4 * (int64_t)threadIdx.x;
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < a.vocab; i += THREADS) {
        largest = fmaxf(largest, row[i]);
    }
    largest = reduce_block(values, largest, true);
    float sum = 0.0F;
    for (int64_t i = first; i < a.vocab; i += 4 * THREADS) {
        const float4 v = mt_load_quad(row, i, a.vocab, a.has_quads);
        sum += exp_from(v.x, largest);
        sum += i + 1 < a.vocab ? exp_from(v.y, largest) : 0.0F;
        sum += i + 2 < a.vocab ? exp_from(v.z, largest) : 0.0F;
        sum += i + 3 < a.vocab ? exp_from(v.w, largest) : 0.0F;
    }
    sum = reduce_block(values, sum, false);
    const int64_t target = a.target[blockIdx.x];
    const float at_target = row[target];
    __syncthreads(); /* read before the gradient takes its place */
    if (threadIdx.x == 0) {
        a.row_loss[blockIdx.x] = log((double)sum) - ((double)at_target - (double)largest);
    }
    if (a.scale == 0.0F) {
        return;
    }
    const float factor = a.scale / sum;
    for (int64_t i = first; i < a.vocab; i += 4 * THREADS) {
        const float4 v = mt_load_quad(row, i, a.vocab, a.has_quads);
        const float onehot[4] = {i == target ? a.scale : 0.0F, i + 1 == target ? a.scale : 0.0F,
                                 i + 2 == target ? a.scale : 0.0F,
                                 i + 3 == target ? a.scale : 0.0F};
        mt_store_quad(row, i, a.vocab, a.has_quads,
                      make_float4(exp_from(v.x, largest) * factor - onehot[0],
                                  exp_from(v.y, largest) * factor - onehot[1],
                                  exp_from(v.z, largest) * factor - onehot[2],
                                  exp_from(v.w, largest) * factor - onehot[3]));
    }
}

/* One block: thread t sums the t-th part of the rows in order, thread 0 the parts. */
__global__ void __launch_bounds__(THREADS)
    sum_losses(double *loss, const double *row_loss, int64_t n)
{
    MT_SHARED(double, sums, [THREADS]);
    const int64_t part = mt_cuda_ceil(n, THREADS);
    const int64_t end = mt_cuda_min(n, (threadIdx.x + 1) * part);
    double sum = 0.0;
    for (int64_t i = threadIdx.x * part; i < end; i++) {
        sum += row_loss[i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0.0;
        for (int i = 0; i < THREADS; i++) {
            sum += sums[i];
        }
        *loss = sum;
    }
}

void mt_cuda_cross_entropy(struct mt_cuda *cuda, double *loss, float *logits, const int32_t *target,
                           int64_t n, int64_t vocab, float scale)
{
    mt_cuda_begin(cuda);
    double *row_loss = static_cast<double *>(mt_cuda_cut(cuda, n * (int64_t)sizeof(double)));
    if (row_loss == NULL) {
        return;
    }
    const struct loss a = {logits, target, row_loss, vocab, scale, mt_has_quads(logits, vocab)};
    if (n > 0) {
        mt_launch(lose_rows, (unsigned)n, THREADS, 0, cuda->stream, a);
    }
    mt_launch(sum_losses, 1, THREADS, 0, cuda->stream, loss, row_loss, n);
}
