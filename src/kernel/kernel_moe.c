/* Public face of the expert operations: checks, accounting, dispatch. */
#include "device/memory.h"
#include "kernel/table.h"

void mt_router_forward(struct mt_device *device, float *logits, const float *x, const float *w,
                       int64_t n, int64_t n_expert, int64_t width)
{
    MT_ASSERT(n >= 0 && n_expert >= 1 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(logits != NULL && x != NULL && w != NULL);
    const double flops = 2.0 * (double)n * (double)n_expert * (double)width;
    const double bytes =
        4.0 * ((double)n * (double)(n_expert + width) + (double)n_expert * (double)width);
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, flops, bytes)
        ->router_forward(device, logits, x, w, n, n_expert, width);
    mt_device_operation_end(device);
}

void mt_router_backward(struct mt_device *device, const struct mt_router_backward *args, int64_t n,
                        int64_t n_expert, int64_t width)
{
    MT_ASSERT(args != NULL && n >= 0 && n_expert >= 1 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(args->d_x != NULL && args->d_w != NULL && args->d_logits != NULL);
    MT_ASSERT(args->x != NULL && args->w != NULL);
    const double flops = 4.0 * (double)n * (double)n_expert * (double)width;
    const double bytes =
        4.0 * ((double)n * (double)(n_expert + 3 * width) + 3.0 * (double)n_expert * (double)width);
    mt_kernel_begin_as(device, MT_WORK_PRODUCT, flops, bytes)
        ->router_backward(device, args, n, n_expert, width);
    mt_device_operation_end(device);
}

static void check_gate(const struct mt_gate *gate)
{
    MT_ASSERT(gate != NULL && gate->n_expert >= 1);
    MT_ASSERT(gate->top_k >= 1 && gate->top_k <= gate->n_expert);
}

void mt_gate_forward(struct mt_device *device, const struct mt_gate_forward *args, int64_t n,
                     const struct mt_gate *gate)
{
    check_gate(gate);
    MT_ASSERT(args != NULL && n >= 0);
    MT_ASSERT(args->count != NULL && args->probability_sum != NULL && args->lse_square_sum != NULL);
    MT_ASSERT(n == 0 || (args->expert != NULL && args->weight != NULL &&
                         args->probability != NULL && args->lse != NULL && args->logits != NULL));
    const double items = (double)n * (double)gate->n_expert;
    mt_kernel_begin(device, 8.0 * items, 8.0 * items + 8.0 * (double)n * (double)gate->top_k)
        ->gate_forward(device, args, n, gate);
    mt_device_operation_end(device);
}

void mt_gate_backward(struct mt_device *device, const struct mt_gate_backward *args, int64_t n,
                      const struct mt_gate *gate)
{
    check_gate(gate);
    MT_ASSERT(args != NULL && n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(args->d_logits != NULL && args->d_weight != NULL && args->expert != NULL);
    MT_ASSERT(args->weight != NULL && args->probability != NULL && args->lse != NULL);
    const double items = (double)n * (double)gate->n_expert;
    mt_kernel_begin(device, 6.0 * items, 8.0 * items + 12.0 * (double)n * (double)gate->top_k)
        ->gate_backward(device, args, n, gate);
    mt_device_operation_end(device);
}

static double count_copied(const int64_t *out_offset, const int64_t *in_offset, int64_t n)
{
    int64_t n_copied = 0;
    for (int64_t i = 0; i < n; i++) {
        const bool is_left_out =
            (out_offset != NULL && out_offset[i] < 0) || (in_offset != NULL && in_offset[i] < 0);
        n_copied += is_left_out ? 0 : 1;
    }
    return (double)n_copied;
}

void mt_rows_copy(struct mt_device *device, float *out, const int64_t *out_offset, const float *in,
                  const int64_t *in_offset, int64_t n, int64_t width)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(out != NULL && in != NULL);
    /* a GPU's offsets are not there to be read, and it is not paced */
    const double n_copied =
        mt_device_is_host(device) ? count_copied(out_offset, in_offset, n) : (double)n;
    mt_kernel_begin(device, 0.0, 8.0 * n_copied * (double)width)
        ->rows_copy(device, out, out_offset, in, in_offset, n, width);
    mt_device_operation_end(device);
}

void mt_rows_combine(struct mt_device *device, const struct mt_rows_combine *args, int64_t n)
{
    MT_ASSERT(args != NULL && n >= 0 && args->n_choice >= 0 && args->width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(args->out != NULL);
    MT_ASSERT(args->n_choice == 0 || (args->in != NULL && args->in_offset != NULL));
    const double read = (double)args->n_choice * (double)n * (double)args->width;
    const double written = (args->accumulate ? 2.0 : 1.0) * (double)n * (double)args->width;
    mt_kernel_begin(device, read, 4.0 * (read + written))->rows_combine(device, args, n);
    mt_device_operation_end(device);
}

void mt_sigmoid_forward(struct mt_device *device, float *y, const float *x, int64_t n)
{
    MT_ASSERT(n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(y != NULL && x != NULL);
    mt_kernel_begin(device, 4.0 * (double)n, 8.0 * (double)n)->sigmoid_forward(device, y, x, n);
    mt_device_operation_end(device);
}

void mt_sigmoid_backward(struct mt_device *device, float *d_x, const float *d_y, const float *y,
                         int64_t n)
{
    MT_ASSERT(n >= 0);
    if (n == 0) {
        return;
    }
    MT_ASSERT(d_x != NULL && d_y != NULL && y != NULL);
    mt_kernel_begin(device, 3.0 * (double)n, 12.0 * (double)n)
        ->sigmoid_backward(device, d_x, d_y, y, n);
    mt_device_operation_end(device);
}
