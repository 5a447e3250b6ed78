/* The router's product, the specification: logits [n,E] = x [n,D] w [E,D]^T. */
#ifndef MT_REFERENCE_ROUTER_H
#define MT_REFERENCE_ROUTER_H

#include <stdint.h>

void mt_ref_router_forward(double *logits, const double *x, const double *w, int64_t n,
                           int64_t n_expert, int64_t width);

/* d_x [n,D] += d_logits w,  d_w [E,D] += d_logits^T x */
struct mt_ref_router_backward {
    double *d_x, *d_w;
    const double *d_logits, *x, *w;
};
void mt_ref_router_backward(const struct mt_ref_router_backward *args, int64_t n, int64_t n_expert,
                            int64_t width);

#endif
