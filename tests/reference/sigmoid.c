#include "reference/sigmoid.h"

#include <math.h>

void mt_ref_sigmoid_forward(double *y, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = 1.0 / (1.0 + exp(-x[i]));
    }
}

void mt_ref_sigmoid_backward(double *d_x, const double *d_y, const double *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        d_x[i] = d_y[i] * y[i] * (1.0 - y[i]);
    }
}
