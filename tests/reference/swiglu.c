#include "reference/swiglu.h"

#include <math.h>

static double sigmoid(double g)
{
    return 1.0 / (1.0 + exp(-g));
}

void mt_ref_swiglu_forward(double *act, const double *gate, const double *up,
                           const double *row_weight, int64_t n, int64_t width)
{
    for (int64_t i = 0; i < n * width; i++) {
        act[i] = gate[i] * sigmoid(gate[i]) * up[i] * row_weight[i / width];
    }
}

/* silu'(g) = s + g s (1 - s) with s the sigmoid */
void mt_ref_swiglu_backward(const struct mt_ref_swiglu_backward *args, int64_t n, int64_t width)
{
    for (int64_t row = 0; row < n; row++) {
        args->d_row_weight[row] = 0.0;
        for (int64_t i = row * width; i < (row + 1) * width; i++) {
            const double g = args->gate[i];
            const double s = sigmoid(g);
            const double d = args->d_act[i] * args->row_weight[row];
            args->d_up[i] = d * g * s;
            args->d_gate[i] = d * args->up[i] * (s + g * s * (1.0 - s));
            args->d_row_weight[row] += args->d_act[i] * g * s * args->up[i];
        }
    }
}
