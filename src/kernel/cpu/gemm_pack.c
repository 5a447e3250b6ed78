#include "kernel/cpu/gemm_pack.h"

#include "base/size.h"
#include "device/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define BF16_TARGET   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

enum { N_LANE = 16, PANEL = 64 };
/* 16 rows x 16 columns are transposed at a time; as wide numbers. */
static const int64_t LANES = N_LANE;
static const int64_t BLOCK = INT64_C(256);

struct panels {
    void *pack;          /* [padded_y / 64, padded_x, 64] floats, or [.., padded_x / 2, 64] pairs */
    const float *values; /* [n_out, n_in] */
    int64_t n_out, n_in;
    int64_t padded_x; /* rows of P, a multiple of 16, of 32 with pairs */
    int64_t padded_y; /* columns of P, a multiple of 64 */
};

/* Blocks of 16 rows x 64 columns, or of 16 pairs of rows, all those of a panel after each other. */
static bool is_in_panels(const dnnl_memory_desc_t *layout)
{
    const dnnl_blocking_desc_t *at = &layout->format_desc.blocking;
    const bool has_pairs = layout->data_type == dnnl_bf16;
    const int64_t rows = has_pairs ? 32 : 16;
    return layout->format_kind == dnnl_blocked && layout->extra.flags == 0 &&
           layout->offset0 == 0 && at->inner_nblks == (has_pairs ? 3 : 2) &&
           at->inner_idxs[0] == 0 && at->inner_blks[0] == 16 && at->inner_idxs[1] == 1 &&
           at->inner_blks[1] == PANEL &&
           (!has_pairs || (at->inner_idxs[2] == 0 && at->inner_blks[2] == 2)) &&
           layout->padded_dims[0] % rows == 0 && layout->padded_dims[1] % PANEL == 0 &&
           at->strides[0] == rows * PANEL && at->strides[1] == layout->padded_dims[0] * PANEL;
}

static inline __mmask16 mask_of(int64_t n)
{
    return n >= N_LANE ? (__mmask16)0xffff : n <= 0 ? (__mmask16)0 : (__mmask16)((1U << n) - 1U);
}

/* row [16] of 16 numbers of 32 bits becomes its transpose: pairs of rows are mixed within quarters
 * of a vector, then quarters are exchanged. */
AVX512_TARGET static inline __attribute__((always_inline)) void transpose(__m512i row[N_LANE])
{
    __m512i a[N_LANE];
    __m512i b[N_LANE];
#pragma GCC unroll 8
    for (int i = 0; i < N_LANE; i += 2) {
        a[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < N_LANE; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    /* b[4 g + c]: its quarter q has column 4 q + c of rows 4 g .. 4 g + 3 */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i even_low = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88);
        const __m512i odd_low = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);
        const __m512i even_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
        const __m512i odd_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
        row[c] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
        row[4 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        row[8 + c] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
        row[12 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
}

/* Numbers x .. x + 15 of row y of values, 0 beyond its edges. */
AVX512_TARGET static inline __attribute__((always_inline)) __m512 load(const struct panels *p,
                                                                       int64_t y, int64_t x)
{
    const bool is_inside = y < p->n_out && x < p->n_in;
    const float *from = p->values + (is_inside ? y * p->n_in + x : 0);
    return _mm512_maskz_loadu_ps(is_inside ? mask_of(p->n_in - x) : 0, from);
}

AVX512_TARGET static void pack_floats(const struct panels *p)
{
    float *out = p->pack;
    for (int64_t y = 0; y < p->padded_y; y += N_LANE) {
        float *panel = out + y / PANEL * PANEL * p->padded_x + y % PANEL;
        for (int64_t x = 0; x < p->padded_x; x++) {
            _mm512_storeu_ps(panel + x * PANEL, load(p, x, y));
        }
    }
}

AVX512_TARGET static void pack_floats_transposed(const struct panels *p)
{
    float *out = p->pack;
    for (int64_t first = 0; first < p->padded_y; first += PANEL) {
        for (int64_t at = 0; at < p->padded_x * PANEL; at += BLOCK) {
            const int64_t x = at / (PANEL * LANES) * LANES;
            const int64_t y = at / N_LANE % PANEL;
            __m512i row[N_LANE];
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                row[i] = _mm512_castps_si512(load(p, first + y + i, x));
            }
            transpose(row);
            float *to = out + first * p->padded_x + x * PANEL + y;
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                _mm512_storeu_si512(to + (int64_t)i * PANEL, row[i]);
            }
        }
    }
}

/* Two rows of values as pairs: one column of the first, the same of the second. */
BF16_TARGET static void pack_pairs(const struct panels *p)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    uint32_t *out = p->pack;
    const int64_t n_pair = p->padded_x / 2;
    for (int64_t pair = 0; pair < n_pair; pair++) {
        for (int64_t y = 0; y < p->padded_y; y += N_LANE) {
            const __m512bh both =
                _mm512_cvtne2ps_pbh(load(p, 2 * pair + 1, y), load(p, 2 * pair, y));
            const int64_t panel = y / PANEL * n_pair + pair;
            _mm512_storeu_si512(out + panel * PANEL + y % PANEL,
                                _mm512_permutexvar_epi16(order, (__m512i)both));
        }
    }
}

/* The pairs of P are neighbours in a row of values. */
BF16_TARGET static void pack_pairs_transposed(const struct panels *p)
{
    uint32_t *out = p->pack;
    const int64_t n_pair = p->padded_x / 2;
    for (int64_t first = 0; first < p->padded_y; first += PANEL) {
        for (int64_t at = 0; at < n_pair * PANEL; at += BLOCK) {
            const int64_t pair = at / (PANEL * LANES) * LANES;
            const int64_t y = at / N_LANE % PANEL;
            __m512i row[N_LANE];
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                row[i] = (__m512i)_mm512_cvtne2ps_pbh(load(p, first + y + i, 2 * pair + N_LANE),
                                                      load(p, first + y + i, 2 * pair));
            }
            transpose(row);
            uint32_t *to = out + first * n_pair + pair * PANEL + y;
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                _mm512_storeu_si512(to + (int64_t)i * PANEL, row[i]);
            }
        }
    }
}

bool mt_gemm_pack_panels(const struct mt_gemm_pack *args)
{
    const bool has_pairs = args->layout->data_type == dnnl_bf16;
    const struct panels panels = {args->pack,
                                  args->values,
                                  args->n_out,
                                  args->n_in,
                                  args->layout->padded_dims[0],
                                  args->layout->padded_dims[1]};
    if (mt_isa_detect() < MT_ISA_AVX512 || (has_pairs && !mt_isa_has_bf16()) ||
        !is_in_panels(args->layout)) {
        return false;
    }
    if (has_pairs) {
        args->is_transposed ? pack_pairs_transposed(&panels) : pack_pairs(&panels);
    } else {
        args->is_transposed ? pack_floats_transposed(&panels) : pack_floats(&panels);
    }
    return true;
}
#else
bool mt_gemm_pack_panels(const struct mt_gemm_pack *args)
{
    (void)args;
    return false;
}
#endif
