#include "kernel/cpu/product.h"

#include "base/size.h"
#include "device/isa.h"

#if defined(__x86_64__)
#include "kernel/cpu/avx2.h"

/* AVX-512: panels of 8 rows x 32 columns in 16 of the 32 registers (12 rows measured no faster). */
#define TARGET                   __attribute__((target("avx512f")))
#define NAME(x)                  x##_avx512
#define VECTOR                   __m512
#define LANES                    16
#define MASK                     __mmask16
#define MASK_OF(n)               ((__mmask16)((1U << (n)) - 1U))
#define ZERO                     _mm512_setzero_ps()
#define BROADCAST(p)             _mm512_set1_ps(*(p))
#define LOAD(p)                  _mm512_loadu_ps(p)
#define STORE(p, v)              _mm512_storeu_ps((p), (v))
#define LOAD_MASKED(p, mask)     _mm512_maskz_loadu_ps((mask), (p))
#define STORE_MASKED(p, mask, v) _mm512_mask_storeu_ps((p), (mask), (v))
#define MULTIPLY_ADD(a, b, c)    _mm512_fmadd_ps((a), (b), (c))
#define ROWS                     8
#include "kernel/cpu/product_panel.h"

/* Eight lanes set, then eight clear: a window into it is a mask. */
static const int32_t avx2_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

#define TARGET                   __attribute__((target("avx2,fma")))
#define NAME(x)                  x##_avx2
#define VECTOR                   __m256
#define LANES                    8
#define MASK                     __m256i
#define MASK_OF(n)               _mm256_loadu_si256((const void *)(avx2_masks + 8 - (n)))
#define ZERO                     _mm256_setzero_ps()
#define BROADCAST(p)             _mm256_broadcast_ss(p)
#define LOAD(p)                  _mm256_loadu_ps(p)
#define STORE(p, v)              _mm256_storeu_ps((p), (v))
#define LOAD_MASKED(p, mask)     _mm256_maskload_ps((p), (mask))
#define STORE_MASKED(p, mask, v) _mm256_maskstore_ps((p), (mask), (v))
#define MULTIPLY_ADD(a, b, c)    mt_multiply_add_avx2((a), (b), (c))
#define ROWS                     6
#include "kernel/cpu/product_panel.h"
#endif

/* Without vectors of its own: what the compiler makes of plain loops. */
#define TARGET
#define NAME(x)                  x##_plain
#define VECTOR                   float
#define LANES                    1
#define MASK                     int
#define MASK_OF(n)               (n)
#define ZERO                     0.0F
#define BROADCAST(p)             (*(p))
#define LOAD(p)                  (*(p))
#define STORE(p, v)              (*(p) = (v))
#define LOAD_MASKED(p, mask)     ((mask) > 0 ? *(p) : 0.0F)
#define STORE_MASKED(p, mask, v) ((mask) > 0 ? (void)(*(p) = (v)) : (void)0)
#define MULTIPLY_ADD(a, b, c)    ((a) * (b) + (c))
#define ROWS                     4
#include "kernel/cpu/product_panel.h"

int mt_cpu_multiply_all(mt_cpu_multiply_fn *out)
{
    int n = 0;
#if defined(__x86_64__)
    if (mt_isa_detect() >= MT_ISA_AVX512) {
        out[n++] = multiply_avx512;
    }
    if (mt_isa_detect() >= MT_ISA_AVX2) {
        out[n++] = multiply_avx2;
    }
#endif
    out[n++] = multiply_plain;
    return n;
}

void mt_cpu_multiply(const struct mt_cpu_product *product)
{
    mt_cpu_multiply_fn functions[MT_CPU_PRODUCTS];
    mt_cpu_multiply_all(functions);
    functions[0](product);
}
