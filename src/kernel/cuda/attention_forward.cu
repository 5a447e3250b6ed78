/* Attention forward in tiles of 32 queries by 32 keys: scores live in registers and one tile of
 * shared memory, the softmax is carried along (running maximum and sum of Milakov & Gimelshein
 * 2018, blocks as in FlashAttention, Dao et al. 2022). T x T exists nowhere. */
#include "kernel/cuda/attention_bf16.cuh"

/* One position's running softmax. */
struct running {
    float largest, sum;
};

__device__ __forceinline__ float team_max(float x)
{
    for (int step = 1; step < TEAM; step *= 2) {
        x = fmaxf(x, __shfl_xor_sync(mt_all_lanes, x, step));
    }
    return x;
}

__device__ __forceinline__ float team_sum(float x)
{
    for (int step = 1; step < TEAM; step *= 2) {
        x += __shfl_xor_sync(mt_all_lanes, x, step);
    }
    return x;
}

/* Scores to probabilities of the first n keys, relative to the new maximum; returns the factor by
 * which earlier results shrink. */
__device__ __forceinline__ float soften(struct running *run, float score[PER_THREAD], float scale,
                                        int n_key)
{
    const int lane = (int)(threadIdx.x % TEAM);
    float largest = run->largest;
#pragma unroll
    for (int j = 0; j < PER_THREAD; j++) {
        score[j] *= scale;
        largest = lane + TEAM * j < n_key ? fmaxf(largest, score[j]) : largest;
    }
    largest = team_max(largest);
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < PER_THREAD; j++) {
        score[j] = lane + TEAM * j < n_key ? expf(score[j] - largest) : 0.0F;
        sum += score[j];
    }
    const float shrink = expf(run->largest - largest);
    run->sum = run->sum * shrink + team_sum(sum);
    run->largest = largest;
    return shrink;
}

template <int QUADS>
__global__ void __launch_bounds__(ATTENTION_THREADS, QUADS < 8 ? 2 : 1)
    attend(const struct attention a)
{
    MT_DYN_SHARED(float, tiles);
    float *q = tiles;
    float *k = q + tile<QUADS>::FLOATS;
    float *v = k + tile<QUADS>::FLOATS;
    float *scores = v + tile<QUADS>::FLOATS;
    const struct mt_attention s = a.shape;
    const int mine = (int)(threadIdx.x / TEAM);
    const int lane = (int)(threadIdx.x % TEAM);
    const struct place at = place_of_block(a);
    const int64_t head = blockIdx.y;
    const int64_t kv_head = head / (s.n_head / s.n_kv_head);
    const int64_t stride = s.n_head * s.head_dim;
    const int64_t kv_stride = s.n_kv_head * s.head_dim;
    const int64_t own = token_of(s, at) * stride + head * s.head_dim;
    const int64_t other = token_of(s, at) * kv_stride + kv_head * s.head_dim;
    const int n_past = (int)s.n_past;
    const int end = n_past + (int)mt_cuda_min(at.first + TILE, at.length);
    struct running run = {-INFINITY, 0.0F};
    float4 sum[QUADS];
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        sum[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    load_tile<QUADS>(q, a, {a.q + own, stride, at.length, n_past}, at.first, true);
    for (int key = 0; key < end; key += TILE) {
        float score[PER_THREAD];
        __syncthreads(); /* the tiles before are read */
        load_tile<QUADS>(k, a, {a.k + other, kv_stride, end, 0}, key, true);
        load_tile<QUADS>(v, a, {a.v + other, kv_stride, end, 0}, key, false);
        __syncthreads();
        /* Behind a past a tile of keys may begin after some queries: 0 or less changes nothing. */
        const int n_key = (int)mt_cuda_min(TILE, n_past + at.first + mine - key + 1);
        multiply_row<QUADS>(score, q + mine * tile<QUADS>::STRIDE, k);
        const float shrink = soften(&run, score, a.scale, n_key);
#pragma unroll
        for (int j = 0; j < PER_THREAD; j++) {
            scores[mine * SCORE_STRIDE + lane + TEAM * j] = score[j];
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            sum[i] = mt_scale4(sum[i], shrink);
        }
        add_rows<QUADS>(sum, scores + mine * SCORE_STRIDE, v, 0, n_key);
    }
    const int row = at.first + mine;
    if (row >= at.length) {
        return;
    }
    float *o = a.o + own + row * stride;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        const int64_t d = 4 * (lane + TEAM * i);
        if (d < s.head_dim) {
            mt_store_quad(o, d, s.head_dim, a.has_quads, mt_scale4(sum[i], 1.0F / run.sum));
        }
    }
    if (lane == 0) {
        a.lse[saved_at(s, at, head) + row] = run.largest + logf(run.sum);
    }
}

template <int QUADS> static void launch_attend(struct mt_cuda *cuda, const struct attention &a)
{
    const int64_t bytes = (3 * tile<QUADS>::FLOATS + SCORE_FLOATS) * (int64_t)sizeof(float);
    mt_cuda_check(cuda,
                  cudaFuncSetAttribute(reinterpret_cast<const void *>(&attend<QUADS>),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                  "asking for shared memory");
    const dim3 grid((unsigned)a.n_place, (unsigned)a.shape.n_head);
    mt_launch(attend<QUADS>, grid, ATTENTION_THREADS, bytes, cuda->stream, a);
}

void mt_cuda_attention_forward(struct mt_cuda *cuda, const struct mt_attention_forward *args,
                               const struct mt_attention *shape)
{
    struct attention a = attention_of(shape, args->q, args->k, args->v, args->rope);
    a.o = args->o;
    a.lse = args->lse;
    a.has_quads = a.has_quads && mt_has_quads(args->o, shape->head_dim);
    a.rope_has_quads = a.rope_has_quads && a.has_quads;
    if (shape->head_dim > MT_CUDA_HEAD_DIM) {
        mt_cuda_refuse(cuda, "heads wider than 256 do not fit the GPU's attention; expected "
                             "model.head_dim <= 256; use more heads, or device.kind = \"cpu\"");
        return;
    }
    const bool is_bf16 = attention_is_bf16(cuda->dtype, shape);
    if (!mt_cuda_attention_places(cuda, &a, args->segments, is_bf16 ? (int)ROWS : (int)TILE)) {
        return;
    }
    if (is_bf16) {
        mt_cuda_attention_forward_bf16(cuda, a, args->scratch);
    } else {
        MT_ATTENTION_BY_WIDTH(launch_attend, cuda, a);
    }
}
