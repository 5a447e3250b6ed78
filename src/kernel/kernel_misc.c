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

void mt_cross_entropy(struct mt_device *device, double *loss, float *logits, const int32_t *target,
                      int64_t n, int64_t vocab, float scale)
{
    MT_ASSERT(loss != NULL && n >= 0 && vocab >= 1);
    MT_ASSERT(n == 0 || (logits != NULL && target != NULL));
    const double items = (double)n * (double)vocab;
    mt_kernel_begin(device, 6.0 * items, 8.0 * items)
        ->cross_entropy(device, loss, logits, target, n, vocab, scale);
    mt_device_operation_end(device);
}

void mt_adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                     const struct mt_adamw *args)
{
    MT_ASSERT(args != NULL && args->step >= 1 && n_item >= 0);
    double n = 0.0;
    double n_packed = 0.0;
    for (int64_t i = 0; i < n_item; i++) {
        const struct mt_weight *weight = item[i].weight;
        MT_ASSERT(item[i].n >= 0);
        MT_ASSERT(item[i].n == 0 || (item[i].value != NULL && item[i].grad != NULL &&
                                     item[i].m != NULL && item[i].v != NULL));
        MT_ASSERT(weight == NULL || weight->n_out * weight->n_in == item[i].n);
        n += (double)item[i].n;
        if (weight != NULL) {
            n_packed += (weight->backward_pack != NULL ? 2.0 : 1.0) * (double)item[i].n;
        }
    }
    if (n_item > 0) {
        mt_kernel_begin(device, 16.0 * n, 32.0 * n + 4.0 * n_packed)
            ->adamw_update(device, item, n_item, args);
        mt_device_operation_end(device);
    }
}

void mt_sum_squares(struct mt_device *device, double *sum, const float *x, int64_t n)
{
    MT_ASSERT(sum != NULL && n >= 0 && (n == 0 || x != NULL));
    mt_kernel_begin(device, 2.0 * (double)n, 4.0 * (double)n)->sum_squares(device, sum, x, n);
    mt_device_operation_end(device);
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
