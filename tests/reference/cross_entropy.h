/* Cross-entropy of a softmax, the specification: loss = sum over rows of
 * log(sum_v exp(logits_v)) - logits_target, in nats. */
#ifndef MT_REFERENCE_CROSS_ENTROPY_H
#define MT_REFERENCE_CROSS_ENTROPY_H

#include <stdint.h>

/* logits [n,V], target [n] */
double mt_ref_cross_entropy_forward(const double *logits, const int32_t *target, int64_t n,
                                    int64_t vocab);

/* d_logits [n,V] = scale (softmax - onehot) */
void mt_ref_cross_entropy_backward(double *d_logits, const double *logits, const int32_t *target,
                                   int64_t n, int64_t vocab, double scale);

#endif
