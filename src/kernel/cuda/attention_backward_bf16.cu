/* Attention backward on matrix instructions. With p = exp(s - lse), D = <d_o, o> of a row: d_s =
 * p (<d_o, v> - D), d_q = scale d_s k, d_k = scale d_s^T q, d_v = p^T d_o. Queries and keys have a
 * kernel each: seven products where one kernel would do with five, and each sum has one order. */
#include "kernel/cuda/attention_bf16.cuh"

enum { BLOCKS = ROWS / BLOCK };

/* What is saved of a thread's two queries: lse in powers of 2. */
struct query_rows {
    float lse[2], out_dot[2];
};

/* One tile of keys, which begins `ahead` positions after the warp's 16 queries or as many before,
 * up to the block that their diagonal crosses. Keys behind a query are none of its own. */
template <int WIDTH>
__device__ __forceinline__ void
differ_keys_seen(float (&d_q)[WIDTH / 8][4], const unsigned (&q)[WIDTH / BLOCK][4],
                 const unsigned (&d_o)[WIDTH / BLOCK][4], const uint16_t *stage,
                 const struct query_rows &saved, float exponent, int ahead)
{
#pragma unroll 1
    for (int i = 0; i < BLOCKS && ahead + i * BLOCK < BLOCK; i++) {
        const uint16_t *keys = stage + i * BLOCK * rows_tile<WIDTH>::STRIDE;
        const int later = ahead + i * BLOCK + column_of_thread() - row_of_lane();
        float p[2][4];
        float d_s[2][4];
        multiply_block<WIDTH>(p, q, keys);
        multiply_block<WIDTH>(d_s, d_o, keys + rows_tile<WIDTH>::ELEMENTS);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const int row = j % 4 / 2;
            const bool is_seen = later + j / 4 * 8 + j % 2 <= 8 * row;
            const float value = exp2f(p[j / 4][j % 4] * exponent - saved.lse[row]);
            d_s[j / 4][j % 4] = is_seen ? value * (d_s[j / 4][j % 4] - saved.out_dot[row]) : 0.0F;
        }
        add_block<WIDTH>(d_q, d_s, keys);
    }
}

/* 64 queries against the keys that they see. */
template <int WIDTH>
__global__ void __launch_bounds__(ROW_THREADS, 2) differ_queries_bf16(const struct attention_bf16 m)
{
    enum { TILE_SIZE = rows_tile<WIDTH>::ELEMENTS, STAGE = 2 * TILE_SIZE };
    MT_DYN_SHARED(uint16_t, stages);
    const struct attention &a = m.a;
    const struct mt_attention &s = a.shape;
    const struct place at = place_at(a.places, gridDim.x - 1 - blockIdx.x, (int)s.length, ROWS);
    const int64_t head = blockIdx.y;
    const int64_t kv_head = head / (s.n_head / s.n_kv_head);
    const int64_t token = token_of(s, at);
    const int64_t query_row = (head * m.n_query + token) * WIDTH;
    const int64_t key_row = (kv_head * m.n_key + token) * WIDTH;
    const struct head_rows keys = {m.k + key_row, at.length};
    const struct head_rows values = {m.v + key_row, at.length};
    unsigned q[WIDTH / BLOCK][4];
    unsigned d_o[WIDTH / BLOCK][4];
    float sum[WIDTH / 8][4];
    const int query = at.first + (int)threadIdx.x / MT_WARP * BLOCK; /* the warp's first */
    struct query_rows saved;
    clear_sums<WIDTH>(sum);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const int position = at.first + row_of_thread() + 8 * row;
        const int64_t i = saved_at(s, at, head) + position;
        saved.lse[row] = position < at.length ? m.lse[i] : 0.0F;
        saved.out_dot[row] = position < at.length ? a.out_dot[i] : 0.0F;
    }
    fetch_rows<WIDTH>(stages + STAGE, {m.q + query_row, at.length}, at.first);
    fetch_rows<WIDTH>(stages + STAGE + TILE_SIZE, {m.d_o + query_row, at.length}, at.first);
    fetch_rows<WIDTH>(stages, keys, 0);
    fetch_rows<WIDTH>(stages + TILE_SIZE, values, 0);
    mt_copies_wait();
    __syncthreads();
    read_own<WIDTH>(q, stages + STAGE);
    read_own<WIDTH>(d_o, stages + STAGE + TILE_SIZE);
    for (int key = 0; key <= at.first; key += ROWS) {
        uint16_t *stage = stages + key / ROWS % 2 * STAGE;
        uint16_t *next = stages + (key / ROWS + 1) % 2 * STAGE;
        mt_copies_wait();
        __syncthreads(); /* all have their copies, and have read the stage that is filled now */
        if (key < at.first) {
            fetch_rows<WIDTH>(next, keys, key + ROWS);
            fetch_rows<WIDTH>(next + TILE_SIZE, values, key + ROWS);
        }
        if (query < at.length) {
            differ_keys_seen<WIDTH>(sum, q, d_o, stage, saved, m.exponent, key - query);
        }
    }
    const int64_t stride = s.n_head * s.head_dim;
    __syncthreads(); /* the stages are read */
    store_rows<WIDTH>({a.d_q + token * stride + head * s.head_dim, stride},
                      reinterpret_cast<float *>(stages), sum, {a.scale, a.scale}, a, at, true);
}

/* What a tile of queries has for each of its rows; zeros beyond the segment, where q and d_o are
 * zero too and nothing is added. */
struct saved_rows {
    float lse[ROWS]; /* in powers of 2 */
    float out_dot[ROWS];
};

/* A tile of queries that see the block's keys: tiles to the segment's end, head by head. */
struct query_tile {
    int64_t row;   /* of the head in q and d_o: the segment's first */
    int64_t saved; /* the same in lse and out_dot */
    int first;
};

/* A tile on its way: q, d_o into two tiles of a stage, and what is saved of its rows. */
template <int WIDTH>
__device__ __forceinline__ void fetch_queries(uint16_t *stage, struct saved_rows *saved,
                                              const struct attention_bf16 &m,
                                              const struct query_tile &tile, int length)
{
    fetch_rows<WIDTH>(stage, {m.q + tile.row * WIDTH, length}, tile.first);
    fetch_rows<WIDTH>(stage + rows_tile<WIDTH>::ELEMENTS, {m.d_o + tile.row * WIDTH, length},
                      tile.first);
    const bool is_lse = threadIdx.x < ROWS;
    const int row = (int)threadIdx.x % ROWS;
    mt_copy_async((is_lse ? saved->lse : saved->out_dot) + row,
                  (is_lse ? m.lse : m.a.out_dot) + tile.saved + tile.first + row,
                  tile.first + row < length);
}

/* Where a tile begins, so many positions after the warp's own 16 or as many before; how many there
 * are from there to the segment's end. */
struct span {
    int ahead, n;
};

/* One tile of queries for the warp's 16 keys, from the block that their diagonal crosses. Queries
 * before a key do not see it. */
template <int WIDTH>
__device__ __forceinline__ void
differ_queries_seeing(float (&d_k)[WIDTH / 8][4], float (&d_v)[WIDTH / 8][4],
                      const unsigned (&k)[WIDTH / BLOCK][4], const uint16_t *v,
                      const uint16_t *stage, const struct saved_rows &saved, float exponent,
                      struct span queries)
{
#pragma unroll 1
    for (int i = queries.ahead < 0 ? -queries.ahead / BLOCK : 0;
         i < BLOCKS && i * BLOCK < queries.n; i++) {
        const uint16_t *q = stage + i * BLOCK * rows_tile<WIDTH>::STRIDE;
        const uint16_t *d_o = q + rows_tile<WIDTH>::ELEMENTS;
        const int query = i * BLOCK + column_of_thread();
        const int later = queries.ahead + query - row_of_lane();
        float p[2][4];
        float d_s[2][4];
        multiply_block<WIDTH>(p, k, q);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const int column = j / 4 * 8 + j % 2;
            const bool is_seen = later + column >= j % 4 / 2 * 8;
            const float value = exp2f(p[j / 4][j % 4] * exponent - saved.lse[query + column]);
            p[j / 4][j % 4] = is_seen ? value : 0.0F;
        }
        add_block<WIDTH>(d_v, p, d_o);
        multiply_shared<WIDTH>(d_s, v, d_o);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            d_s[j / 4][j % 4] =
                p[j / 4][j % 4] * (d_s[j / 4][j % 4] - saved.out_dot[query + j / 4 * 8 + j % 2]);
        }
        add_block<WIDTH>(d_k, d_s, q);
    }
}

/* 64 keys against the queries that see them, of all heads that share them. */
template <int WIDTH>
__global__ void __launch_bounds__(ROW_THREADS, 2) differ_keys_bf16(const struct attention_bf16 m)
{
    enum { TILE_SIZE = rows_tile<WIDTH>::ELEMENTS, STAGE = 2 * TILE_SIZE };
    MT_DYN_SHARED(uint16_t, stages);
    MT_SHARED(struct saved_rows, saved, [2]);
    uint16_t *values = stages + 2 * STAGE; /* stay: 255 registers are full without them */
    const struct attention &a = m.a;
    const struct mt_attention &s = a.shape;
    const struct place at = place_at(a.places, blockIdx.x, (int)s.length, ROWS);
    const int key = at.first + (int)threadIdx.x / MT_WARP * BLOCK; /* the warp's first */
    const int group = (int)(s.n_head / s.n_kv_head);
    const int64_t token = token_of(s, at);
    const int64_t key_row = (blockIdx.y * m.n_key + token) * WIDTH;
    int n_tile = (at.length - at.first + ROWS - 1) / ROWS * group; /* of queries, yet to come */
    struct query_tile tile = {blockIdx.y * group * m.n_query + token,
                              saved_at(s, at, (int64_t)blockIdx.y * group), at.first};
    unsigned k[WIDTH / BLOCK][4];
    float d_k[WIDTH / 8][4];
    float d_v[WIDTH / 8][4];
    clear_sums<WIDTH>(d_k);
    clear_sums<WIDTH>(d_v);
    fetch_rows<WIDTH>(stages + STAGE, {m.k + key_row, at.length}, at.first);
    fetch_rows<WIDTH>(values, {m.v + key_row, at.length}, at.first);
    fetch_queries<WIDTH>(stages, &saved[0], m, tile, at.length);
    mt_copies_wait();
    __syncthreads();
    read_own<WIDTH>(k, stages + STAGE);
    const uint16_t *v = values + (int)threadIdx.x / MT_WARP * BLOCK * rows_tile<WIDTH>::STRIDE;
    for (int turn = 0; n_tile > 0; n_tile--, turn ^= 1) {
        const int queries = tile.first;
        mt_copies_wait();
        __syncthreads(); /* all have their copies, and have read the stage that is filled now */
        tile.first += ROWS;
        if (tile.first >= at.length) {
            tile.first = at.first;
            tile.row += m.n_query;
            tile.saved += s.length;
        }
        if (n_tile > 1) {
            fetch_queries<WIDTH>(stages + (turn ^ 1) * STAGE, &saved[turn ^ 1], m, tile, at.length);
        }
        differ_queries_seeing<WIDTH>(d_k, d_v, k, v, stages + turn * STAGE, saved[turn], m.exponent,
                                     {queries - key, at.length - queries});
    }
    const int64_t stride = s.n_kv_head * s.head_dim;
    const int64_t out = token * stride + blockIdx.y * s.head_dim;
    float *room = reinterpret_cast<float *>(stages);
    __syncthreads(); /* the stages are read */
    store_rows<WIDTH>({a.d_k + out, stride}, room, d_k, {a.scale, a.scale}, a, at, true);
    store_rows<WIDTH>({a.d_v + out, stride}, room + TILE_SIZE, d_v, {1.0F, 1.0F}, a, at, false);
}

template <int WIDTH> static void launch_differ(struct mt_cuda *cuda, const struct attention_bf16 &m)
{
    const int bytes[2] = {4 * rows_tile<WIDTH>::BYTES, 5 * rows_tile<WIDTH>::BYTES};
    const void *kernels[2] = {reinterpret_cast<const void *>(&differ_queries_bf16<WIDTH>),
                              reinterpret_cast<const void *>(&differ_keys_bf16<WIDTH>)};
    for (int i = 0; i < 2; i++) {
        mt_cuda_check(
            cuda,
            cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize, bytes[i]),
            "asking for shared memory");
    }
    const unsigned n_place = (unsigned)m.a.n_place;
    mt_launch(differ_queries_bf16<WIDTH>, dim3(n_place, (unsigned)m.a.shape.n_head), ROW_THREADS,
              bytes[0], cuda->stream, m);
    mt_launch(differ_keys_bf16<WIDTH>, dim3(n_place, (unsigned)m.a.shape.n_kv_head), ROW_THREADS,
              bytes[1], cuda->stream, m);
}

void mt_cuda_attention_backward_bf16(struct mt_cuda *cuda, const struct attention &a, void *scratch)
{
    const struct attention_bf16 m = mt_cuda_attention_operands(cuda, a, scratch);
    MT_ATTENTION_BY_ROWS(launch_differ, a.shape.head_dim, cuda, m);
}
