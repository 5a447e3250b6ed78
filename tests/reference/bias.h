/* A bias beside a product, the specification. */
#ifndef MT_REFERENCE_BIAS_H
#define MT_REFERENCE_BIAS_H

#include <stdint.h>

/* y [n,width] += bias [width] */
void mt_ref_bias_forward(double *y, const double *bias, int64_t n, int64_t width);
/* d_bias [width] += sum over rows of d_y [n,width] */
void mt_ref_bias_backward(double *d_bias, const double *d_y, int64_t n, int64_t width);

#endif
