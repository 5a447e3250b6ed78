#include "reference/router.h"

void mt_ref_router_forward(double *logits, const double *x, const double *w, int64_t n,
                           int64_t n_expert, int64_t width)
{
    for (int64_t i = 0; i < n * n_expert; i++) {
        logits[i] = 0.0;
        for (int64_t d = 0; d < width; d++) {
            logits[i] += x[i / n_expert * width + d] * w[i % n_expert * width + d];
        }
    }
}

void mt_ref_router_backward(const struct mt_ref_router_backward *args, int64_t n, int64_t n_expert,
                            int64_t width)
{
    for (int64_t i = 0; i < n * n_expert; i++) {
        const int64_t row = i / n_expert * width;
        const int64_t expert = i % n_expert * width;
        for (int64_t d = 0; d < width; d++) {
            args->d_x[row + d] += args->d_logits[i] * args->w[expert + d];
            args->d_w[expert + d] += args->d_logits[i] * args->x[row + d];
        }
    }
}
