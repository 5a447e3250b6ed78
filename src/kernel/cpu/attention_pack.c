/* Keys and values transposed, tile by tile: what scores are multiplied from. */
#include "base/size.h"
#include "device/isa.h"
#include "kernel/cpu/attention_block.h"

#if defined(__x86_64__)
#include "kernel/cpu/avx2.h"
#endif

_Static_assert(MT_ATTENTION_TILE == 2 * MT_LANES, "a tile is two vectors wide");

#if defined(__x86_64__)
typedef void (*transpose_fn)(float *out, const float *x, int64_t stride);

#define AVX512 __attribute__((target("avx512f")))

/* Interleaves rows i and i + 8 of 16: four such rounds transpose them. */
AVX512 static inline __attribute__((always_inline)) void interleave_avx512(__m512 *to,
                                                                           const __m512 *from)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
#pragma GCC unroll 8
    for (int64_t i = 0; i < 8; i++) {
        to[2 * i] = _mm512_permutex2var_ps(from[i], low, from[i + 8]);
        to[2 * i + 1] = _mm512_permutex2var_ps(from[i], high, from[i + 8]);
    }
}

/* out [16, 16], rows TILE apart, = x [16, 16] transposed */
AVX512 static void transpose_avx512(float *out, const float *x, int64_t stride)
{
    __m512 a[16];
    __m512 b[16];
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; i++) {
        a[i] = _mm512_loadu_ps(x + i * stride);
    }
    interleave_avx512(b, a);
    interleave_avx512(a, b);
    interleave_avx512(b, a);
    interleave_avx512(a, b);
#pragma GCC unroll 16
    for (int64_t i = 0; i < 16; i++) {
        _mm512_storeu_ps(out + i * MT_ATTENTION_TILE, a[i]);
    }
}

__attribute__((target("avx2"))) static void transpose_avx2(float *out, const float *x,
                                                           int64_t stride)
{
    mt_transpose_avx2(out, MT_ATTENTION_TILE, x, stride);
}

/* A whole tile by squares of `side`. */
static void pack_squares(float *tile, const float *x, int64_t stride, int64_t head_dim,
                         int64_t side, transpose_fn transpose)
{
    for (int64_t d = 0; d < head_dim; d += side) {
        for (int64_t j = 0; j < MT_ATTENTION_TILE; j += side) {
            transpose(tile + d * MT_ATTENTION_TILE + j, x + j * stride + d, stride);
        }
    }
}
#endif

/* tile [Dh, TILE] = x [n_row, Dh] transposed, 0 beyond n_row */
MT_CLONES static void pack_tile(float *tile, const float *x, int64_t stride, int64_t n_row,
                                int64_t head_dim)
{
    for (int64_t d = 0; d < head_dim; d++) {
        float *out = tile + d * MT_ATTENTION_TILE;
        for (int64_t j = 0; j < MT_ATTENTION_TILE; j++) {
            out[j] = j < n_row ? x[j * stride + d] : 0.0F;
        }
    }
}

/* The same for whole tiles where vectors fit; false: not done. */
static bool pack_whole_tile(float *tile, const float *x, int64_t stride, int64_t head_dim)
{
#if defined(__x86_64__)
    if (head_dim % MT_LANES == 0 && mt_isa_detect() == MT_ISA_AVX512) {
        pack_squares(tile, x, stride, head_dim, MT_LANES, transpose_avx512);
        return true;
    }
    if (head_dim % 8 == 0 && mt_isa_detect() >= MT_ISA_AVX2) {
        pack_squares(tile, x, stride, head_dim, 8, transpose_avx2);
        return true;
    }
#else
    (void)tile, (void)x, (void)stride, (void)head_dim;
#endif
    return false;
}

void mt_attention_pack(const struct mt_attention_head *head, float *pack, const float *x,
                       int64_t stride, int64_t n)
{
    const int64_t head_dim = head->shape->head_dim;
    for (int64_t key = 0; key < n; key += MT_ATTENTION_TILE) {
        float *tile = pack + key * head_dim;
        const float *from = x + key * stride;
        const int64_t n_row = mt_min_i64(MT_ATTENTION_TILE, n - key);
        if (n_row < MT_ATTENTION_TILE || !pack_whole_tile(tile, from, stride, head_dim)) {
            pack_tile(tile, from, stride, n_row, head_dim);
        }
    }
}
