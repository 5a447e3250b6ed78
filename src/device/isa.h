/* Which vector instructions kernels may use: asked once, answered alike to logs and kernels. That
 * is what this processor has, or less by the environment variable MT_ISA = baseline or avx2 (for
 * tests; avx512 changes nothing): it rules the code chosen by mt_isa_detect, not the compiler's own
 * copies (kernel/cpu/simd.h), nor oneDNN (ONEDNN_MAX_CPU_ISA). */
#ifndef MT_DEVICE_ISA_H
#define MT_DEVICE_ISA_H

#include "base/status.h"

#include <stdbool.h>

/* In rising order. AVX512: x86-64-v4 (f, bw, dq, vl); AVX2 with fused multiply-add. */
enum mt_isa { MT_ISA_BASELINE, MT_ISA_AVX2, MT_ISA_AVX512 };

/* MT_ERR_CONFIG when MT_ISA is none of the names; detect takes what the processor has, then. */
enum mt_status mt_isa_check(void);
enum mt_isa mt_isa_detect(void);
/* Products of bfloat16 pairs (AVX512_BF16) on top of MT_ISA_AVX512. */
bool mt_isa_has_bf16(void);
const char *mt_isa_name(enum mt_isa isa); /* "baseline", "avx2", "avx512" */

#endif
