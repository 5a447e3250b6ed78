/* What products and packs are made of in AVX2: sums of products in place, loads that stop at edges,
 * squares of 8 floats transposed. x86-64 only. */
#ifndef MT_KERNEL_CPU_AVX2_H
#define MT_KERNEL_CPU_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* from [0, 8), of which n exist, 0 beyond, where nothing is read. n may be negative. */
__attribute__((target("avx2"), always_inline)) static inline __m256 mt_load_avx2(const float *from,
                                                                                 int64_t n)
{
    static const int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    if (n >= 8) {
        return _mm256_loadu_ps(from);
    }
    if (n <= 0) {
        return _mm256_setzero_ps();
    }
    return _mm256_maskload_ps(from, _mm256_loadu_si256((const void *)(masks + 8 - n)));
}

/* a * b + sum, in sum's register, where it stands. Of the intrinsic the compiler overwrites any of
 * the three and moves the sums of unrolled steps about: an inner loop of 6 x 16 had 39 moves and 9
 * spills in sixteen steps, and took 15 to 18 % longer beside a busy hyperthread (3 % alone). */
__attribute__((target("avx2,fma"), always_inline)) static inline __m256
mt_multiply_add_avx2(__m256 a, __m256 b, __m256 sum)
{
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}

/* out [8, 8] = x [8, 8] transposed, rows that many floats apart: rows i and i + 4 share a register
 * from the start, so that nothing is left to move between its halves. */
__attribute__((target("avx2"), always_inline)) static inline void
mt_transpose_avx2(float *out, int64_t out_stride, const float *x, int64_t stride)
{
#pragma GCC unroll 2
    for (int64_t column = 0; column < 8; column += 4) {
        __m256 row[4];
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++) {
            const float *at = x + i * stride + column;
            row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)),
                                          _mm_loadu_ps(at + 4 * stride), 1);
        }
        const __m256 low_0 = _mm256_unpacklo_ps(row[0], row[1]);
        const __m256 low_2 = _mm256_unpacklo_ps(row[2], row[3]);
        const __m256 high_0 = _mm256_unpackhi_ps(row[0], row[1]);
        const __m256 high_2 = _mm256_unpackhi_ps(row[2], row[3]);
        enum { LOW = 0x44, HIGH = 0xee }; /* the lower or upper two of both operands */
        const __m256 turned[4] = {
            _mm256_shuffle_ps(low_0, low_2, LOW), _mm256_shuffle_ps(low_0, low_2, HIGH),
            _mm256_shuffle_ps(high_0, high_2, LOW), _mm256_shuffle_ps(high_0, high_2, HIGH)};
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++) {
            _mm256_storeu_ps(out + (column + i) * out_stride, turned[i]);
        }
    }
}

#endif
