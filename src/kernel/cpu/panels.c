/* Where a slab of 64 rows of W [n_out, n_in] goes:
 *
 *   forward, P = W^T: panel number `slab`, [n_in, 64]: its transpose
 *   backward, P = W:  of every panel [n_out, 64] of 64 columns the rows 64 slab .. : as they are
 */
#include "kernel/cpu/panels.h"

#include "device/isa.h"
#include "kernel/cpu/gemm_primitive.h"

bool mt_panels_fit(enum mt_dtype dtype, const struct mt_weight *weight)
{
#if defined(__x86_64__)
    if (dtype != MT_FLOAT32 || mt_isa_detect() < MT_ISA_AVX512 || weight->n_out % MT_PANEL != 0 ||
        weight->n_in % MT_PANEL != 0) {
        return false;
    }
    return mt_gemm_has_panels(mt_gemm_find(dtype, MT_GEMM_FORWARD, weight->n_out, weight->n_in)) &&
           mt_gemm_has_panels(
               mt_gemm_find(dtype, MT_GEMM_BACKWARD_INPUT, weight->n_out, weight->n_in));
#else
    (void)dtype;
    (void)weight;
    return false;
#endif
}

int64_t mt_panels_n_slab(const struct mt_weight *weight)
{
    return weight->n_out / MT_PANEL;
}

void mt_panels_pack_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    mt_panels_pack(context, chunk->begin);
}

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET  __attribute__((target("avx512f")))
#define UNROLLS static inline __attribute__((always_inline))

enum { LANES = 16 };

TARGET UNROLLS void store(float *to, __m512 x, bool streams)
{
    if (streams) {
        _mm512_stream_ps(to, x);
    } else {
        _mm512_store_ps(to, x);
    }
}

TARGET UNROLLS __m512 low_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

TARGET UNROLLS __m512 high_pairs(__m512 a, __m512 b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

/* row [16] becomes its transpose: first within quarters of four columns, so that row[4 g + q] has
 * columns q, 4 + q, 8 + q, 12 + q of rows 4 g .. 4 g + 3; then the quarters. */
TARGET UNROLLS void transpose(__m512 row[LANES])
{
#pragma GCC unroll 4
    for (int g = 0; g < LANES; g += 4) {
        const __m512 a = _mm512_unpacklo_ps(row[g], row[g + 1]);
        const __m512 b = _mm512_unpackhi_ps(row[g], row[g + 1]);
        const __m512 c = _mm512_unpacklo_ps(row[g + 2], row[g + 3]);
        const __m512 d = _mm512_unpackhi_ps(row[g + 2], row[g + 3]);
        row[g] = low_pairs(a, c);
        row[g + 1] = high_pairs(a, c);
        row[g + 2] = low_pairs(b, d);
        row[g + 3] = high_pairs(b, d);
    }
    enum { EVEN = 0x88, ODD = 0xdd }; /* quarters 0, 2 or 1, 3 of both operands */
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        const __m512 a = _mm512_shuffle_f32x4(row[q], row[4 + q], EVEN);
        const __m512 b = _mm512_shuffle_f32x4(row[q], row[4 + q], ODD);
        const __m512 c = _mm512_shuffle_f32x4(row[8 + q], row[12 + q], EVEN);
        const __m512 d = _mm512_shuffle_f32x4(row[8 + q], row[12 + q], ODD);
        row[q] = _mm512_shuffle_f32x4(a, c, EVEN);
        row[4 + q] = _mm512_shuffle_f32x4(b, d, EVEN);
        row[8 + q] = _mm512_shuffle_f32x4(a, c, ODD);
        row[12 + q] = _mm512_shuffle_f32x4(b, d, ODD);
    }
}

/* panel [n_in, 64] = rows [64, n_in]^T */
TARGET UNROLLS void pack_transposed(float *panel, const float *rows, int64_t n_in, bool streams)
{
    for (int64_t k = 0; k < n_in; k += LANES) {
        for (int64_t j = 0; j < MT_PANEL; j += LANES) {
            __m512 tile[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                tile[i] = _mm512_loadu_ps(rows + (j + i) * n_in + k);
            }
            transpose(tile);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                store(panel + (k + i) * MT_PANEL + j, tile[i], streams);
            }
        }
    }
}

/* Row r of rows [64, n_in] goes in runs of 64 to pack + r * 64, a panel apart. */
TARGET UNROLLS void pack_plain(float *pack, const float *rows, int64_t n_in, int64_t panel_stride,
                               bool streams)
{
    for (int64_t at = 0; at < n_in; at += MT_PANEL) {
        float *panel = pack + at / MT_PANEL * panel_stride;
        for (int64_t r = 0; r < MT_PANEL; r++) {
#pragma GCC unroll 4
            for (int j = 0; j < MT_PANEL; j += LANES) {
                store(panel + r * MT_PANEL + j, _mm512_loadu_ps(rows + r * n_in + at + j), streams);
            }
        }
    }
}

TARGET UNROLLS void pack(const struct mt_panels *panels, int64_t slab, bool streams)
{
    const struct mt_weight *weight = panels->weight;
    const float *rows = panels->values + slab * MT_PANEL * weight->n_in;
    float *forward = weight->forward_pack;
    float *backward = weight->backward_pack;
    pack_transposed(forward + slab * MT_PANEL * weight->n_in, rows, weight->n_in, streams);
    if (backward != NULL) {
        pack_plain(backward + slab * MT_PANEL * MT_PANEL, rows, weight->n_in,
                   weight->n_out * MT_PANEL, streams);
    }
}

TARGET void mt_panels_pack(const struct mt_panels *panels, int64_t slab)
{
    if (panels->streams) {
        pack(panels, slab, true);
        _mm_sfence();
    } else {
        pack(panels, slab, false);
    }
}

#else

void mt_panels_pack(const struct mt_panels *panels, int64_t slab)
{
    (void)panels;
    (void)slab;
    MT_ASSERT(false); /* mt_panels_fit said so */
}

#endif
