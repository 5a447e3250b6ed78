#include "reference/cross_entropy.h"

#include <math.h>

static double log_sum_exp(const double *x, int64_t n)
{
    double largest = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, x[i]);
    }
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp(x[i] - largest);
    }
    return largest + log(sum);
}

double mt_ref_cross_entropy_forward(const double *logits, const int32_t *target, int64_t n,
                                    int64_t vocab)
{
    double loss = 0.0;
    for (int64_t i = 0; i < n; i++) {
        loss += log_sum_exp(logits + i * vocab, vocab) - logits[i * vocab + target[i]];
    }
    return loss;
}

void mt_ref_cross_entropy_backward(double *d_logits, const double *logits, const int32_t *target,
                                   int64_t n, int64_t vocab, double scale)
{
    for (int64_t i = 0; i < n; i++) {
        const double lse = log_sum_exp(logits + i * vocab, vocab);
        for (int64_t v = 0; v < vocab; v++) {
            const double onehot = v == target[i] ? 1.0 : 0.0;
            d_logits[i * vocab + v] = scale * (exp(logits[i * vocab + v] - lse) - onehot);
        }
    }
}
