#include "kernel/cpu/gradient.h"

#include "base/size.h"
#include "base/status.h"
#include "device/isa.h"
#include "kernel/cpu/bf16.h"

#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { WIDEST_PANEL = 32, MOST_ROWS = 8 };

/* Of one thread: a whole block of a, one panel of b, padded to whole panels. A step of pairs takes
 * as much as one of floats, so bfloat16 uses half of it. */
static _Thread_local struct {
    _Alignas(64) float a[MT_GRADIENT_MAX_K * (MT_GRADIENT_MAX_M + MOST_ROWS)];
    _Alignas(64) float b[MT_GRADIENT_MAX_K * WIDEST_PANEL];
} scratch;

/* The part of a or b that is packed. */
struct block {
    int64_t n_row, n_column;
};

#if defined(__x86_64__)
#define PAIRS_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

/* Columns 0..15 of rows 0 and 1, rounded, as 16 pairs. */
PAIRS_TARGET static inline __attribute__((always_inline)) __m512i
interleave(const float *in, int64_t stride, bool has_second, __mmask16 mask)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512 first = _mm512_maskz_loadu_ps(mask, in);
    const __m512 second = _mm512_maskz_loadu_ps(has_second ? mask : 0, in + stride);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* in [n_row, n_column] -> out [panel, pair of rows, width], width 8 or 32. */
PAIRS_TARGET static inline __attribute__((always_inline)) void
pack_pairs(float *out, const float *in, int64_t stride, struct block block, int64_t width)
{
    const int64_t n_step = mt_ceil_div(block.n_row, 2);
    for (int64_t step = 0; step < n_step; step++) {
        const float *rows = in + 2 * step * stride;
        const bool has_second = 2 * step + 1 < block.n_row;
        const int64_t end = mt_round_up(block.n_column, width);
        for (int64_t column = 0; column < end; column += 16) {
            const int64_t n = block.n_column - column;
            const __mmask16 mask = n >= 16  ? (__mmask16)0xffff
                                   : n <= 0 ? (__mmask16)0
                                            : (__mmask16)((1U << n) - 1U);
            const __m512i pairs =
                interleave(rows + column, has_second ? stride : 0, has_second, mask);
            float *to = out + column / width * width * n_step + step * width + column % width;
            if (width >= 16) {
                _mm512_store_si512(to, pairs);
            } else {
                _mm256_store_si256((void *)to, _mm512_castsi512_si256(pairs));
                _mm256_store_si256((void *)(to + width * n_step),
                                   _mm512_extracti64x4_epi64(pairs, 1));
            }
        }
    }
}

/* Pairs of bfloat16 travel in vectors of float. */
#define TARGET                PAIRS_TARGET
#define NAME(x)               x##_avx512_bf16
#define VECTOR                __m512
#define LANES                 16
#define ROWS                  8
#define ZERO                  _mm512_setzero_ps()
#define BROADCAST(p)          _mm512_set1_ps(*(p))
#define LOAD(p)               _mm512_loadu_ps(p)
#define STORE(p, v)           _mm512_storeu_ps((p), (v))
#define ADD(a, b)             _mm512_add_ps((a), (b))
#define MULTIPLY_ADD(a, b, c) _mm512_dpbf16_ps((c), (__m512bh)(a), (__m512bh)(b))
#define PAIRS                 2
#define PACK_PAIRS(out, in, stride, block, width) \
    pack_pairs((out), (in), (stride), (block), (width))
#include "kernel/cpu/gradient_panel.h"

#define TARGET                __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define NAME(x)               x##_avx512
#define VECTOR                __m512
#define LANES                 16
#define ROWS                  8
#define ZERO                  _mm512_setzero_ps()
#define BROADCAST(p)          _mm512_set1_ps(*(p))
#define LOAD(p)               _mm512_loadu_ps(p)
#define STORE(p, v)           _mm512_storeu_ps((p), (v))
#define ADD(a, b)             _mm512_add_ps((a), (b))
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define PAIRS                 1
#include "kernel/cpu/gradient_panel.h"

#define TARGET                __attribute__((target("avx2,fma")))
#define NAME(x)               x##_avx2
#define VECTOR                __m256
#define LANES                 8
#define ROWS                  6
#define ZERO                  _mm256_setzero_ps()
#define BROADCAST(p)          _mm256_broadcast_ss(p)
#define LOAD(p)               _mm256_loadu_ps(p)
#define STORE(p, v)           _mm256_storeu_ps((p), (v))
#define ADD(a, b)             _mm256_add_ps((a), (b))
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define PAIRS                 1
#include "kernel/cpu/gradient_panel.h"
#endif

/* Without intrinsics: four lanes, which every 64-bit machine has. */
typedef float four_floats __attribute__((vector_size(16), aligned(4)));
#define TARGET
#define NAME(x)               x##_plain
#define VECTOR                four_floats
#define LANES                 4
#define ROWS                  6
#define ZERO                  ((four_floats){0.0F, 0.0F, 0.0F, 0.0F})
#define BROADCAST(p)          ((four_floats){*(p), *(p), *(p), *(p)})
#define LOAD(p)               (*(const four_floats *)(p))
#define STORE(p, v)           (*(four_floats *)(p) = (v))
#define ADD(a, b)             ((a) + (b))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#define PAIRS                 1
#include "kernel/cpu/gradient_panel.h"

int mt_cpu_gradient_all(enum mt_dtype dtype, mt_cpu_gradient_fn *out)
{
    int n = 0;
#if defined(__x86_64__)
    if (dtype == MT_BFLOAT16 && mt_isa_has_bf16()) {
        out[n++] = add_avx512_bf16;
    }
    if (mt_isa_detect() >= MT_ISA_AVX512) {
        out[n++] = add_avx512;
    }
    if (mt_isa_detect() >= MT_ISA_AVX2) {
        out[n++] = add_avx2;
    }
#endif
    (void)dtype;
    out[n++] = add_plain;
    return n;
}

void mt_cpu_add_gradient(const struct mt_cpu_gradient *gradient)
{
    MT_ASSERT(gradient->m <= MT_GRADIENT_MAX_M && gradient->k <= MT_GRADIENT_MAX_K);
    mt_cpu_gradient_fn functions[MT_CPU_GRADIENTS];
    mt_cpu_gradient_all(gradient->dtype, functions);
    functions[0](gradient);
}
