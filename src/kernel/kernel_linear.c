/* Public face of the matrix products: checks, accounting, dispatch. */
#include "base/size.h"
#include "device/memory.h"
#include "kernel/cpu/cpu.h"
#include "kernel/table.h"

enum { PACK_ALIGNMENT = 64 };

static double product_flops(int64_t n, int64_t n_out, int64_t n_in)
{
    return 2.0 * (double)n * (double)n_out * (double)n_in;
}

static double product_bytes(int64_t n, int64_t n_out, int64_t n_in, int64_t n_weight)
{
    const double rows = (double)n * (double)(n_out + n_in);
    return 4.0 * (rows + (double)n_weight * (double)n_out * (double)n_in);
}

static int64_t count_used(struct mt_groups groups)
{
    int64_t n_used = 0;
    MT_ASSERT(groups.n_group >= 0 && groups.offset != NULL && groups.offset[0] >= 0);
    for (int group = 0; group < groups.n_group; group++) {
        MT_ASSERT(groups.offset[group] <= groups.offset[group + 1]);
        n_used += groups.offset[group] < groups.offset[group + 1] ? 1 : 0;
    }
    return n_used;
}

static void check_weights(const struct mt_weight *const *weight, int n_group)
{
    for (int group = 0; group < n_group; group++) {
        MT_ASSERT(weight[group] != NULL && weight[group]->n_out == weight[0]->n_out &&
                  weight[group]->n_in == weight[0]->n_in);
    }
}

enum mt_status mt_linear_prepare(struct mt_device *device, int64_t n_out, int64_t n_in)
{
    MT_ASSERT(n_out >= 1 && n_in >= 1);
    return mt_kernel_table(device)->linear_prepare(device, n_out, n_in);
}

void mt_kernel_clear(void)
{
    mt_cpu_clear();
}

int64_t mt_weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in,
                        bool with_backward)
{
    MT_ASSERT(n_out >= 1 && n_in >= 1);
    return mt_kernel_table(device)->weight_bytes(device, n_out, n_in, with_backward);
}

void mt_weight_init(const struct mt_device *device, struct mt_weight *weight, int64_t n_out,
                    int64_t n_in, bool with_backward, void *memory)
{
    MT_ASSERT(weight != NULL && memory != NULL && n_out >= 1 && n_in >= 1);
    MT_ASSERT((uintptr_t)memory % PACK_ALIGNMENT == 0);
    weight->n_out = n_out;
    weight->n_in = n_in;
    weight->forward_pack = memory;
    weight->backward_pack =
        with_backward ? (char *)memory + mt_weight_bytes(device, n_out, n_in, false) : NULL;
}

static void pack(struct mt_device *device, struct mt_weight *weight, const float *values)
{
    const double n_pack = weight->forward_pack != NULL && weight->backward_pack != NULL ? 2.0 : 1.0;
    const double bytes = 8.0 * n_pack * (double)weight->n_out * (double)weight->n_in;
    mt_kernel_begin(device, 0.0, bytes)->weight_pack(device, weight, values);
    mt_device_operation_end(device);
}

void mt_weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values)
{
    MT_ASSERT(weight != NULL && weight->forward_pack != NULL && values != NULL);
    pack(device, weight, values);
}

void mt_weight_pack_for(struct mt_device *device, struct mt_weight *weight, enum mt_pass pass,
                        const float *values)
{
    MT_ASSERT(weight != NULL && weight->forward_pack != NULL && values != NULL);
    MT_ASSERT(pass == MT_PASS_FORWARD || weight->backward_pack != NULL);
    struct mt_weight one = *weight;
    if (mt_device_is_host(device) && pass == MT_PASS_FORWARD) {
        one.backward_pack = NULL;
    } else if (mt_device_is_host(device)) {
        one.forward_pack = NULL;
    }
    pack(device, &one, values);
}

void mt_linear_forward(struct mt_device *device, float *y, const float *x,
                       const struct mt_weight *weight, int64_t n)
{
    MT_ASSERT(weight != NULL && weight->forward_pack != NULL && n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(y != NULL && x != NULL && y != x);
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, weight->n_out, weight->n_in),
                       product_bytes(n, weight->n_out, weight->n_in, 1))
        ->linear_forward(device, y, x, weight, n);
    mt_device_operation_end(device);
}

void mt_linear_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                              const struct mt_weight *weight, int64_t n, bool accumulate)
{
    MT_ASSERT(weight != NULL && weight->backward_pack != NULL && n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(d_x != NULL && d_y != NULL && d_x != d_y);
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, weight->n_out, weight->n_in),
                       product_bytes(n, weight->n_out, weight->n_in, 1))
        ->linear_backward_input(device, d_x, d_y, weight, n, accumulate);
    mt_device_operation_end(device);
}

void mt_linear_backward_weight(struct mt_device *device, float *d_w, const float *d_y,
                               const float *x, int64_t n_out, int64_t n_in, int64_t n)
{
    MT_ASSERT(n_out >= 1 && n_in >= 1 && n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(d_w != NULL && d_y != NULL && x != NULL);
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, n_out, n_in),
                       product_bytes(n, n_out, n_in, 2))
        ->linear_backward_weight(device, d_w, d_y, x, n_out, n_in, n);
    mt_device_operation_end(device);
}

void mt_grouped_forward(struct mt_device *device, float *y, const float *x,
                        const struct mt_weight *const *weight, struct mt_groups groups)
{
    const int64_t n_used = count_used(groups);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(y != NULL && x != NULL && y != x && weight != NULL);
    check_weights(weight, groups.n_group);
    const int64_t n = groups.offset[groups.n_group] - groups.offset[0];
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, weight[0]->n_out, weight[0]->n_in),
                       product_bytes(n, weight[0]->n_out, weight[0]->n_in, n_used))
        ->grouped_forward(device, y, x, weight, groups);
    mt_device_operation_end(device);
}

void mt_grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                               const struct mt_weight *const *weight, struct mt_groups groups,
                               bool accumulate)
{
    const int64_t n_used = count_used(groups);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(d_x != NULL && d_y != NULL && d_x != d_y && weight != NULL);
    check_weights(weight, groups.n_group);
    const int64_t n = groups.offset[groups.n_group] - groups.offset[0];
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, weight[0]->n_out, weight[0]->n_in),
                       product_bytes(n, weight[0]->n_out, weight[0]->n_in, n_used))
        ->grouped_backward_input(device, d_x, d_y, weight, groups, accumulate);
    mt_device_operation_end(device);
}

void mt_grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                const float *x, int64_t n_out, int64_t n_in,
                                struct mt_groups groups)
{
    const int64_t n_used = count_used(groups);
    MT_ASSERT(n_out >= 1 && n_in >= 1);
    if (n_used == 0) {
        return;
    }
    MT_ASSERT(d_w != NULL && d_y != NULL && x != NULL);
    const int64_t n = groups.offset[groups.n_group] - groups.offset[0];
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, product_flops(n, n_out, n_in),
                       product_bytes(n, n_out, n_in, 2 * n_used))
        ->grouped_backward_weight(device, d_w, d_y, x, n_out, n_in, groups);
    mt_device_operation_end(device);
}

void mt_bias_forward(struct mt_device *device, float *y, const float *bias, int64_t n,
                     int64_t width)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(y != NULL && bias != NULL);
    const double items = (double)n * (double)width;
    mt_kernel_begin(device, items, 8.0 * items)->bias_forward(device, y, bias, n, width);
    mt_device_operation_end(device);
}

void mt_bias_backward(struct mt_device *device, float *d_bias, const float *d_y, int64_t n,
                      int64_t width)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(d_bias != NULL && d_y != NULL);
    const double items = (double)n * (double)width;
    mt_kernel_begin(device, items, 4.0 * items)->bias_backward(device, d_bias, d_y, n, width);
    mt_device_operation_end(device);
}
