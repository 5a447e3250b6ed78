#include "kernel/cpu/bf16.h"

#include "device/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* 32 numbers an iteration, one instruction for their rounding. */
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static void
round_avx512_bf16(uint16_t *out, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m512bh both =
            _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
        _mm512_storeu_si512(out + i, (__m512i)both);
    }
    for (; i < n; i += 16) {
        const __mmask16 mask = (__mmask16)(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
        const __m256bh some = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)some);
    }
}
#endif

MT_CLONES static void round_plain(uint16_t *out, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        out[i] = (uint16_t)mt_bf16_bits(x[i]);
    }
}

void mt_bf16_round(uint16_t *out, const float *x, int64_t n)
{
#if defined(__x86_64__)
    if (mt_isa_has_bf16()) {
        round_avx512_bf16(out, x, n);
        return;
    }
#endif
    round_plain(out, x, n);
}

MT_CLONES void mt_bf16_round_values(float *out, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        out[i] = mt_bf16_value(x[i]);
    }
}
