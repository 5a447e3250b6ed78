/* Matrix products on operands that have the device's type already, for operations that use a
 * rounded operand twice. Rows begin at the groups' first. */
#ifndef MT_KERNEL_CUDA_PRODUCT_H
#define MT_KERNEL_CUDA_PRODUCT_H

#include "kernel/cuda/cuda.h"

/* x [n] itself on a float32 device; else rounded, in scratch. NULL: an error was kept. */
const void *mt_cuda_operand(struct mt_cuda *cuda, const float *x, int64_t n);

void mt_cuda_products_forward(struct mt_cuda *cuda, float *y, const void *x,
                              const struct mt_weight *const *weight, struct mt_groups groups);
void mt_cuda_products_input(struct mt_cuda *cuda, float *d_x, const void *d_y,
                            const struct mt_weight *const *weight, struct mt_groups groups,
                            bool accumulate);
struct mt_cuda_weight_shape {
    int64_t n_out, n_in;
};
void mt_cuda_products_weight(struct mt_cuda *cuda, float *const *d_w, const void *d_y,
                             const void *x, struct mt_cuda_weight_shape shape,
                             struct mt_groups groups);

/* Products forward of groups that are all that small, in bfloat16, by a kernel of our own. */
enum { MT_CUDA_FEW_GROUPS = 128 };
bool mt_cuda_has_few_rows(const struct mt_cuda *cuda, const void *x,
                          const struct mt_weight *const *weight, struct mt_groups groups);
void mt_cuda_few_rows_forward(struct mt_cuda *cuda, float *y, const void *x,
                              const struct mt_weight *const *weight, struct mt_groups groups);

#endif
