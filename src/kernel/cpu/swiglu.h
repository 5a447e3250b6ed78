/* SwiGLU on rows that are in the cache: what cpu/swiglu.c gives the fused experts (cpu/expert.c),
 * which call it between products of one tile. Results of a row do not depend on the others. */
#ifndef MT_KERNEL_CPU_SWIGLU_H
#define MT_KERNEL_CPU_SWIGLU_H

#include "kernel/kernel.h"

/* As mt_swiglu_forward and mt_swiglu_backward, on this thread. */
void mt_cpu_swiglu_forward_rows(float *act, const float *gate, const float *up,
                                const float *row_weight, int64_t n, int64_t width);
void mt_cpu_swiglu_backward_rows(const struct mt_swiglu_backward *args, int64_t n, int64_t width);

#endif
