/* A whole Mixture-of-Experts layer on one rank, the specification: token by token,
 *   out = sum over the K choices of W_down (silu(W_gate x) * (W_up x) * weight) + shared experts,
 * shared experts being one such network of width Fs, with weight 1 or sigmoid(scale x). Objective
 *   <d_out, out> + balance_scale sum_t sum_i f_i p_ti + z_scale / 2 sum_t lse_t^2
 * has the choices and f as constants. */
#ifndef MT_REFERENCE_MOE_LAYER_H
#define MT_REFERENCE_MOE_LAYER_H

#include "reference/gate.h"

struct mt_ref_moe {
    int64_t width, inner, shared_inner; /* D, F, Fs (0: none) */
    struct mt_ref_gate gate;
    const double *f; /* [E], or NULL: no balance loss */
    double balance_scale, z_scale;
};

/* Weights, or their gradients; the last four NULL without shared experts. */
struct mt_ref_moe_weights {
    double *router;                  /* [E,D] */
    double *gate, *up;               /* [E,F,D] */
    double *down;                    /* [E,D,F] */
    double *shared_gate, *shared_up; /* [Fs,D] */
    double *shared_down;             /* [D,Fs] */
    double *shared_scale;            /* [1,D], or NULL: weight 1 */
};

/* out [n,D]; count [E] += rows per expert, probability_sum [E] += p, *lse_square_sum += lse^2;
 * each may be NULL. Returns balance and z terms of the objective. */
struct mt_ref_moe_forward {
    double *out;
    int64_t *count;
    double *probability_sum, *lse_square_sum;
    const double *x; /* [n,D] */
    const struct mt_ref_moe_weights *weights;
};
double mt_ref_moe_forward(const struct mt_ref_moe_forward *args, int64_t n,
                          const struct mt_ref_moe *moe);

/* d_x [n,D] written; gradients of weights are added to d_weights. */
struct mt_ref_moe_backward {
    double *d_x;
    struct mt_ref_moe_weights *d_weights;
    const double *d_out, *x; /* [n,D] */
    const struct mt_ref_moe_weights *weights;
};
void mt_ref_moe_backward(const struct mt_ref_moe_backward *args, int64_t n,
                         const struct mt_ref_moe *moe);

#endif
