/* Dense products: a grouped product of one group. */
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/cpu/panels.h"
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

struct pack_job {
    enum mt_dtype dtype;
    struct mt_weight *weight;
    const float *values;
};

static void pack_kind(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct pack_job *job = context;
    const struct mt_weight *weight = job->weight;
    const bool forward = chunk->index == MT_GEMM_FORWARD;
    const struct mt_gemm *gemm =
        mt_gemm_find(job->dtype, (enum mt_gemm_kind)chunk->index, weight->n_out, weight->n_in);
    mt_gemm_pack(gemm, chunk->thread, forward ? weight->forward_pack : weight->backward_pack,
                 job->values);
}

void mt_cpu_weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values)
{
    if (mt_panels_fit(device->dtype, weight)) {
        struct mt_panels panels = {weight, values, false};
        mt_cpu_for_chunks(device, mt_panels_n_slab(weight), 1, mt_panels_pack_chunk, &panels);
        return;
    }
    struct pack_job job = {device->dtype, weight, values};
    mt_cpu_for_chunks(device, weight->backward_pack != NULL ? MT_N_GEMM_KIND : 1, 1, pack_kind,
                      &job);
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
