/* What attention's products in bfloat16 read: q, k, v and d_o, rotated and rounded once, where the
 * tiles of the other side would each do it again. A head's rows follow each other, padded with
 * zeros to the width that its kernels are made for, so that all they read is whole pieces of 16
 * bytes. */
#include "kernel/cuda/attention_bf16.cuh"

enum { OPERAND_THREADS = 128, MOST_OPERANDS = 4 };

struct operand {
    const float *from; /* [B length, n_head, Dh] */
    uint16_t *to;      /* [n_head, B length, WIDTH] */
    int n_head;
    int length, n_past; /* of a sequence; the position of its first row */
    bool is_rotated;
    /* Of d_o, [B, n_head, length]: products of rounded rows with a.out, and a.lse in powers of 2;
     * NULL: none. */
    float *out_dot, *lse;
};

struct operands {
    struct attention a;
    struct operand of[MOST_OPERANDS];
};

/* Lanes of one row: a power of two, of which those have a quad each that are within WIDTH. */
template <int WIDTH> struct row_team {
    enum {
        LANES = WIDTH <= 32   ? 8
                : WIDTH <= 64 ? 16
                              : 32,
        ROWS_AT_ONCE = OPERAND_THREADS / LANES
    };
};

__device__ __forceinline__ uint2 rounded_quad(float4 x)
{
    return make_uint2(mt_bf16_pair(x.x, x.y), mt_bf16_pair(x.z, x.w));
}

__device__ __forceinline__ float4 values_of(uint2 pairs)
{
    return make_float4(mt_bf16_float((uint16_t)pairs.x), mt_bf16_float((uint16_t)(pairs.x >> 16)),
                       mt_bf16_float((uint16_t)pairs.y), mt_bf16_float((uint16_t)(pairs.y >> 16)));
}

/* Quad d < Dh of a head's row [Dh], turned by the angles of its position where `rotates`. What
 * load_tile does, which spills on sm_100 when it calls this. */
__device__ __forceinline__ float4 load_quad_of_head(const struct attention &a, const float *row,
                                                    int64_t position, int64_t d, bool rotates)
{
    const int64_t width = a.shape.head_dim;
    const int64_t half = width / 2;
    const float *c = a.cosine + position * half;
    const float *s = a.sine + position * half;
    float4 value;
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
    return value;
}

/* Quad d of a row of d_o with that of o, summed over the row's lanes. */
template <int LANES>
__device__ __forceinline__ float dot_of_row(float4 d_o, const float *o, int64_t d,
                                            const struct attention &a, bool is_there)
{
    float sum = 0.0F;
    if (is_there && d < a.shape.head_dim) {
        sum = mt_dot4(d_o, mt_load_quad(o, d, a.shape.head_dim, a.has_quads), sum);
    }
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
        sum += __shfl_xor_sync(mt_all_lanes, sum, step);
    }
    return sum;
}

template <int WIDTH>
__global__ void __launch_bounds__(OPERAND_THREADS) round_operands(const struct operands job)
{
    enum { LANES = row_team<WIDTH>::LANES };
    const struct attention &a = job.a;
    const struct operand &x = job.of[blockIdx.z];
    const struct place at = place_at(a.places, blockIdx.x, x.length, ROWS);
    if ((int)blockIdx.y >= x.n_head || at.sequence >= a.shape.n_sequence) {
        return;
    }
    const int64_t width = a.shape.head_dim;
    const int64_t d = (int)threadIdx.x % LANES * 4;
    const int64_t n_row = a.shape.n_sequence * x.length;
    const int64_t first = (int64_t)at.sequence * x.length + at.start;
    for (int i = (int)threadIdx.x / LANES; i < ROWS; i += row_team<WIDTH>::ROWS_AT_ONCE) {
        const int position = at.first + i;
        const bool is_there = position < at.length;
        const int64_t row = ((first + position) * x.n_head + blockIdx.y) * width;
        uint2 pairs = make_uint2(0, 0);
        if (is_there && d < width) {
            pairs = rounded_quad(load_quad_of_head(a, x.from + row, x.n_past + position, d,
                                                   x.is_rotated && a.cosine != nullptr));
        }
        if (is_there && d < WIDTH) {
            mt_store_bits4(x.to + ((int64_t)blockIdx.y * n_row + first + position) * WIDTH + d,
                           pairs);
        }
        if (x.out_dot != nullptr) {
            const float dot = dot_of_row<LANES>(values_of(pairs), a.out + row, d, a, is_there);
            if (is_there && d == 0) {
                const int64_t saved = saved_at(a.shape, at, blockIdx.y) + position;
                x.out_dot[saved] = dot;
                x.lse[saved] = a.lse[saved] * LOG2_E;
            }
        }
    }
}

static int64_t padded_width(int64_t head_dim)
{
    return mt_cuda_ceil(head_dim, 32) * 32;
}

/* Scratch: out_dot, lse, then q, d_o, k and v. */
static int64_t saved_floats(const struct mt_attention *s)
{
    return mt_cuda_ceil(s->n_sequence * s->n_head * s->length, 64) * 64;
}

int64_t mt_cuda_attention_bf16_bytes(const struct mt_attention *s)
{
    const int64_t rows = s->n_head * s->length + s->n_kv_head * (s->n_past + s->length);
    return 2 * saved_floats(s) * (int64_t)sizeof(float) +
           2 * s->n_sequence * rows * padded_width(s->head_dim) * (int64_t)sizeof(uint16_t);
}

template <int WIDTH>
static void launch_round(struct mt_cuda *cuda, const struct operands &job, int n_operand)
{
    const struct mt_attention &s = job.a.shape;
    const int64_t n_key_place = mt_cuda_ceil(s.n_past + s.length, ROWS); /* behind a past */
    const dim3 grid((unsigned)mt_cuda_max(job.a.n_place, n_key_place), (unsigned)s.n_head,
                    (unsigned)n_operand);
    mt_launch(round_operands<WIDTH>, grid, OPERAND_THREADS, 0, cuda->stream, job);
}

struct attention_bf16 mt_cuda_attention_operands(struct mt_cuda *cuda, const struct attention &a,
                                                 void *scratch)
{
    const struct mt_attention &s = a.shape;
    const int64_t n_key = s.n_past + s.length;
    const int64_t q_size = s.n_head * s.n_sequence * s.length * padded_width(s.head_dim);
    const int64_t k_size = s.n_kv_head * s.n_sequence * n_key * padded_width(s.head_dim);
    float *out_dot = static_cast<float *>(scratch);
    float *lse = out_dot + saved_floats(&s);
    uint16_t *q = reinterpret_cast<uint16_t *>(lse + saved_floats(&s));
    uint16_t *d_o = q + q_size;
    uint16_t *k = d_o + q_size;
    uint16_t *v = k + k_size;
    const int heads = (int)s.n_head;
    const int kv_heads = (int)s.n_kv_head;
    const int length = (int)s.length;
    const struct operands job = {a,
                                 {{a.q, q, heads, length, (int)s.n_past, true, nullptr, nullptr},
                                  {a.k, k, kv_heads, (int)n_key, 0, true, nullptr, nullptr},
                                  {a.v, v, kv_heads, (int)n_key, 0, false, nullptr, nullptr},
                                  {a.d_o, d_o, heads, length, 0, false, out_dot, lse}}};
    struct attention_bf16 rounded = {
        a, q, d_o, k, v, lse, s.n_sequence * s.length, s.n_sequence * n_key, a.scale * LOG2_E};
    rounded.a.out_dot = out_dot;
    MT_ATTENTION_BY_ROWS(launch_round, s.head_dim, cuda, job, a.d_o != nullptr ? 4 : 3);
    return rounded;
}
