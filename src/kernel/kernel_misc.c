/* Public face of embedding, loss, optimizer and sums: checks, accounting, dispatch. */
#include "kernel/table.h"

void mt_embedding_forward(struct mt_device *device, float *x, const int32_t *token,
                          const float *table, int64_t n, int64_t width)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(x != NULL && token != NULL && table != NULL);
    mt_kernel_begin(device, 0.0, 8.0 * (double)n * (double)width)
        ->embedding_forward(device, x, token, table, n, width);
    mt_device_operation_end(device);
}

void mt_embedding_backward(struct mt_device *device, float *d_table, const int32_t *token,
                           const float *d_x, int64_t n, int64_t width)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(d_table != NULL && token != NULL && d_x != NULL);
    const double items = (double)n * (double)width;
    mt_kernel_begin(device, items, 12.0 * items)
        ->embedding_backward(device, d_table, token, d_x, n, width);
    mt_device_operation_end(device);
}

double mt_cross_entropy(struct mt_device *device, float *logits, const int32_t *target, int64_t n,
                        int64_t vocab, float scale)
{
    MT_ASSERT(n >= 0 && vocab >= 1);
    if (n == 0) {
        return 0.0;
    }
    MT_ASSERT(logits != NULL && target != NULL);
    const double items = (double)n * (double)vocab;
    const double loss = mt_kernel_begin(device, 6.0 * items, 8.0 * items)
                            ->cross_entropy(device, logits, target, n, vocab, scale);
    mt_device_operation_end(device);
    return loss;
}

void mt_adamw_update(struct mt_device *device, float *value, const float *grad, float *m, float *v,
                     int64_t n, const struct mt_adamw *args)
{
    MT_ASSERT(args != NULL && args->step >= 1 && n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(value != NULL && grad != NULL && m != NULL && v != NULL);
    mt_kernel_begin(device, 16.0 * (double)n, 28.0 * (double)n)
        ->adamw_update(device, value, grad, m, v, n, args);
    mt_device_operation_end(device);
}

double mt_sum_squares(struct mt_device *device, const float *x, int64_t n)
{
    MT_ASSERT(n >= 0);
    if (n == 0) {
        return 0.0;
    }
    MT_ASSERT(x != NULL);
    const double sum =
        mt_kernel_begin(device, 2.0 * (double)n, 4.0 * (double)n)->sum_squares(device, x, n);
    mt_device_operation_end(device);
    return sum;
}

void mt_fill_zero(struct mt_device *device, float *x, int64_t n)
{
    MT_ASSERT(n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(x != NULL);
    mt_kernel_begin(device, 0.0, 4.0 * (double)n)->fill_zero(device, x, n);
    mt_device_operation_end(device);
}
