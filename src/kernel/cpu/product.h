/* Small matrix products on cached blocks, for the operations that are not one large product:
 * attention's blocks and the router's gradients. Large products go to oneDNN (cpu/linear.c).
 *
 * An element of the result is one sum over k in ascending order, a fused multiply-add each (where
 * the processor has them), started from c when accumulating: its bits depend neither on m and n
 * nor on how the caller cuts them into calls. This is the one place beside oneDNN that fuses, since
 * it doubles the speed (one AMD EPYC 9004 core: 105 instead of 55 GFLOP/s); so these results may
 * differ in the last bits between instruction sets. */
#ifndef MT_KERNEL_CPU_PRODUCT_H
#define MT_KERNEL_CPU_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

/* c [m,n] (=, or += when accumulate) a [m,k] b [k,n]. Rows of c and b are contiguous, `a` is read
 * element by element at any two strides (a transposed `a` costs nothing). Strides in floats. */
struct mt_cpu_product {
    float *c;
    int64_t c_stride; /* from row to row */
    const float *a;
    int64_t a_row_stride, a_column_stride;
    const float *b;
    int64_t b_stride;
    int64_t m, n, k;
    bool accumulate;
};

void mt_cpu_multiply(const struct mt_cpu_product *product);

/* The implementations behind mt_cpu_multiply, best first, for tests; those that this processor
 * cannot run are left out. out [MT_CPU_PRODUCTS]; returns how many. */
typedef void (*mt_cpu_multiply_fn)(const struct mt_cpu_product *product);
enum { MT_CPU_PRODUCTS = 3 };
int mt_cpu_multiply_all(mt_cpu_multiply_fn *out);

#endif
