/* The logistic function, the specification. */
#ifndef MT_REFERENCE_SIGMOID_H
#define MT_REFERENCE_SIGMOID_H

#include <stdint.h>

/* y [n] = 1 / (1 + exp(-x)) */
void mt_ref_sigmoid_forward(double *y, const double *x, int64_t n);
/* d_x [n] = d_y y (1 - y) */
void mt_ref_sigmoid_backward(double *d_x, const double *d_y, const double *y, int64_t n);

#endif
