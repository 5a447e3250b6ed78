/* SwiGLU on rows that are in the cache: what the fused experts (cpu/expert.c) call between products
 * of one tile, on the calling thread. Results of a row do not depend on the others. */
#ifndef MT_KERNEL_CPU_SWIGLU_H
#define MT_KERNEL_CPU_SWIGLU_H

#include <stdint.h>

/* act [n,F] = silu(gate) * up * row_weight; silu(g) = g / (1 + exp(-g)). row_weight [n] or NULL
 * (= 1). act may be gate or up. */
void mt_cpu_swiglu_forward(float *act, const float *gate, const float *up, const float *row_weight,
                           int64_t n, int64_t width);
struct mt_cpu_swiglu_backward {
    float *d_gate;           /* [n,F]; may be gate */
    float *d_up;             /* [n,F]; may be up */
    float *d_row_weight;     /* [n] = sum_f d_act silu(gate) up; NULL when row_weight is */
    float *act;              /* [n,F] recomputed output of forward; may be d_act */
    const float *d_act;      /* [n,F] */
    const float *gate, *up;  /* [n,F] */
    const float *row_weight; /* [n] or NULL */
};
void mt_cpu_swiglu_backward(const struct mt_cpu_swiglu_backward *args, int64_t n, int64_t width);

#endif
