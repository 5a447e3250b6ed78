/* Dense products: a grouped product of one group. */
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/cpu/parallel.h"

int64_t mt_cpu_weight_bytes(const struct mt_device *device, int64_t n_out, int64_t n_in,
                            bool with_backward)
{
    const int before = mt_cpu_library_threads_off();
    int64_t n_bytes = mt_gemm_pack_bytes(device->dtype, MT_GEMM_FORWARD, n_out, n_in);
    if (with_backward) {
        n_bytes += mt_gemm_pack_bytes(device->dtype, MT_GEMM_BACKWARD_INPUT, n_out, n_in);
    }
    mt_cpu_library_threads_on(before);
    return n_bytes;
}

enum mt_status mt_cpu_linear_prepare(struct mt_device *device, int64_t n_out, int64_t n_in)
{
    const int before = mt_cpu_library_threads_off();
    const enum mt_status status = mt_gemm_prepare(device->dtype, n_out, n_in, device->n_thread);
    mt_cpu_library_threads_on(before);
    return status;
}

void mt_cpu_clear(void)
{
    mt_gemm_clear();
}

void mt_cpu_linear_forward(struct mt_device *device, float *y, const float *x,
                           const struct mt_weight *weight, int64_t n)
{
    const int64_t offset[2] = {0, n};
    const struct mt_groups one = {1, offset};
    mt_cpu_grouped_forward(device, y, x, &weight, one);
}

void mt_cpu_linear_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                  const struct mt_weight *weight, int64_t n, bool accumulate)
{
    const int64_t offset[2] = {0, n};
    const struct mt_groups one = {1, offset};
    mt_cpu_grouped_backward_input(device, d_x, d_y, &weight, one, accumulate);
}

void mt_cpu_linear_backward_weight(struct mt_device *device, float *d_w, const float *d_y,
                                   const float *x, int64_t n_out, int64_t n_in, int64_t n)
{
    const int64_t offset[2] = {0, n};
    const struct mt_groups one = {1, offset};
    mt_cpu_grouped_backward_weight(device, &d_w, d_y, x, n_out, n_in, one);
}
