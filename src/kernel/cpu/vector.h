/* Arithmetic on rows of floats that several operations share: exp, maximum, sums. As plain loops
 * they become vector code on every instruction set, with the same bits on all of them. */
#ifndef MT_KERNEL_CPU_VECTOR_H
#define MT_KERNEL_CPU_VECTOR_H

#include "kernel/cpu/simd.h"

#include <stdint.h>
#include <string.h>

MT_INLINE float mt_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

MT_INLINE uint32_t mt_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* exp(x) = 2^k power for |x| <= 104, x = k ln2 + r with |r| <= ln2/2: power = exp(r) =
 * 1 + r + r^2 q(r), q of degree 4 fitted for the least largest relative error (3.1e-9, a twentieth
 * of a rounding). k is in the low bits of `k_bits`, in two's complement. */
struct mt_exp_parts {
    float power;
    uint32_t k_bits;
};
MT_INLINE struct mt_exp_parts mt_exp_split(float x)
{
    /* Adding 1.5 * 2^23 rounds to an integer, which the low bits of the sum then hold. */
    const float magic = 12582912.0F;
    const float shifted = x * 1.44269504F + magic;
    const float k = shifted - magic;
    /* ln2 in two parts; the first has 9 significant bits, so k times it is exact. */
    const float r = (x - k * 0.693359375F) - k * -2.12194440e-4F;
    const float square = r * r;
    const float high = 0.00138145429F * square + (0.00836873706F * r + 0.0416683890F);
    const float q = high * square + (0.166665211F * r + 0.499999940F);
    return (struct mt_exp_parts){q * square + (r + 1.0F), mt_float_bits(shifted)};
}

/* exp within 2 units in the last place (test_vector: 1.0 measured over all exponents), also where
 * the result is below 2^-126. NaN gives NaN, above 88.73 infinity, below -103.98 zero. */
MT_INLINE float mt_exp(float x)
{
    /* Both comparisons are false for a NaN, which then runs through the polynomial. */
    float bounded = x > 89.0F ? 89.0F : x;
    bounded = bounded < -104.0F ? -104.0F : bounded;
    const struct mt_exp_parts parts = mt_exp_split(bounded);
    /* 2^k in two factors of about equal size, which are normal numbers: k + 254 in [104, 382] is
     * the sum of their biased exponents. 0x4b400000 are the bits of 1.5 * 2^23. */
    const uint32_t biased = parts.k_bits - 0x4b400000U + 254U;
    const uint32_t first = biased >> 1;
    const uint32_t second = biased - first;
    return parts.power * mt_float_from_bits(first << 23) * mt_float_from_bits(second << 23);
}

/* exp for a softmax, where x is at most about 0 (88 is allowed, infinity gives NaN): below -87 it
 * is 0 and not a number below 2^-126. A third faster than mt_exp. */
MT_INLINE float mt_exp_softmax(float x)
{
    const struct mt_exp_parts parts = mt_exp_split(x < -87.0F ? -87.0F : x);
    const float value = parts.power * mt_float_from_bits((parts.k_bits << 23) + 0x3f800000U);
    return x < -87.0F ? 0.0F : value;
}

/* 1 / (1 + exp(-g)) with the bits of mt_exp, but one power of two: below -88.4 exp is infinite and
 * the result 0, above 87 it is 1. */
MT_INLINE float mt_sigmoid(float g)
{
    /* Both comparisons are false for a NaN. */
    float x = -g > 89.0F ? 89.0F : -g;
    x = x < -87.0F ? -87.0F : x;
    const struct mt_exp_parts parts = mt_exp_split(x);
    return 1.0F / (1.0F + parts.power * mt_float_from_bits((parts.k_bits << 23) + 0x3f800000U));
}

/* 2^x for a softmax whose scores come in units of ln 2: x at most about 0 (127 is allowed), within
 * 2 units in the last place; below -126.5 it is 0. NaN gives NaN. x = k + f with |f| <= 1/2,
 * 2^f = 1 + f q(f), q of degree 5 (5.1e-9 relative error). */
MT_INLINE float mt_exp2_softmax(float x)
{
    const float magic = 12582912.0F; /* as in mt_exp_split */
    const float bounded = x < -127.0F ? -127.0F : x;
    const float shifted = bounded + magic;
    const float f = bounded - (shifted - magic);
    const float square = f * f;
    const float high =
        (0.0555035695F + 0.00961808302F * f) + square * (0.00133908633F + 0.000154531634F * f);
    const float q = (0.693147182F + 0.240226507F * f) + square * high;
    /* k = -127 makes the bits of 0. */
    return (1.0F + f * q) * mt_float_from_bits((mt_float_bits(shifted) << 23) + 0x3f800000U);
}

/* Largest of x [n], NaN ignored; -infinity when there is none. */
MT_INLINE float mt_max(const float *x, int64_t n)
{
    float lane[MT_LANES];
    for (int j = 0; j < MT_LANES; j++) {
        lane[j] = -__builtin_inff();
    }
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    }
#pragma GCC unroll 4
    for (int half = MT_LANES / 2; half > 0; half /= 2) {
#pragma omp simd
        for (int j = 0; j < half; j++) {
            lane[j] = lane[j + half] > lane[j] ? lane[j + half] : lane[j];
        }
    }
    return lane[0];
}

/* The partial sums of a vectorised sum, added in the fixed order of a binary tree. */
MT_INLINE float mt_lanes_sum(float lane[MT_LANES])
{
#pragma GCC unroll 4
    for (int half = MT_LANES / 2; half > 0; half /= 2) {
#pragma omp simd
        for (int j = 0; j < half; j++) {
            lane[j] += lane[j + half];
        }
    }
    return lane[0];
}

/* sum over i of x [n] y [n] */
MT_INLINE float mt_dot(const float *x, const float *y, int64_t n)
{
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] += x[i + j] * y[i + j];
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] += x[i + j] * y[i + j];
    }
    return mt_lanes_sum(lane);
}

/* y [n] = exp(x - shift) for a softmax (mt_exp_softmax), y may be x; returns the sum of y. */
MT_INLINE float mt_exp_sum(float *y, const float *x, float shift, int64_t n)
{
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            const float value = mt_exp_softmax(x[i + j] - shift);
            y[i + j] = value;
            lane[j] += value;
        }
    }
    for (int j = 0; i + j < n; j++) {
        const float value = mt_exp_softmax(x[i + j] - shift);
        y[i + j] = value;
        lane[j] += value;
    }
    return mt_lanes_sum(lane);
}

#endif
