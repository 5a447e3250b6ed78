/* Rounding to bfloat16: the upper half of a float, to nearest with ties to even. A NaN stays one
 * (quiet), values beyond the largest finite bfloat16 become infinite. Subnormal numbers may become
 * 0: the processor's own instruction flushes them, plain code keeps them. */
#ifndef MT_KERNEL_CPU_BF16_H
#define MT_KERNEL_CPU_BF16_H

#include "kernel/cpu/vector.h"

#include <stdint.h>

/* The bits of x as bfloat16, in the lower half. 0x7fff and the last kept bit: adding them carries
 * into the kept half exactly when it is to be rounded up. */
MT_INLINE uint32_t mt_bf16_bits(float x)
{
    const uint32_t bits = mt_float_bits(x);
    const uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    const uint32_t quiet = bits | 0x400000U;
    return ((bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded) >> 16;
}

MT_INLINE float mt_bf16_value(float x)
{
    return mt_float_from_bits(mt_bf16_bits(x) << 16);
}

/* out [n] = bfloat16 of x [n]. */
void mt_bf16_round(uint16_t *out, const float *x, int64_t n);
/* out [n] = x [n] rounded to bfloat16, held in float32. out may be x. */
void mt_bf16_round_values(float *out, const float *x, int64_t n);

#endif
