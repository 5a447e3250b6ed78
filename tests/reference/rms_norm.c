#include "reference/rms_norm.h"

#include <math.h>

static double reciprocal_deviation(const double *x, int64_t width, double eps)
{
    double sum = 0.0;
    for (int64_t j = 0; j < width; j++) {
        sum += x[j] * x[j];
    }
    return 1.0 / sqrt(sum / (double)width + eps);
}

void mt_ref_rms_norm_forward(double *y, double *rstd, const double *x, const double *w, int64_t n,
                             int64_t width, double eps)
{
    for (int64_t i = 0; i < n; i++) {
        rstd[i] = reciprocal_deviation(x + i * width, width, eps);
        for (int64_t j = 0; j < width; j++) {
            y[i * width + j] = x[i * width + j] * rstd[i] * w[j];
        }
    }
}

/* With r = rstd and d r / d x_j = -r^3 x_j / D:
 *   dL/dx_j = r d_y_j w_j - (r^3 x_j / D) sum_i d_y_i w_i x_i
 *   dL/dw_j = sum over rows of d_y_j x_j r */
void mt_ref_rms_norm_backward(double *d_x, double *d_w, const double *d_y, const double *x,
                              const double *w, int64_t n, int64_t width, double eps)
{
    for (int64_t i = 0; i < n; i++) {
        const double *x_row = x + i * width;
        const double *d_y_row = d_y + i * width;
        const double r = reciprocal_deviation(x_row, width, eps);
        double sum = 0.0;
        for (int64_t j = 0; j < width; j++) {
            sum += d_y_row[j] * w[j] * x_row[j];
            d_w[j] += d_y_row[j] * x_row[j] * r;
        }
        for (int64_t j = 0; j < width; j++) {
            d_x[i * width + j] = r * d_y_row[j] * w[j] - r * r * r * x_row[j] / (double)width * sum;
        }
    }
}
