#include "kernel/cpu/weight_pack.h"

#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"

struct mt_weight_pack mt_weight_pack_find(enum mt_dtype dtype, const struct mt_weight *weight)
{
    const struct mt_gemm *forward =
        mt_gemm_find(dtype, MT_GEMM_FORWARD, weight->n_out, weight->n_in);
    const struct mt_gemm *backward =
        mt_gemm_find(dtype, MT_GEMM_BACKWARD_INPUT, weight->n_out, weight->n_in);
    return (struct mt_weight_pack){.forward = forward,
                                   .backward = backward,
                                   .has_slabs = mt_gemm_pack_of(forward)->has_slabs &&
                                                mt_gemm_pack_of(backward)->has_slabs};
}

int64_t mt_weight_pack_n_slab(const struct mt_weight *weight)
{
    return mt_ceil_div(weight->n_out, MT_PACK_SLAB);
}

void mt_weight_pack_slab(const struct mt_weight_pack *pack, const struct mt_weight *weight,
                         const float *values, int64_t slab)
{
    if (weight->forward_pack != NULL) {
        mt_gemm_pack_slab(mt_gemm_pack_of(pack->forward), weight->forward_pack, values, slab);
    }
    if (weight->backward_pack != NULL) {
        mt_gemm_pack_slab(mt_gemm_pack_of(pack->backward), weight->backward_pack, values, slab);
    }
}

struct pack_job {
    struct mt_weight_pack pack;
    const struct mt_weight *weight;
    const float *values;
};

static void pack_slab(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct pack_job *job = context;
    mt_weight_pack_slab(&job->pack, job->weight, job->values, chunk->index);
}

static void pack_whole(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct pack_job *job = context;
    const bool forward = chunk->index == MT_GEMM_FORWARD;
    void *pack = forward ? job->weight->forward_pack : job->weight->backward_pack;
    if (pack != NULL) {
        mt_gemm_pack(forward ? job->pack.forward : job->pack.backward, chunk->thread, pack,
                     job->values);
    }
}

void mt_cpu_weight_pack(struct mt_device *device, struct mt_weight *weight, const float *values)
{
    struct pack_job job = {mt_weight_pack_find(device->dtype, weight), weight, values};
    if (job.pack.has_slabs) {
        mt_cpu_for_chunks(device, mt_weight_pack_n_slab(weight), 1, pack_slab, &job);
    } else {
        mt_cpu_for_chunks(device, MT_N_GEMM_KIND, 1, pack_whole, &job);
    }
}
