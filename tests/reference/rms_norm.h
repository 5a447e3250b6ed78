/* RMS normalisation (Zhang & Sennrich 2019), the specification:
 *   y = x / sqrt(mean(x^2) + eps) * w */
#ifndef MT_REFERENCE_RMS_NORM_H
#define MT_REFERENCE_RMS_NORM_H

#include <stdint.h>

/* y [n,D], rstd [n], x [n,D], w [D] */
void mt_ref_rms_norm_forward(double *y, double *rstd, const double *x, const double *w, int64_t n,
                             int64_t width, double eps);

/* d_x [n,D] written, d_w [D] added to; d_y [n,D]. */
void mt_ref_rms_norm_backward(double *d_x, double *d_w, const double *d_y, const double *x,
                              const double *w, int64_t n, int64_t width, double eps);

#endif
