/* What one core can do: the bounds that benchmarks divide by. */
#include "base/clock.h"
#include "base/memory.h"
#include "device/isa.h"
#include "kernel/kernel.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Twelve independent chains: two multiply-add pipes of four cycles need eight. A product of 6 rows
 * loads eight vectors for every twelve of its multiply-adds. */
enum { N_CHAIN = 12, N_LOAD = 8, N_PASS = 200000, N_REPEAT = 8, N_CHAIN_REPEAT = 32 };
/* Far beyond every cache of one core. */
enum { COPY_BYTES = 128 * 1024 * 1024 };

#define ADD_PRODUCTS(MULTIPLY_ADD)                             \
    _Pragma("GCC unroll 12") for (int i = 0; i < N_CHAIN; i++) \
    {                                                          \
        chain[i] = MULTIPLY_ADD(chain[i], factor, factor);     \
    }

/* float chains_NAME(loads): N_PASS times twelve multiply-adds, after eight loads or without. */
#define DEFINE_CHAINS(NAME, TARGET, VECTOR, FILL, MULTIPLY_ADD)      \
    TARGET static float chains_##NAME(bool loads)                    \
    {                                                                \
        typedef VECTOR vector;                                       \
        static const vector block[N_LOAD];                           \
        const volatile vector *at = block;                           \
        const vector factor = FILL(0.5F);                            \
        vector chain[N_CHAIN];                                       \
        for (int i = 0; i < N_CHAIN; i++) {                          \
            chain[i] = FILL((float)i);                               \
        }                                                            \
        for (int pass = 0; pass < N_PASS && !loads; pass++) {        \
            ADD_PRODUCTS(MULTIPLY_ADD)                               \
        }                                                            \
        for (int pass = 0; pass < N_PASS && loads; pass++) {         \
            _Pragma("GCC unroll 8") for (int i = 0; i < N_LOAD; i++) \
            {                                                        \
                (void)at[i];                                         \
            }                                                        \
            ADD_PRODUCTS(MULTIPLY_ADD)                               \
        }                                                            \
        for (int i = 1; i < N_CHAIN; i++) {                          \
            chain[0] += chain[i];                                    \
        }                                                            \
        return chain[0][0];                                          \
    }

#if defined(__x86_64__)
DEFINE_CHAINS(avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, _mm512_fmadd_ps)

/* Products of pairs, of which one is 0: twice the FLOPs a lane. The sum grows by 0.25 each, and
 * stays finite. */
#define PAIRS_512(a, b, c) _mm512_dpbf16_ps(a, (__m512bh)(b), (__m512bh)(c))
DEFINE_CHAINS(avx512_bf16, __attribute__((target("avx512f,avx512bf16"))), __m512, _mm512_set1_ps,
              PAIRS_512)

DEFINE_CHAINS(avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, _mm256_fmadd_ps)
#endif

/* Four floats in each chain: what every machine has. */
typedef float four_floats __attribute__((vector_size(16)));
#define FOUR(x)             ((four_floats){(x), (x), (x), (x)})
#define MULTIPLY_4(a, b, c) ((a) * (b) + (c))
DEFINE_CHAINS(baseline, , four_floats, FOUR, MULTIPLY_4)

/* The best of n_repeat. */
static double measure(enum mt_dtype dtype, int n_repeat, bool loads)
{
    float (*chains)(bool) = chains_baseline;
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
    for (int repeat = 0; repeat < n_repeat; repeat++) {
        const int64_t start_ns = mt_clock_ns();
        keep = keep + chains(loads);
        const double elapsed_ns = (double)(mt_clock_ns() - start_ns);
        const double gflops = 2.0 * n_lane * N_CHAIN * (double)N_PASS / elapsed_ns;
        best = gflops > best ? gflops : best;
    }
    return best;
}

double mt_measure_peak_gflops(enum mt_dtype dtype)
{
    return measure(dtype, N_CHAIN_REPEAT, false);
}

double mt_measure_loaded_gflops(enum mt_dtype dtype)
{
    return measure(dtype, 1, true);
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
