#include "reference/linear.h"

void mt_ref_linear_forward(double *y, const double *x, const double *w, int64_t n, int64_t n_out,
                           int64_t n_in)
{
    for (int64_t row = 0; row < n; row++) {
        for (int64_t out = 0; out < n_out; out++) {
            double sum = 0.0;
            for (int64_t in = 0; in < n_in; in++) {
                sum += x[row * n_in + in] * w[out * n_in + in];
            }
            y[row * n_out + out] = sum;
        }
    }
}

void mt_ref_linear_backward_input(double *d_x, const double *d_y, const double *w, int64_t n,
                                  int64_t n_out, int64_t n_in)
{
    for (int64_t row = 0; row < n; row++) {
        for (int64_t out = 0; out < n_out; out++) {
            for (int64_t in = 0; in < n_in; in++) {
                d_x[row * n_in + in] += d_y[row * n_out + out] * w[out * n_in + in];
            }
        }
    }
}

void mt_ref_linear_backward_weight(double *d_w, const double *d_y, const double *x, int64_t n,
                                   int64_t n_out, int64_t n_in)
{
    for (int64_t row = 0; row < n; row++) {
        for (int64_t out = 0; out < n_out; out++) {
            for (int64_t in = 0; in < n_in; in++) {
                d_w[out * n_in + in] += d_y[row * n_out + out] * x[row * n_in + in];
            }
        }
    }
}
