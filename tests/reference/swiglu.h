/* SwiGLU (Shazeer 2020) with a weight a row, the specification:
 *   act = silu(gate) up row_weight,  silu(g) = g / (1 + exp(-g)) */
#ifndef MT_REFERENCE_SWIGLU_H
#define MT_REFERENCE_SWIGLU_H

#include <stdint.h>

/* act, gate, up [n,F]; row_weight [n] */
void mt_ref_swiglu_forward(double *act, const double *gate, const double *up,
                           const double *row_weight, int64_t n, int64_t width);

/* All written: d_gate, d_up [n,F], d_row_weight [n]. */
struct mt_ref_swiglu_backward {
    double *d_gate, *d_up, *d_row_weight;
    const double *d_act, *gate, *up, *row_weight;
};
void mt_ref_swiglu_backward(const struct mt_ref_swiglu_backward *args, int64_t n, int64_t width);

#endif
