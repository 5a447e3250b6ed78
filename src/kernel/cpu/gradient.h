/* Gradients of weights, c [m,n] += a [k,m]^T b [k,n]: sums over rows, whose number differs from
 * call to call, so that a product made for one number of rows (gemm_primitive.h) is of no use.
 *
 * Blocks of rows are copied into panels as the inner loop reads them, and rounded to bfloat16 on
 * the way where asked for. An element of c gets one sum over each block of rows in ascending order:
 * its bits depend neither on m and n nor on how the caller cuts c. Where the processor has products
 * of bfloat16 pairs, two rows make one step of that sum, else one.
 *
 * One Zen 4 core (118 GFLOP/s, 236 in bfloat16), thread time, least of 60 for each call of 1024
 * rows, 2026-11, share of peak; `before`: blocks of 256 outputs, next rows not fetched ahead:
 *
 *   groups, rows, c                       float32, before   bfloat16, before
 *    8 x  64, [512,256], in the caches      .95    .86          .88    .87
 *    8 x 512, [512,256]                     .96    .85          .86    .75
 *    8 x 512, [256,512]                     .92    .88          .83    .80
 *   64 x  64, [512,256], c in memory        .91    .83          .80    .72
 *
 * One Zen 3 core with AVX2 (102 GFLOP/s, shared), float32, best of 5 runs of bench kernels,
 * 2026-11; `before`: packed float by float, steps not unrolled:
 *
 *   groups, rows, c             now   before
 *    8 x  16, [512,256]         .74    .49
 *    8 x  64, [512,256]         .87    .54
 *    8 x  64, [256,512]         .85    .53
 *    8 x 256, [512,256]         .86    .57
 *    8 x 256, [256,512]         .84    .55
 *
 * With AVX-512 the sums alone reach .99; what is lost is laying a and b into panels, and c where it
 * comes from memory: 64 rows read and write 1 MiB of it for 16.8 MFLOP. One row does so for 0.26
 * MFLOP, which bounds it at the bandwidth of the third cache.
 */
#ifndef MT_KERNEL_CPU_GRADIENT_H
#define MT_KERNEL_CPU_GRADIENT_H

#include "config/config.h"

#include <stdint.h>

/* Bounds a thread's scratch. */
enum { MT_GRADIENT_MAX_M = 512 };

struct mt_cpu_gradient {
    float *c;
    int64_t c_stride;   /* floats from row to row, as of a and b */
    const float *a, *b; /* rows are contiguous */
    int64_t a_stride, b_stride;
    int64_t m, n, k;     /* m <= MT_GRADIENT_MAX_M */
    int64_t k_next;      /* rows after those that the caller's next product reads: fetched ahead */
    enum mt_dtype dtype; /* MT_BFLOAT16: a and b are rounded first */
};
void mt_cpu_add_gradient(const struct mt_cpu_gradient *gradient);

/* The implementations for this type, best first, for tests; those that this processor cannot run
 * are left out. out [MT_CPU_GRADIENTS]; returns how many. */
typedef void (*mt_cpu_gradient_fn)(const struct mt_cpu_gradient *gradient);
enum { MT_CPU_GRADIENTS = 4 };
int mt_cpu_gradient_all(enum mt_dtype dtype, mt_cpu_gradient_fn *out);

#endif
