/* AdamW (Loshchilov & Hutter 2019, algorithm 2), the specification. */
#ifndef MT_REFERENCE_ADAMW_H
#define MT_REFERENCE_ADAMW_H

#include <stdint.h>

struct mt_ref_adamw {
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step; /* from 1 */
};
/* value, grad, m, v [n] */
void mt_ref_adamw(double *value, const double *grad, double *m, double *v, int64_t n,
                  const struct mt_ref_adamw *args);

#endif
