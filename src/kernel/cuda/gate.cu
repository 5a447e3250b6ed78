/* The gate: a warp a token; lane l has the experts l, l + 32, ... Sums over tokens in chunks,
 * chunks in order, in double, as their results are. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

/* Tokens of a chunk; there are at most MAX_CHUNKS, which grow with n. */
enum { WARPS = 4, CHUNK_TOKENS = 64, MAX_CHUNKS = 256, THREADS = 128 };

/* ---- choosing ---- */

/* NaN last, then the smaller logit, then the higher id; id -1 is behind all. */
__device__ __forceinline__ bool is_better(float x, int x_id, float y, int y_id)
{
    if (x_id < 0 || y_id < 0) {
        return y_id < 0 && x_id >= 0;
    }
    const bool x_is_nan = x != x;
    const bool y_is_nan = y != y;
    if (x_is_nan != y_is_nan) {
        return y_is_nan;
    }
    if (!x_is_nan && x != y) {
        return x > y;
    }
    return x_id < y_id;
}

/* The best expert that no lane has taken; `taken`: this lane's, bit j for its j-th. */
__device__ __forceinline__ int choose(const float *logits, int64_t n_expert, uint64_t taken)
{
    float best = 0.0F;
    int best_id = -1;
    int j = 0;
    for (int64_t e = threadIdx.x % MT_WARP; e < n_expert; e += MT_WARP) {
        if ((taken >> j & 1U) == 0 && is_better(logits[e], (int)e, best, best_id)) {
            best = logits[e];
            best_id = (int)e;
        }
        j++;
    }
    for (int step = MT_WARP / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(mt_all_lanes, best, step);
        const int other_id = __shfl_xor_sync(mt_all_lanes, best_id, step);
        if (is_better(other, other_id, best, best_id)) {
            best = other;
            best_id = other_id;
        }
    }
    return best_id;
}

/* weight [K] of a token from its choices: exp(z - z of the best), over their sum when
 * normalised. */
__device__ __forceinline__ void weigh(float *weight, const int32_t *expert, const float *logits,
                                      const float *probability, float lse,
                                      const struct mt_gate &gate)
{
    const int lane = (int)(threadIdx.x % MT_WARP);
    float largest = -INFINITY;
    for (int64_t k = 0; k < gate.top_k; k++) {
        largest = fmaxf(largest, logits[expert[k]]);
    }
    float sum = 0.0F;
    for (int64_t k = 0; k < gate.top_k; k++) {
        sum += expf(logits[expert[k]] - largest);
    }
    for (int64_t k = lane; k < gate.top_k; k += MT_WARP) {
        const float share =
            gate.normalize ? expf(logits[expert[k]] - largest) / sum : probability[expert[k]];
        weight[k] = gate.scale * (lse != lse ? lse : share); /* a NaN shows in all of its row */
    }
}

__global__ void __launch_bounds__(WARPS *MT_WARP, 8)
    choose_experts(const struct mt_gate_forward a, int64_t n, const struct mt_gate gate)
{
    const int64_t token = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    const int lane = (int)(threadIdx.x % MT_WARP);
    if (token >= n) {
        return;
    }
    const float *logits = a.logits + token * gate.n_expert;
    float *probability = a.probability + token * gate.n_expert;
    int32_t *expert = a.expert + token * gate.top_k;
    float largest = -INFINITY;
    for (int64_t e = lane; e < gate.n_expert; e += MT_WARP) {
        largest = fmaxf(largest, logits[e]);
    }
    largest = mt_warp_max(largest);
    float sum = 0.0F;
    for (int64_t e = lane; e < gate.n_expert; e += MT_WARP) {
        sum += expf(logits[e] - largest);
    }
    sum = mt_warp_sum(sum);
    for (int64_t e = lane; e < gate.n_expert; e += MT_WARP) {
        probability[e] = expf(logits[e] - largest) / sum;
    }
    const float lse = largest + logf(sum);
    if (lane == 0) {
        a.lse[token] = lse;
    }
    uint64_t taken = 0;
    for (int64_t k = 0; !a.is_given && k < gate.top_k; k++) {
        const int best = choose(logits, gate.n_expert, taken);
        taken |= best % MT_WARP == lane ? (uint64_t)1 << (best / MT_WARP) : 0;
        if (lane == 0) {
            expert[k] = best;
        }
    }
    __syncwarp();
    weigh(a.weight + token * gate.top_k, expert, logits, probability, lse, gate);
}

/* ---- sums over tokens ---- */

struct token_sums {
    double *probability; /* [chunks, E] */
    double *lse_square;  /* [chunks] */
    int64_t *count;      /* [chunks, E] */
    int64_t n_chunk, chunk;
};

__global__ void __launch_bounds__(THREADS)
    sum_chunks(const struct token_sums s, const struct mt_gate_forward a, int64_t n,
               const struct mt_gate gate)
{
    const int64_t begin = blockIdx.x * s.chunk;
    const int64_t end = mt_cuda_min(n, begin + s.chunk);
    for (int64_t e = threadIdx.x; e < gate.n_expert; e += THREADS) {
        double sum = 0.0;
        int64_t count = 0;
        for (int64_t t = begin; t < end; t++) {
            sum += (double)a.probability[t * gate.n_expert + e];
        }
        for (int64_t i = begin * gate.top_k; i < end * gate.top_k; i++) {
            count += a.expert[i] == e ? 1 : 0;
        }
        s.probability[blockIdx.x * gate.n_expert + e] = sum;
        s.count[blockIdx.x * gate.n_expert + e] = count;
    }
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int64_t t = begin; t < end; t++) {
            sum += (double)a.lse[t] * (double)a.lse[t];
        }
        s.lse_square[blockIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(THREADS)
    join_chunks(const struct token_sums s, const struct mt_gate_forward a, int64_t n_expert)
{
    const int64_t e = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (e < n_expert) {
        double sum = 0.0;
        int64_t count = 0;
        for (int64_t chunk = 0; chunk < s.n_chunk; chunk++) {
            sum += s.probability[chunk * n_expert + e];
            count += s.count[chunk * n_expert + e];
        }
        a.probability_sum[e] = sum;
        a.count[e] = count;
    }
    if (e == 0) {
        double sum = 0.0;
        for (int64_t chunk = 0; chunk < s.n_chunk; chunk++) {
            sum += s.lse_square[chunk];
        }
        *a.lse_square_sum = sum;
    }
}

static bool cut_sums(struct mt_cuda *cuda, struct token_sums *s, int64_t n, int64_t n_expert)
{
    const int64_t bytes = (int64_t)sizeof(double);
    s->chunk = mt_cuda_max(CHUNK_TOKENS, mt_cuda_ceil(n, MAX_CHUNKS));
    s->n_chunk = mt_cuda_ceil(n, s->chunk);
    s->probability = static_cast<double *>(mt_cuda_cut(cuda, s->n_chunk * n_expert * bytes));
    s->count = static_cast<int64_t *>(mt_cuda_cut(cuda, s->n_chunk * n_expert * bytes));
    s->lse_square = static_cast<double *>(mt_cuda_cut(cuda, s->n_chunk * bytes));
    return s->lse_square != NULL;
}

void mt_cuda_gate_forward(struct mt_cuda *cuda, const struct mt_gate_forward *args, int64_t n,
                          const struct mt_gate *gate)
{
    struct token_sums sums = {};
    mt_cuda_begin(cuda);
    if (gate->n_expert > MT_CUDA_MAX_EXPERT) {
        mt_cuda_refuse(cuda, "the GPU's gate chooses among at most 2048 experts; expected "
                             "model.experts <= 2048; use fewer, or device.kind = \"cpu\"");
        return;
    }
    if (!cut_sums(cuda, &sums, n, gate->n_expert)) {
        return;
    }
    if (n > 0) {
        mt_launch(choose_experts, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *args,
                  n, *gate);
        mt_launch(sum_chunks, (unsigned)sums.n_chunk, THREADS, 0, cuda->stream, sums, *args, n,
                  *gate);
    }
    mt_launch(join_chunks, mt_cuda_blocks(gate->n_expert, THREADS), THREADS, 0, cuda->stream, sums,
              *args, gate->n_expert);
}

/* ---- backward ---- */

/* The gradient that reaches the logit of one choice through the weights, without what all logits of
 * the token get. */
__device__ __forceinline__ float through_weight(const struct mt_gate_backward &a, int64_t pair,
                                                float mean, const struct mt_gate &gate)
{
    const float w = a.weight[pair];
    return gate.normalize ? w * (a.d_weight[pair] - mean) : w * a.d_weight[pair];
}

__global__ void __launch_bounds__(WARPS *MT_WARP)
    differ_gate(const struct mt_gate_backward a, int64_t n, const struct mt_gate gate)
{
    const int64_t token = (int64_t)blockIdx.x * WARPS + threadIdx.x / MT_WARP;
    const int lane = (int)(threadIdx.x % MT_WARP);
    if (token >= n) {
        return;
    }
    const float *p = a.probability + token * gate.n_expert;
    const int64_t pairs = token * gate.top_k;
    float dot = 0.0F; /* sum of w g */
    for (int64_t k = 0; k < gate.top_k; k++) {
        dot += a.weight[pairs + k] * a.d_weight[pairs + k];
    }
    float balance = 0.0F; /* sum of f p */
    for (int64_t e = lane; a.f != nullptr && e < gate.n_expert; e += MT_WARP) {
        balance += a.f[e] * p[e];
    }
    balance = mt_warp_sum(balance);
    const float mean = dot / gate.scale;
    const float z = a.z_scale * a.lse[token];
    for (int64_t e = lane; e < gate.n_expert; e += MT_WARP) {
        float d = z * p[e];
        d += a.f != nullptr ? a.balance_scale * p[e] * (a.f[e] - balance) : 0.0F;
        d -= gate.normalize ? 0.0F : dot * p[e];
        for (int64_t k = 0; k < gate.top_k; k++) {
            if (a.expert[pairs + k] == e) {
                d += through_weight(a, pairs + k, mean, gate);
            }
        }
        a.d_logits[token * gate.n_expert + e] = d;
    }
}

void mt_cuda_gate_backward(struct mt_cuda *cuda, const struct mt_gate_backward *args, int64_t n,
                           const struct mt_gate *gate)
{
    mt_launch(differ_gate, mt_cuda_blocks(n, WARPS), WARPS * MT_WARP, 0, cuda->stream, *args, n,
              *gate);
}
