/* Attention forward on matrix instructions: 64 queries a block, 64 keys at a time, of which the
 * next are under way while these are multiplied. */
#include "kernel/cuda/attention_bf16.cuh"

enum { BLOCKS = ROWS / BLOCK };

/* Two rows' running softmax: of the whole row the largest score, of this lane's columns the sum. */
struct running_rows {
    float largest[2], sum[2];
};

/* Scores of 64 keys that begin `ahead` positions after the warp's first query: what comes later
 * than a query is none of its own. */
__device__ __forceinline__ void hide_later(float (&score)[BLOCKS][2][4], int ahead)
{
    const int row = row_of_lane();
    const int column = ahead + column_of_thread();
#pragma unroll
    for (int i = 0; i < BLOCKS * 8; i++) {
        const int key = column + i / 4 * 8 + i % 2;
        if (key > row + i % 4 / 2 * 8) {
            score[i / 8][i / 4 % 2][i % 4] = -INFINITY;
        }
    }
}

/* Scores to exponentials relative to the new largest; whether what was summed before has to shrink,
 * by how much. */
__device__ __forceinline__ bool soften(struct running_rows *run, float (&score)[BLOCKS][2][4],
                                       float (&shrink)[2], float exponent)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float largest = run->largest[row];
#pragma unroll
        for (int i = 0; i < BLOCKS * 4; i++) {
            largest = fmaxf(largest, score[i / 4][i / 2 % 2][row * 2 + i % 2]);
        }
        largest = row_max(largest);
        shrink[row] = exp2f((run->largest[row] - largest) * exponent);
        run->largest[row] = largest;
        run->sum[row] *= shrink[row];
#pragma unroll
        for (int i = 0; i < BLOCKS * 4; i++) {
            float &x = score[i / 4][i / 2 % 2][row * 2 + i % 2];
            x = exp2f(x * exponent - largest * exponent);
            run->sum[row] += x;
        }
    }
    return __ballot_sync(mt_all_lanes, shrink[0] != 1.0F || shrink[1] != 1.0F) != 0;
}

/* One tile of keys and values, of which the first key is `ahead` of the warp's first query. */
template <int WIDTH>
__device__ __forceinline__ void attend_tile(float (&sum)[WIDTH / 8][4], struct running_rows *run,
                                            const unsigned (&q)[WIDTH / BLOCK][4],
                                            const uint16_t *keys, float exponent, int ahead)
{
    const uint16_t *values = keys + rows_tile<WIDTH>::ELEMENTS;
    float score[BLOCKS][2][4];
    float shrink[2];
#pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        multiply_block<WIDTH>(score[i], q, keys + i * BLOCK * rows_tile<WIDTH>::STRIDE);
    }
    if (ahead + ROWS - 1 > 0) {
        hide_later(score, ahead);
    }
    if (soften(run, score, shrink, exponent)) {
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) {
            sum[i / 4][i % 4] *= shrink[i % 4 / 2];
        }
    }
#pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
        add_block<WIDTH>(sum, score[i], values + i * BLOCK * rows_tile<WIDTH>::STRIDE);
    }
}

/* Later tiles of queries see more keys: they go first, so that no long one is the last. */
template <int WIDTH>
__global__ void __launch_bounds__(ROW_THREADS, 2) attend_bf16(const struct attention_bf16 m)
{
    enum { STAGE = 2 * rows_tile<WIDTH>::ELEMENTS };
    MT_DYN_SHARED(uint16_t, stages);
    const struct attention &a = m.a;
    const struct mt_attention &s = a.shape;
    const struct place at = place_at(a.places, gridDim.x - 1 - blockIdx.x, (int)s.length, ROWS);
    const int64_t head = blockIdx.y;
    const int64_t kv_head = head / (s.n_head / s.n_kv_head);
    const int64_t token = token_of(s, at);
    const int n_past = (int)s.n_past;
    const int n_key = n_past + (int)mt_cuda_min(at.first + ROWS, at.length);
    const int query = n_past + at.first + (int)threadIdx.x / MT_WARP * BLOCK; /* the warp's first */
    const bool is_there = query < n_past + at.length; /* any of the warp's */
    const int64_t key_row = (kv_head * m.n_key + token) * WIDTH;
    const struct head_rows queries = {m.q + (head * m.n_query + token) * WIDTH, at.length};
    const struct head_rows keys = {m.k + key_row, n_key};
    const struct head_rows values = {m.v + key_row, n_key};
    unsigned q[WIDTH / BLOCK][4];
    float sum[WIDTH / 8][4];
    struct running_rows run = {{-INFINITY, -INFINITY}, {0.0F, 0.0F}};
    clear_sums<WIDTH>(sum);
    fetch_rows<WIDTH>(stages + STAGE, queries, at.first);
    fetch_rows<WIDTH>(stages, keys, 0);
    fetch_rows<WIDTH>(stages + rows_tile<WIDTH>::ELEMENTS, values, 0);
    mt_copies_wait();
    __syncthreads();
    read_own<WIDTH>(q, stages + STAGE);
    for (int key = 0; key < n_key; key += ROWS) {
        uint16_t *stage = stages + key / ROWS % 2 * STAGE;
        uint16_t *next = stages + (key / ROWS + 1) % 2 * STAGE;
        mt_copies_wait();
        __syncthreads(); /* all have their copies, and have read the stage that is filled now */
        if (key + ROWS < n_key) {
            fetch_rows<WIDTH>(next, keys, key + ROWS);
            fetch_rows<WIDTH>(next + rows_tile<WIDTH>::ELEMENTS, values, key + ROWS);
        }
        if (is_there && key - query < BLOCK) {
            attend_tile<WIDTH>(sum, &run, q, stage, m.exponent, key - query);
        }
    }
    float factor[2];
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const float all = row_sum(run.sum[row]);
        const int position = at.first + row_of_thread() + 8 * row;
        factor[row] = 1.0F / all;
        if (position < at.length && column_of_thread() == 0) {
            a.lse[saved_at(s, at, head) + position] = run.largest[row] * a.scale + logf(all);
        }
    }
    const int64_t stride = s.n_head * s.head_dim;
    __syncthreads(); /* the stages are read */
    store_rows<WIDTH>({a.o + token * stride + head * s.head_dim, stride},
                      reinterpret_cast<float *>(stages), sum, factor, a, at, false);
}

template <int WIDTH> static void launch_attend(struct mt_cuda *cuda, const struct attention_bf16 &m)
{
    enum { BYTES = 4 * rows_tile<WIDTH>::BYTES };
    mt_cuda_check(cuda,
                  cudaFuncSetAttribute(reinterpret_cast<const void *>(&attend_bf16<WIDTH>),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES),
                  "asking for shared memory");
    const dim3 grid((unsigned)m.a.n_place, (unsigned)m.a.shape.n_head);
    mt_launch(attend_bf16<WIDTH>, grid, ROW_THREADS, BYTES, cuda->stream, m);
}

void mt_cuda_attention_forward_bf16(struct mt_cuda *cuda, const struct attention &a, void *scratch)
{
    const struct attention_bf16 m = mt_cuda_attention_operands(cuda, a, scratch);
    MT_ATTENTION_BY_ROWS(launch_attend, a.shape.head_dim, cuda, m);
}
