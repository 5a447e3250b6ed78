/* Products with a weight matrix w [n_out, n_in], row-major, double precision. */
#ifndef MT_REFERENCE_LINEAR_H
#define MT_REFERENCE_LINEAR_H

#include <stdint.h>

/* y [n, n_out] = x [n, n_in] w^T */
void mt_ref_linear_forward(double *y, const double *x, const double *w, int64_t n, int64_t n_out,
                           int64_t n_in);
/* d_x [n, n_in] += d_y [n, n_out] w */
void mt_ref_linear_backward_input(double *d_x, const double *d_y, const double *w, int64_t n,
                                  int64_t n_out, int64_t n_in);
/* d_w [n_out, n_in] += d_y [n, n_out]^T x [n, n_in] */
void mt_ref_linear_backward_weight(double *d_w, const double *d_y, const double *x, int64_t n,
                                   int64_t n_out, int64_t n_in);

#endif
