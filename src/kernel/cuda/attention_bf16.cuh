/* What attention's kernels on matrix instructions share, in the manner of FlashAttention-2 (Dao
 * 2023): a block has 64 rows of one head for its own, 16 a warp, and meets the rows of the other
 * side 64 at a time. Operands are bfloat16 and lie in scratch, rotated and padded to WIDTH elements
 * a head; scores and sums are float32 and stay in registers. A block of 16 x 16 scores is two
 * fragments of a product and, rounded, one of a left operand: it goes from one product to the next
 * without leaving its lanes. Which element a lane has: mt_multiply_add in dev.cuh. */
#ifndef MT_KERNEL_CUDA_ATTENTION_BF16_CUH
#define MT_KERNEL_CUDA_ATTENTION_BF16_CUH

#include "kernel/cuda/attention_tile.cuh"

enum { ROWS = 64, BLOCK = 16, ROW_WARPS = ROWS / BLOCK, ROW_THREADS = ROW_WARPS * MT_WARP };

/* Heads that are wider go the way of float32: 16 rows of sums, the operands' fragments and a block
 * of scores fill a thread's 255 registers. */
enum { MT_CUDA_BF16_HEAD_DIM = 128 };

/* exp(x) = exp2(LOG2_E x), and the latter is an instruction. */
static const float LOG2_E = 1.4426950408889634F;

struct attention_bf16 {
    struct attention a;
    const uint16_t *q, *d_o; /* [H, B T, WIDTH] */
    const uint16_t *k, *v;   /* [Hk, B (n_past + T), WIDTH] */
    const float *lse;        /* [B,H,T] a.lse in powers of 2; backward */
    int64_t n_query, n_key;  /* rows a head */
    float exponent;          /* scale in powers of 2: exp(scale s) = exp2(exponent s) */
};

/* 64 rows in shared memory. 8 elements more than a row has: 8 rows' 16 bytes at one column are in
 * different banks. Two stages of two tiles; float sums of one tile take the room of one stage. */
template <int WIDTH> struct rows_tile {
    enum {
        STRIDE = WIDTH + 8,
        ELEMENTS = ROWS * STRIDE,
        STEPS = WIDTH / BLOCK,
        BYTES = ELEMENTS * 2
    };
};

/* Rows of one head of one segment. */
struct head_rows {
    const uint16_t *at;
    int n;
};

/* Of a row's sums and largest: the 4 lanes that have parts of it. */
__device__ __forceinline__ float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(mt_all_lanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(mt_all_lanes, x, 2));
}

__device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(mt_all_lanes, x, 1);
    return x + __shfl_xor_sync(mt_all_lanes, x, 2);
}

/* The first of the two rows, 8 apart, of the warp's 16 and of the block's 64 of which this thread
 * has a part; and its first column of 8. */
__device__ __forceinline__ int row_of_lane()
{
    return (int)threadIdx.x % MT_WARP / 4;
}

__device__ __forceinline__ int row_of_thread()
{
    return (int)threadIdx.x / MT_WARP * BLOCK + row_of_lane();
}

__device__ __forceinline__ int column_of_thread()
{
    return (int)threadIdx.x % 4 * 2;
}

/* Rows first .. first + 63 on their way into a tile, zeros beyond the segment. */
template <int WIDTH>
__device__ __forceinline__ void fetch_rows(uint16_t *tile, const struct head_rows &rows, int first)
{
    enum { CHUNKS = WIDTH / 8, TURNS = ROWS * CHUNKS / ROW_THREADS };
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        const int chunk = i * ROW_THREADS + (int)threadIdx.x;
        const int row = first + chunk / CHUNKS;
        const int d = chunk % CHUNKS * 8;
        mt_copy_async(tile + chunk / CHUNKS * rows_tile<WIDTH>::STRIDE + d,
                      rows.at + (int64_t)row * WIDTH + d, row < rows.n);
    }
}

/* Where this lane's row begins of the four matrices that are 16 x 16 elements of a tile: upper
 * left, lower left, upper right, lower right. That is how a left operand has them. */
template <int WIDTH> __device__ __forceinline__ const uint16_t *lane_row(const uint16_t *tile)
{
    const int lane = (int)threadIdx.x % MT_WARP;
    return tile + lane % BLOCK * rows_tile<WIDTH>::STRIDE + lane / BLOCK * 8;
}

/* The warp's own 16 rows as left operands. */
template <int WIDTH>
__device__ __forceinline__ void read_own(unsigned (&own)[WIDTH / BLOCK][4], const uint16_t *tile)
{
    const int warp = (int)threadIdx.x / MT_WARP;
    const uint16_t *row = lane_row<WIDTH>(tile + warp * BLOCK * rows_tile<WIDTH>::STRIDE);
#pragma unroll
    for (int step = 0; step < rows_tile<WIDTH>::STEPS; step++) {
        mt_load_matrices(own[step], row + step * BLOCK);
    }
}

__device__ __forceinline__ void clear_block(float (&score)[2][4])
{
#pragma unroll
    for (int j = 0; j < 8; j++) {
        score[j / 4][j % 4] = 0.0F;
    }
}

/* score [16 own, 16] += 16 elements of the head of own and others; row: of others */
__device__ __forceinline__ void multiply_step(float (&score)[2][4], const unsigned (&own)[4],
                                              const uint16_t *row)
{
    unsigned b[4];
    mt_load_matrices(b, row);
    const unsigned upper[2] = {b[0], b[2]}; /* rows of others are the product's columns */
    const unsigned lower[2] = {b[1], b[3]};
    mt_multiply_add(score[0], own, upper);
    mt_multiply_add(score[1], own, lower);
}

/* score [16 own, 16] = own others^T; others: the first of 16 rows in shared memory */
template <int WIDTH>
__device__ __forceinline__ void multiply_block(float (&score)[2][4],
                                               const unsigned (&own)[WIDTH / BLOCK][4],
                                               const uint16_t *others)
{
    const uint16_t *row = lane_row<WIDTH>(others);
    clear_block(score);
#pragma unroll
    for (int step = 0; step < rows_tile<WIDTH>::STEPS; step++) {
        multiply_step(score, own[step], row + step * BLOCK);
    }
}

/* The same with own rows in shared memory, for threads that have no registers left. */
template <int WIDTH>
__device__ __forceinline__ void multiply_shared(float (&score)[2][4], const uint16_t *own,
                                                const uint16_t *others)
{
    const uint16_t *own_row = lane_row<WIDTH>(own);
    const uint16_t *row = lane_row<WIDTH>(others);
    clear_block(score);
#pragma unroll
    for (int step = 0; step < rows_tile<WIDTH>::STEPS; step++) {
        unsigned a[4];
        mt_load_matrices(a, own_row + step * BLOCK);
        multiply_step(score, a, row + step * BLOCK);
    }
}

/* sum [16 own, WIDTH] += factors [16 own, 16], rounded, times others [16, WIDTH] */
template <int WIDTH>
__device__ __forceinline__ void add_block(float (&sum)[WIDTH / 8][4], const float (&factors)[2][4],
                                          const uint16_t *others)
{
    const unsigned a[4] = {
        mt_bf16_pair(factors[0][0], factors[0][1]), mt_bf16_pair(factors[0][2], factors[0][3]),
        mt_bf16_pair(factors[1][0], factors[1][1]), mt_bf16_pair(factors[1][2], factors[1][3])};
    const uint16_t *row = lane_row<WIDTH>(others);
#pragma unroll
    for (int step = 0; step < rows_tile<WIDTH>::STEPS; step++) {
        unsigned b[4];
        mt_load_matrices_turned(b, row + step * BLOCK);
        const unsigned left[2] = {b[0], b[1]}; /* rows of others go along the sum */
        const unsigned right[2] = {b[2], b[3]};
        mt_multiply_add(sum[2 * step], a, left);
        mt_multiply_add(sum[2 * step + 1], a, right);
    }
}

template <int WIDTH> __device__ __forceinline__ void clear_sums(float (&sum)[WIDTH / 8][4])
{
#pragma unroll
    for (int i = 0; i < WIDTH / 2; i++) {
        sum[i / 4][i % 4] = 0.0F;
    }
}

/* Where rows of a result go: row 0 of the segment, and how far the next one is. */
struct head_out {
    float *at;
    int64_t stride;
};

/* Element d of a gradient's row [Dh], turned back by the angles of its position. What store_row
 * does, which spills on sm_100 when it calls this. */
__device__ __forceinline__ float turned_back(const struct attention &a, const float *row,
                                             int64_t position, int64_t d)
{
    const int64_t half = a.shape.head_dim / 2;
    const float *c = a.cosine + position * half;
    const float *s = a.sine + position * half;
    return d < half ? row[d] * c[d] + row[d + half] * s[d]
                    : row[d] * c[d - half] - row[d - half] * s[d - half];
}

/* The block's sums, two rows of a thread times their factors, to global memory; a gradient of what
 * was rotated is turned back. `room` in shared memory is free for the warp. */
template <int WIDTH>
__device__ void store_rows(const struct head_out &out, float *room,
                           const float (&sum)[WIDTH / 8][4], const float (&factor)[2],
                           const struct attention &a, const struct place &at, bool is_rotated)
{
    enum { STRIDE = WIDTH + 8, QUADS = WIDTH / 4 };
    const int64_t width = a.shape.head_dim;
    const bool rotates = is_rotated && a.cosine != nullptr;
    float *own = room + (int)threadIdx.x / MT_WARP * BLOCK * STRIDE;
    float *mine = room + row_of_thread() * STRIDE + column_of_thread();
#pragma unroll
    for (int i = 0; i < WIDTH / 2; i++) {
        mine[i % 4 / 2 * 8 * STRIDE + i / 4 * 8 + i % 2] = sum[i / 4][i % 4] * factor[i % 4 / 2];
    }
    __syncwarp();
    for (int i = (int)threadIdx.x % MT_WARP; i < BLOCK * QUADS; i += MT_WARP) {
        const float *row = own + i / QUADS * STRIDE;
        const int64_t d = i % QUADS * 4;
        const int position = at.first + (int)threadIdx.x / MT_WARP * BLOCK + i / QUADS;
        if (position >= at.length || d >= width) {
            continue;
        }
        float4 value = mt_load4(row + d);
        if (rotates) {
            value.x = turned_back(a, row, position, d);
            value.y = d + 1 < width ? turned_back(a, row, position, d + 1) : 0.0F;
            value.z = d + 2 < width ? turned_back(a, row, position, d + 2) : 0.0F;
            value.w = d + 3 < width ? turned_back(a, row, position, d + 3) : 0.0F;
        }
        mt_store_quad(out.at + position * out.stride, d, width, a.has_quads, value);
    }
}

/* Whether attention of this shape is multiplied in bfloat16: by the device's type and the width. */
inline bool attention_is_bf16(enum mt_dtype dtype, const struct mt_attention *shape)
{
    return dtype == MT_BFLOAT16 && shape->head_dim <= MT_CUDA_BF16_HEAD_DIM;
}

/* The instance whose rows are as wide as the head needs. */
#define MT_ATTENTION_BY_ROWS(launch, head_dim, ...) \
    do {                                            \
        if ((head_dim) <= 32) {                     \
            launch<32>(__VA_ARGS__);                \
        } else if ((head_dim) <= 64) {              \
            launch<64>(__VA_ARGS__);                \
        } else if ((head_dim) <= 96) {              \
            launch<96>(__VA_ARGS__);                \
        } else {                                    \
            launch<128>(__VA_ARGS__);               \
        }                                           \
    } while (0)

int64_t mt_cuda_attention_bf16_bytes(const struct mt_attention *shape);
/* Of the blocks of `a`, whose arrays have float32 values: rounds what the products read into
 * scratch, and where there is a d_o, makes out_dot. */
struct attention_bf16 mt_cuda_attention_operands(struct mt_cuda *cuda, const struct attention &a,
                                                 void *scratch);
/* The two directions; `a` has its blocks, of ROWS positions. */
void mt_cuda_attention_forward_bf16(struct mt_cuda *cuda, const struct attention &a, void *scratch);
void mt_cuda_attention_backward_bf16(struct mt_cuda *cuda, const struct attention &a,
                                     void *scratch);

#endif
