/* Embedding lookup, the specification: x [n,D] = table [V,D] at rows token [n]. */
#ifndef MT_REFERENCE_EMBEDDING_H
#define MT_REFERENCE_EMBEDDING_H

#include <stdint.h>

void mt_ref_embedding_forward(double *x, const int32_t *token, const double *table, int64_t n,
                              int64_t width);

/* d_table [V,D] += rows of d_x [n,D] */
void mt_ref_embedding_backward(double *d_table, const int32_t *token, const double *d_x, int64_t n,
                               int64_t width);

#endif
