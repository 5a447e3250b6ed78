/* Gradients of weights, c [m,n] += a [k,m]^T b [k,n]: sums over rows, whose number differs from
 * call to call, so that a product made for one number of rows (gemm_primitive.h) is of no use.
 *
 * Blocks of rows are copied into panels as the inner loop reads them, and rounded to bfloat16 on
 * the way where asked for. An element of c gets one sum over each block of rows in ascending order:
 * its bits depend neither on m and n nor on how the caller cuts c. Where the processor has products
 * of bfloat16 pairs, two rows make one step of that sum, else one.
 *
 * One Zen 4 core (118 GFLOP/s, 236 in bfloat16), c [512,256] of 8 groups, best of many on a busy
 * machine, 2026-11: 64 rows .93 of peak in float32, .88 in bfloat16, 16 rows .87 and .76; oneDNN's
 * dnnl_sgemm on whole c .93 and .84, on blocks of 128 outputs, as its bits demanded, .82 to .87.
 * The sums alone reach .99; what is lost is bringing a and b into panels. One row reads and writes
 * 1 MiB of c for 0.26 MFLOP, which bounds it at the bandwidth of the third cache.
 */
#ifndef MT_KERNEL_CPU_GRADIENT_H
#define MT_KERNEL_CPU_GRADIENT_H

#include "config/config.h"

#include <stdint.h>

/* Bounds a thread's scratch. */
enum { MT_GRADIENT_MAX_M = 256 };

struct mt_cpu_gradient {
    float *c;
    int64_t c_stride;   /* floats from row to row, as of a and b */
    const float *a, *b; /* rows are contiguous */
    int64_t a_stride, b_stride;
    int64_t m, n, k;     /* m <= MT_GRADIENT_MAX_M, k <= MT_GRADIENT_MAX_K */
    enum mt_dtype dtype; /* MT_BFLOAT16: a and b are rounded first */
};
void mt_cpu_add_gradient(const struct mt_cpu_gradient *gradient);

/* The implementations for this type, best first, for tests; those that this processor cannot run
 * are left out. out [MT_CPU_GRADIENTS]; returns how many. */
typedef void (*mt_cpu_gradient_fn)(const struct mt_cpu_gradient *gradient);
enum { MT_CPU_GRADIENTS = 4 };
int mt_cpu_gradient_all(enum mt_dtype dtype, mt_cpu_gradient_fn *out);

#endif
