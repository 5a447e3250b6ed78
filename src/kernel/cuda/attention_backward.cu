/* Attention backward: probabilities are computed again from the saved logarithms, tile by tile.
 * With p = exp(s - lse), D = <d_o, o> of a row: d_s = p (<d_o, v> - D), d_q = scale d_s k, d_k =
 * scale d_s^T q, d_v = p^T d_o. Queries and keys have a kernel each, so that every sum belongs
 * to one block and has one order; scores are computed twice for it. */
#include "kernel/cuda/attention_bf16.cuh"

enum { DOT_WARPS = 8 };

/* out_dot [B,H,T] = <d_o, o>, a warp a row. */
__global__ void __launch_bounds__(DOT_WARPS *MT_WARP)
    multiply_outputs(float *out_dot, const struct attention a, int64_t n)
{
    const int64_t row = (int64_t)blockIdx.x * DOT_WARPS + threadIdx.x / MT_WARP;
    const struct mt_attention s = a.shape;
    if (row >= n) {
        return;
    }
    float sum = 0.0F;
    for (int64_t d = threadIdx.x % MT_WARP; d < s.head_dim; d += MT_WARP) {
        sum += a.d_o[row * s.head_dim + d] * a.out[row * s.head_dim + d];
    }
    sum = mt_warp_sum(sum);
    if (threadIdx.x % MT_WARP == 0) {
        const int64_t token = row / s.n_head;
        const int64_t head = token / s.length * s.n_head + row % s.n_head;
        out_dot[head * s.length + token % s.length] = sum;
    }
}

/* A tile of queries against all keys that it sees. */
template <int QUADS>
__global__ void __launch_bounds__(ATTENTION_THREADS, QUADS < 8 ? 2 : 1)
    differ_queries(const struct attention a)
{
    MT_DYN_SHARED(float, tiles);
    float *q = tiles;
    float *d_o = q + tile<QUADS>::FLOATS;
    float *k = d_o + tile<QUADS>::FLOATS;
    float *v = k + tile<QUADS>::FLOATS;
    const struct mt_attention s = a.shape;
    const int mine = (int)(threadIdx.x / TEAM);
    const int lane = (int)(threadIdx.x % TEAM);
    float *d_scores = v + tile<QUADS>::FLOATS + mine * SCORE_STRIDE;
    const struct place at = place_of_block(a);
    const int64_t head = blockIdx.y;
    const int64_t kv_head = head / (s.n_head / s.n_kv_head);
    const int64_t stride = s.n_head * s.head_dim;
    const int64_t kv_stride = s.n_kv_head * s.head_dim;
    const int64_t query = token_of(s, at) * stride + head * s.head_dim;
    const int64_t keys = token_of(s, at) * kv_stride + kv_head * s.head_dim;
    const int position = at.first + mine;
    const int64_t saved = saved_at(s, at, head) + position;
    const float lse = position < at.length ? a.lse[saved] : 0.0F;
    const float out_dot = position < at.length ? a.out_dot[saved] : 0.0F;
    float4 sum[QUADS];
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        sum[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    load_tile<QUADS>(q, a, {a.q + query, stride, at.length, 0}, at.first, true);
    load_tile<QUADS>(d_o, a, {a.d_o + query, stride, at.length, 0}, at.first, false);
    for (int key = 0; key <= at.first; key += TILE) {
        float score[PER_THREAD];
        float d_p[PER_THREAD];
        __syncthreads(); /* the tiles before are read */
        load_tile<QUADS>(k, a, {a.k + keys, kv_stride, at.length, 0}, key, true);
        load_tile<QUADS>(v, a, {a.v + keys, kv_stride, at.length, 0}, key, false);
        __syncthreads();
        const int n_key = (int)mt_cuda_min(TILE, position - key + 1);
        multiply_row<QUADS>(score, q + mine * tile<QUADS>::STRIDE, k);
        multiply_row<QUADS>(d_p, d_o + mine * tile<QUADS>::STRIDE, v);
#pragma unroll
        for (int j = 0; j < PER_THREAD; j++) {
            const float p = expf(score[j] * a.scale - lse);
            d_scores[lane + TEAM * j] = p * (d_p[j] - out_dot) * a.scale;
        }
        __syncwarp();
        add_rows<QUADS>(sum, d_scores, k, 0, n_key);
    }
    store_row<QUADS>(a.d_q + query + position * stride, q + mine * tile<QUADS>::STRIDE, sum, a,
                     position, at.length, true);
}

/* A tile of keys against all queries that see it, of all heads that share it. */
template <int QUADS>
__global__ void __launch_bounds__(ATTENTION_THREADS, QUADS < 4 ? 2 : 1)
    differ_keys(const struct attention a)
{
    MT_DYN_SHARED(float, tiles);
    float *k = tiles;
    float *v = k + tile<QUADS>::FLOATS;
    float *q = v + tile<QUADS>::FLOATS;
    float *d_o = q + tile<QUADS>::FLOATS;
    const struct mt_attention s = a.shape;
    const int mine = (int)(threadIdx.x / TEAM);
    const int lane = (int)(threadIdx.x % TEAM);
    float *scores = d_o + tile<QUADS>::FLOATS + mine * SCORE_STRIDE;
    float *d_scores = scores + SCORE_FLOATS;
    const struct place at = place_of_block(a);
    const int group = (int)(s.n_head / s.n_kv_head);
    const int64_t stride = s.n_head * s.head_dim;
    const int64_t kv_stride = s.n_kv_head * s.head_dim;
    const int64_t keys = token_of(s, at) * kv_stride + blockIdx.y * s.head_dim;
    const int n_tile = (at.length - at.first + TILE - 1) / TILE; /* of queries, a head */
    float4 d_k[QUADS];
    float4 d_v[QUADS];
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        d_k[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        d_v[i] = d_k[i];
    }
    load_tile<QUADS>(k, a, {a.k + keys, kv_stride, at.length, 0}, at.first, true);
    load_tile<QUADS>(v, a, {a.v + keys, kv_stride, at.length, 0}, at.first, false);
    for (int i = 0; i < group * n_tile; i++) {
        const int64_t head = blockIdx.y * group + i / n_tile;
        const int queries = at.first + i % n_tile * TILE;
        const int64_t query = token_of(s, at) * stride + head * s.head_dim;
        const int64_t saved = saved_at(s, at, head) + queries;
        float score[PER_THREAD];
        float d_p[PER_THREAD];
        __syncthreads(); /* the tiles before are read */
        load_tile<QUADS>(q, a, {a.q + query, stride, at.length, 0}, queries, true);
        load_tile<QUADS>(d_o, a, {a.d_o + query, stride, at.length, 0}, queries, false);
        __syncthreads();
        multiply_row<QUADS>(score, k + mine * tile<QUADS>::STRIDE, q);
        multiply_row<QUADS>(d_p, v + mine * tile<QUADS>::STRIDE, d_o);
#pragma unroll
        for (int j = 0; j < PER_THREAD; j++) {
            const int row = lane + TEAM * j;
            const bool is_inside = queries + row < at.length;
            const float p = expf(score[j] * a.scale - (is_inside ? a.lse[saved + row] : 0.0F));
            scores[row] = p;
            d_scores[row] = p * (d_p[j] - (is_inside ? a.out_dot[saved + row] : 0.0F)) * a.scale;
        }
        __syncwarp();
        const int begin = (int)mt_cuda_max(0, at.first + mine - queries);
        const int end = (int)mt_cuda_min(TILE, at.length - queries);
        add_rows<QUADS>(d_k, d_scores, q, begin, end);
        add_rows<QUADS>(d_v, scores, d_o, begin, end);
    }
    const int position = at.first + mine;
    const int64_t out = keys + position * kv_stride;
    store_row<QUADS>(a.d_k + out, k + mine * tile<QUADS>::STRIDE, d_k, a, position, at.length,
                     true);
    store_row<QUADS>(a.d_v + out, v + mine * tile<QUADS>::STRIDE, d_v, a, position, at.length,
                     false);
}

template <int QUADS> static void launch_differ(struct mt_cuda *cuda, const struct attention &a)
{
    const int64_t bytes = (4 * tile<QUADS>::FLOATS + 2 * SCORE_FLOATS) * (int64_t)sizeof(float);
    const void *kernels[2] = {reinterpret_cast<const void *>(&differ_queries<QUADS>),
                              reinterpret_cast<const void *>(&differ_keys<QUADS>)};
    for (int i = 0; i < 2; i++) {
        mt_cuda_check(cuda,
                      cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)bytes),
                      "asking for shared memory");
    }
    const unsigned n_place = (unsigned)a.n_place;
    mt_launch(differ_queries<QUADS>, dim3(n_place, (unsigned)a.shape.n_head), ATTENTION_THREADS,
              bytes, cuda->stream, a);
    mt_launch(differ_keys<QUADS>, dim3(n_place, (unsigned)a.shape.n_kv_head), ATTENTION_THREADS,
              bytes, cuda->stream, a);
}

int64_t mt_cuda_attention_scratch_bytes(enum mt_dtype dtype, const struct mt_attention *shape)
{
    if (attention_is_bf16(dtype, shape)) {
        return mt_cuda_attention_bf16_bytes(shape);
    }
    return shape->n_sequence * shape->n_head * shape->length * (int64_t)sizeof(float);
}

void mt_cuda_attention_backward(struct mt_cuda *cuda, const struct mt_attention_backward *args,
                                const struct mt_attention *shape)
{
    struct attention a = attention_of(shape, args->q, args->k, args->v, args->rope);
    float *out_dot = static_cast<float *>(args->scratch);
    const int64_t n = shape->n_sequence * shape->length * shape->n_head;
    a.d_q = args->d_q;
    a.d_k = args->d_k;
    a.d_v = args->d_v;
    a.d_o = args->d_o;
    a.out = args->o;
    a.out_dot = out_dot;
    a.lse = const_cast<float *>(args->lse);
    a.has_quads = a.has_quads && mt_has_quads(args->d_o, shape->head_dim) &&
                  mt_has_quads(args->o, shape->head_dim);
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
        mt_cuda_attention_backward_bf16(cuda, a, args->scratch);
        return;
    }
    mt_launch(multiply_outputs, mt_cuda_blocks(n, DOT_WARPS), DOT_WARPS * MT_WARP, 0, cuda->stream,
              out_dot, a, n);
    MT_ATTENTION_BY_WIDTH(launch_differ, cuda, a);
}
