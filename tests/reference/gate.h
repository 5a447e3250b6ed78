/* The top-k gate and its losses, the specification.
 *   p = softmax(z);  chosen: the K largest z, ties to the lower id, NaN last
 *   weight = scale p / sum of the chosen p when normalised, else scale p */
#ifndef MT_REFERENCE_GATE_H
#define MT_REFERENCE_GATE_H

#include <stdbool.h>
#include <stdint.h>

struct mt_ref_gate {
    int64_t n_expert, top_k;
    bool normalize;
    double scale;
};

/* expert, weight [n,K]; probability, logits [n,E]; lse [n] */
struct mt_ref_gate_forward {
    int32_t *expert;
    double *weight, *probability, *lse;
    const double *logits;
    bool is_given; /* expert is read, not written */
};
void mt_ref_gate_forward(const struct mt_ref_gate_forward *args, int64_t n,
                         const struct mt_ref_gate *gate);

/* d_logits [n,E] of the objective
 *   sum_tk d_weight_tk weight_tk + balance_scale sum_t sum_i f_i p_ti + z_scale / 2 sum_t lse_t^2
 * with the choice and f [E] (NULL: no balance loss) constant. */
struct mt_ref_gate_backward {
    double *d_logits;
    const double *d_weight; /* [n,K] */
    const int32_t *expert;  /* [n,K] */
    const double *probability, *lse, *f;
    double balance_scale, z_scale;
};
void mt_ref_gate_backward(const struct mt_ref_gate_backward *args, int64_t n,
                          const struct mt_ref_gate *gate);

#endif
