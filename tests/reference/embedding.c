#include "reference/embedding.h"

void mt_ref_embedding_forward(double *x, const int32_t *token, const double *table, int64_t n,
                              int64_t width)
{
    for (int64_t i = 0; i < n * width; i++) {
        x[i] = table[token[i / width] * width + i % width];
    }
}

void mt_ref_embedding_backward(double *d_table, const int32_t *token, const double *d_x, int64_t n,
                               int64_t width)
{
    for (int64_t i = 0; i < n * width; i++) {
        d_table[token[i / width] * width + i % width] += d_x[i];
    }
}
