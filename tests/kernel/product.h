/* One problem for the tests of products: a ragged list of groups with data in float32 and the same
 * values in double, and canaries behind every result. */
#ifndef MT_TEST_KERNEL_PRODUCT_H
#define MT_TEST_KERNEL_PRODUCT_H

#include "base/memory.h"
#include "kernel/kernel.h"

enum { PRODUCT_MAX_GROUP = 80, PRODUCT_CANARIES = 16 };

struct product {
    struct mt_device device;
    struct mt_arena arena;
    int64_t n, n_out, n_in; /* n: rows of all groups */
    int n_group;
    int64_t offset[PRODUCT_MAX_GROUP + 1];
    struct mt_groups groups;
    float *x, *d_y; /* [n, n_in], [n, n_out] */
    float *y, *d_x; /* results and what is accumulated on, filled with random values */
    double *y_ref, *d_x_ref;
    double *x_ref, *d_y_ref;
    float *w[PRODUCT_MAX_GROUP], *d_w[PRODUCT_MAX_GROUP]; /* [n_out, n_in] */
    double *w_ref[PRODUCT_MAX_GROUP], *d_w_ref[PRODUCT_MAX_GROUP];
    struct mt_weight weight[PRODUCT_MAX_GROUP];
    const struct mt_weight *weights[PRODUCT_MAX_GROUP];
};

/* rows [n_group]; weights are packed and ready for n_thread threads. Data is a function of the
 * shape: the same call makes the same problem. */
void product_init(struct product *product, const int64_t *rows, int n_group, int64_t n_out,
                  int64_t n_in, int n_thread);
/* The same on a device of this type. MT_BFLOAT16: what the reference reads is rounded. */
void product_init_as(struct product *product, enum mt_dtype dtype, const int64_t *rows, int n_group,
                     int64_t n_out, int64_t n_in, int n_thread);
void product_clear(struct product *product);

/* The bfloat16 nearest to x, of two that are as near the one whose last bit is 0; finite x. */
double product_bf16(double x);

/* What the reference says, into y_ref, d_x_ref (= or +=) and d_w_ref (+=). */
void product_expect(struct product *product, bool accumulate);

/* Fails unless y, d_x, d_w equal the reference within `bound` and no canary was touched. */
void product_check(const struct product *product, double bound);

/* All three products by mt_grouped_*. */
void product_compute(struct product *product, bool accumulate);

/* Fails unless the results of both have the same bits. */
void product_same_bits(const struct product *a, const struct product *b);

#endif
