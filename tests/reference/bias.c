#include "reference/bias.h"

void mt_ref_bias_forward(double *y, const double *bias, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < n * width; i++) {
        y[i] += bias[i % width];
    }
}

void mt_ref_bias_backward(double *d_bias, const double *d_y, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < n * width; i++) {
        d_bias[i % width] += d_y[i];
    }
}
