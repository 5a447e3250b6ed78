/* How the products of one call are made: in one grouped launch, or one by one on side streams. */
#ifndef MT_KERNEL_CUDA_PRODUCT_WAYS_H
#define MT_KERNEL_CUDA_PRODUCT_WAYS_H

#include "kernel/cuda/cuda.h"

/* c [m, n] = a [m, k] b [k, n] + beta c, columns first; no size is 0. */
struct mt_cuda_product {
    const void *a, *b;
    float *c;
    int m, n, k, lda, ldb;
    float beta;
};
/* What products of one call have in common. */
struct mt_cuda_product_kind {
    cublasOperation_t a, b;
    cudaDataType type;
};

enum { MT_CUDA_PRODUCTS = 128 };

/* Whether a product that is one of several goes apart from them, one by one on a side stream. By
 * its own sizes alone: what it gives does not depend on the rows that other experts have. */
bool mt_cuda_goes_apart(const struct mt_cuda_ways *ways, cudaDataType type,
                        const struct mt_cuda_product *product);
/* Up to MT_CUDA_PRODUCTS of them, whose results do not overlap. */
void mt_cuda_multiply(struct mt_cuda *cuda, const struct mt_cuda_product_kind *kind,
                      const struct mt_cuda_product *list, int n);

#endif
