/* What attention's kernels share: tiles of 32 positions of one head in shared memory.
 *
 * A block has 256 threads, 8 for each position of its own tile: thread r * 8 + l computes, with
 * position r, the positions l, l + 8, l + 16, l + 24 of the other tile, and holds of a result's
 * row r the quads l, l + 8, ... in registers. The 8 threads of a position are in one warp. Heads
 * are padded with zeros to 32 QUADS elements. */
#ifndef MT_KERNEL_CUDA_ATTENTION_TILE_CUH
#define MT_KERNEL_CUDA_ATTENTION_TILE_CUH

#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

enum { TILE = 32, TEAM = 8, ATTENTION_THREADS = TILE * TEAM, PER_THREAD = TILE / TEAM };

/* What a block works on: the tile that begins `first` tokens into the segment that begins `start`
 * tokens into its sequence. All that a kernel does follows from positions within the segment, so
 * that a segment's results have the same bits wherever it lies. */
struct alignas(16) place {
    int32_t sequence, start, first, length; /* length: the segment's */
};

struct attention {
    struct mt_attention shape;
    const struct place *places; /* [n_place] of each block; NULL: a segment is a sequence */
    int64_t n_place;
    const float *q, *k, *v;
    float *o, *lse;
    const float *d_o, *out;     /* backward; out: o of forward */
    const float *out_dot;       /* [B,H,T] sum of d_o o, backward */
    float *d_q, *d_k, *d_v;     /* backward */
    const float *cosine, *sine; /* NULL: not rotated */
    float scale;
    bool has_quads, rope_has_quads; /* rows of heads; halves of them */
};

/* Floats from one position of a tile to the next: 4 more than the head keeps 8 teams that read the
 * same column of different positions in different banks. */
template <int QUADS> struct tile {
    enum { WIDTH = 32 * QUADS, STRIDE = WIDTH + 4, FLOATS = TILE * STRIDE };
};
/* Of a tile of scores. */
enum { SCORE_STRIDE = TILE + 1, SCORE_FLOATS = TILE * SCORE_STRIDE };

/* A head's rows of one segment: row 0 is at `at`, its position is n_past. */
struct strip {
    const float *at;
    int64_t stride;
    int n, n_past;
};

/* Number i of the table, or of the tiles of sequences of `length`. */
__device__ __forceinline__ struct place place_at(const struct place *places, unsigned i, int length,
                                                 unsigned tile)
{
    if (places != nullptr) {
        return places[i];
    }
    const unsigned n_tile = ((unsigned)length + tile - 1) / tile;
    struct place at;
    at.sequence = (int)(i / n_tile);
    at.start = 0;
    at.first = (int)(i % n_tile * tile);
    at.length = length;
    return at;
}

__device__ __forceinline__ struct place place_of_block(const struct attention &a)
{
    return place_at(a.places, blockIdx.x, (int)a.shape.length, TILE);
}

/* Where the segment begins in an array [N,...], and where a head of it in an array [B,H,T]. */
__device__ __forceinline__ int64_t token_of(const struct mt_attention &s, const struct place &at)
{
    return at.sequence * s.length + at.start;
}

__device__ __forceinline__ int64_t saved_at(const struct mt_attention &s, const struct place &at,
                                            int64_t head)
{
    return (at.sequence * s.n_head + head) * s.length + at.start;
}

/* Element d of a row that is rotated by the angles of its position. */
__device__ __forceinline__ float rotated(const float *row, const float *c, const float *s,
                                         int64_t half, int64_t d)
{
    return d < half ? row[d] * c[d] - row[d + half] * s[d]
                    : row[d] * c[d - half] + row[d - half] * s[d - half];
}

/* Quad d of a row, with 16-byte loads: pairs are `half` apart. */
__device__ __forceinline__ float4 rotated_quad(const float *row, const float *c, const float *s,
                                               int64_t half, int64_t d)
{
    const int64_t angle = d < half ? d : d - half;
    const float sign = d < half ? -1.0F : 1.0F;
    const float4 x = mt_load4(row + d);
    const float4 y = mt_load4(row + (d < half ? d + half : d - half));
    const float4 cosine = mt_load4(c + angle);
    const float4 sine = mt_load4(s + angle);
    return make_float4(x.x * cosine.x + sign * y.x * sine.x, x.y * cosine.y + sign * y.y * sine.y,
                       x.z * cosine.z + sign * y.z * sine.z, x.w * cosine.w + sign * y.w * sine.w);
}

/* Rows first .. first + 31 into a tile, zeros beyond the segment and the head. */
template <int QUADS>
__device__ void load_tile(float *out, const struct attention &a, const struct strip &rows,
                          int first, bool is_rotated)
{
    const int64_t width = a.shape.head_dim;
    const int64_t half = width / 2;
    const bool rotates = is_rotated && a.cosine != nullptr;
    for (int i = (int)threadIdx.x; i < TILE * TEAM * QUADS; i += ATTENTION_THREADS) {
        const int at = first + i / (TEAM * QUADS);
        const int64_t d = 4 * (i % (TEAM * QUADS));
        float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (at < rows.n && d < width) {
            const float *row = rows.at + at * rows.stride;
            const float *c = a.cosine + (rows.n_past + at) * half;
            const float *s = a.sine + (rows.n_past + at) * half;
            if (!rotates) {
                value = mt_load_quad(row, d, width, a.has_quads);
            } else if (a.rope_has_quads) {
                value = rotated_quad(row, c, s, half, d);
            } else {
                value.x = rotated(row, c, s, half, d);
                value.y = d + 1 < width ? rotated(row, c, s, half, d + 1) : 0.0F;
                value.z = d + 2 < width ? rotated(row, c, s, half, d + 2) : 0.0F;
                value.w = d + 3 < width ? rotated(row, c, s, half, d + 3) : 0.0F;
            }
        }
        mt_store4(out + (i / (TEAM * QUADS)) * tile<QUADS>::STRIDE + d, value);
    }
}

/* score[j] = <row, position l + 8 j of other> */
template <int QUADS>
__device__ __forceinline__ void multiply_row(float score[PER_THREAD], const float *row,
                                             const float *other)
{
    const int lane = (int)(threadIdx.x % TEAM);
#pragma unroll
    for (int j = 0; j < PER_THREAD; j++) {
        score[j] = 0.0F;
    }
    for (int d = 0; d < tile<QUADS>::WIDTH; d += 4) {
        const float4 x = mt_load4(row + d);
#pragma unroll
        for (int j = 0; j < PER_THREAD; j++) {
            score[j] =
                mt_dot4(x, mt_load4(other + (lane + TEAM * j) * tile<QUADS>::STRIDE + d), score[j]);
        }
    }
}

/* sum[q] += factors[i] * quad (l + 8 q) of position i, for i = begin .. end - 1 */
template <int QUADS>
__device__ __forceinline__ void add_rows(float4 sum[QUADS], const float *factors,
                                         const float *values, int begin, int end)
{
    const int lane = (int)(threadIdx.x % TEAM);
    for (int i = begin; i < end; i++) {
        const float factor = factors[i];
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            const float *at = values + i * tile<QUADS>::STRIDE + 4 * (lane + TEAM * q);
            sum[q] = mt_axpy4(mt_load4(at), factor, sum[q]);
        }
    }
}

/* A gradient's row [head_dim] to global memory, turned back, of a position below `length`; row:
 * TILE's own in shared memory, which the 8 threads of the position write and read. */
template <int QUADS>
__device__ void store_row(float *out, float *row, const float4 sum[QUADS],
                          const struct attention &a, int64_t position, int length, bool is_rotated)
{
    const int lane = (int)(threadIdx.x % TEAM);
    const int64_t width = a.shape.head_dim;
    const int64_t half = width / 2;
    const bool rotates = is_rotated && a.cosine != nullptr;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        mt_store4(row + 4 * (lane + TEAM * q), sum[q]);
    }
    __syncwarp();
    if (position >= length) {
        return;
    }
    for (int64_t d = lane; d < width; d += TEAM) {
        float value = row[d];
        if (rotates && d < half) {
            value = row[d] * a.cosine[position * half + d] +
                    row[d + half] * a.sine[position * half + d];
        } else if (rotates) {
            value = row[d] * a.cosine[position * half + d - half] -
                    row[d - half] * a.sine[position * half + d - half];
        }
        out[d] = value;
    }
}

/* The instance whose tiles are as wide as the head needs. */
#define MT_ATTENTION_BY_WIDTH(launch, cuda, a)  \
    do {                                        \
        if ((a).shape.head_dim <= 32) {         \
            launch<1>((cuda), (a));             \
        } else if ((a).shape.head_dim <= 64) {  \
            launch<2>((cuda), (a));             \
        } else if ((a).shape.head_dim <= 128) { \
            launch<4>((cuda), (a));             \
        } else {                                \
            launch<8>((cuda), (a));             \
        }                                       \
    } while (0)

/* The blocks of a launch, one for each tile of so many positions; with segments their table is in
 * the context's scratch. False when there is not as much of it. */
bool mt_cuda_attention_places(struct mt_cuda *cuda, struct attention *a,
                              const struct mt_attention_segments *segments, int tile);

/* The arguments that forward and backward have in common. */
inline struct attention attention_of(const struct mt_attention *shape, const float *q,
                                     const float *k, const float *v, const struct mt_rope *rope)
{
    struct attention a = {};
    a.shape = *shape;
    a.q = q;
    a.k = k;
    a.v = v;
    a.cosine = rope != nullptr ? rope->cosine : nullptr;
    a.sine = rope != nullptr ? rope->sine : nullptr;
    a.scale = 1.0F / sqrtf((float)shape->head_dim);
    a.has_quads = mt_has_quads(q, shape->head_dim) && mt_has_quads(k, shape->head_dim) &&
                  mt_has_quads(v, shape->head_dim);
    a.rope_has_quads = a.has_quads && shape->head_dim % 8 == 0 && mt_has_quads(a.cosine, 4) &&
                       mt_has_quads(a.sine, 4);
    return a;
}

#endif
