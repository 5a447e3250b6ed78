/* What one core can do: the bounds that benchmarks divide by. */
#include "base/clock.h"
#include "base/memory.h"
#include "device/isa.h"
#include "kernel/kernel.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Twelve independent chains: two multiply-add pipes of four cycles need eight. */
enum { N_CHAIN = 12, N_PASS = 200000, N_REPEAT = 8, N_CHAIN_REPEAT = 32 };
/* Far beyond every cache of one core. */
enum { COPY_BYTES = 128 * 1024 * 1024 };

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float chains_avx512(void)
{
    __m512 chain[N_CHAIN];
    for (int i = 0; i < N_CHAIN; i++) {
        chain[i] = _mm512_set1_ps((float)i);
    }
    const __m512 factor = _mm512_set1_ps(0.5F);
    for (int pass = 0; pass < N_PASS; pass++) {
#pragma GCC unroll 12
        for (int i = 0; i < N_CHAIN; i++) {
            chain[i] = _mm512_fmadd_ps(chain[i], factor, factor);
        }
    }
    __m512 sum = chain[0];
    for (int i = 1; i < N_CHAIN; i++) {
        sum = _mm512_add_ps(sum, chain[i]);
    }
    return _mm512_cvtss_f32(sum);
}

/* Products of pairs: twice the FLOPs a lane. A sum of 0.5 and the products of 0.5 with 0.5 twice
 * stays finite in the time of a pass: it grows by 0.5 each. */
__attribute__((target("avx512f,avx512bf16"))) static float chains_avx512_bf16(void)
{
    __m512 chain[N_CHAIN];
    for (int i = 0; i < N_CHAIN; i++) {
        chain[i] = _mm512_set1_ps((float)i);
    }
    const __m512bh factor = (__m512bh)_mm512_set1_epi32(0x3f003f00);
    for (int pass = 0; pass < N_PASS; pass++) {
#pragma GCC unroll 12
        for (int i = 0; i < N_CHAIN; i++) {
            chain[i] = _mm512_dpbf16_ps(chain[i], factor, factor);
        }
    }
    __m512 sum = chain[0];
    for (int i = 1; i < N_CHAIN; i++) {
        sum = _mm512_add_ps(sum, chain[i]);
    }
    return _mm512_cvtss_f32(sum);
}

__attribute__((target("avx2,fma"))) static float chains_avx2(void)
{
    __m256 chain[N_CHAIN];
    for (int i = 0; i < N_CHAIN; i++) {
        chain[i] = _mm256_set1_ps((float)i);
    }
    const __m256 factor = _mm256_set1_ps(0.5F);
    for (int pass = 0; pass < N_PASS; pass++) {
#pragma GCC unroll 12
        for (int i = 0; i < N_CHAIN; i++) {
            chain[i] = _mm256_fmadd_ps(chain[i], factor, factor);
        }
    }
    __m256 sum = chain[0];
    for (int i = 1; i < N_CHAIN; i++) {
        sum = _mm256_add_ps(sum, chain[i]);
    }
    return _mm256_cvtss_f32(sum);
}
#endif

/* Four floats in each chain: what every machine has. */
static float chains_baseline(void)
{
    float chain[N_CHAIN][4];
    for (int i = 0; i < N_CHAIN; i++) {
        for (int lane = 0; lane < 4; lane++) {
            chain[i][lane] = (float)i;
        }
    }
    for (int pass = 0; pass < N_PASS; pass++) {
        for (int i = 0; i < N_CHAIN; i++) {
            for (int lane = 0; lane < 4; lane++) {
                chain[i][lane] = chain[i][lane] * 0.5F + 0.5F;
            }
        }
    }
    float sum = 0.0F;
    for (int i = 0; i < N_CHAIN; i++) {
        sum += chain[i][0];
    }
    return sum;
}

double mt_measure_peak_gflops(enum mt_dtype dtype)
{
    float (*chains)(void) = chains_baseline;
    double n_lane = 4.0;
    (void)dtype;
#if defined(__x86_64__)
    if (dtype == MT_BFLOAT16 && mt_isa_has_bf16()) {
        chains = chains_avx512_bf16;
        n_lane = 32.0;
    } else if (mt_isa_detect() == MT_ISA_AVX512) {
        chains = chains_avx512;
        n_lane = 16.0;
    } else if (mt_isa_detect() == MT_ISA_AVX2) {
        chains = chains_avx2;
        n_lane = 8.0;
    }
#endif
    volatile float keep = 0.0F;
    double best = 0.0;
    for (int repeat = 0; repeat < N_CHAIN_REPEAT; repeat++) {
        const int64_t start_ns = mt_clock_ns();
        keep = keep + chains();
        const double elapsed_ns = (double)(mt_clock_ns() - start_ns);
        const double gflops = 2.0 * n_lane * N_CHAIN * (double)N_PASS / elapsed_ns;
        best = gflops > best ? gflops : best;
    }
    return best;
}

/* Copies past the caches, which spares reading the destination: 24 to 29 GB/s where memcpy reaches
 * 15 (Zen 4, 2026-11). */
static void stream_copy(void *to, const void *from)
{
#if defined(__x86_64__)
    __m128i *out = to;
    const __m128i *in = from;
    for (size_t i = 0; i < COPY_BYTES / sizeof(*out); i++) {
        _mm_stream_si128(&out[i], _mm_load_si128(&in[i]));
    }
    _mm_sfence();
#else
    memcpy(to, from, COPY_BYTES);
#endif
}

double mt_measure_copy_gbytes_per_s(void)
{
    void *from = NULL;
    void *to = NULL;
    double best = 0.0;
    if (mt_memory_allocate(COPY_BYTES, "copy bandwidth", &from) == MT_OK &&
        mt_memory_allocate(COPY_BYTES, "copy bandwidth", &to) == MT_OK) {
        memset(from, 1, COPY_BYTES);
        memset(to, 2, COPY_BYTES);
        for (int repeat = 0; repeat < N_REPEAT; repeat++) {
            const int64_t start_ns = mt_clock_ns();
            stream_copy(to, from);
            const double elapsed_ns = (double)(mt_clock_ns() - start_ns);
            const double rate = 2.0 * COPY_BYTES / elapsed_ns;
            best = rate > best ? rate : best;
        }
    }
    mt_memory_free(from);
    mt_memory_free(to);
    return best;
}
