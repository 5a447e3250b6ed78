/* AdamW: one pass over value, gradient and moments, and the weight's pack in the same pass. Items
 * reach the device as parameters of the launch, ITEMS at a time. */
#include "kernel/cuda/context.h"
#include "kernel/cuda/dev.cuh"

#include <math.h>

/* 40 items are 2.6 of the 4 KiB that every architecture takes as parameters. */
enum { THREADS = 256, ITEMS = 40, CHUNK = 16 * THREADS };

/* As kernel/cpu/adamw.c: folded in double, rounded once. */
struct scalars {
    float grad_scale, beta1, beta2;
    float one_minus_beta1, one_minus_beta2;
    float rate;       /* lr / (1 - beta1^step) */
    float inverse_c2; /* 1 / (1 - beta2^step) */
    float eps, decay; /* lr weight_decay */
};

struct item {
    float *value, *grad, *m, *v;
    void *pack; /* NULL: none */
    int64_t n, first_chunk;
    bool decays, has_quads;
};
struct job {
    struct scalars scalars;
    bool is_bf16;
    int n_item;
    struct item item[ITEMS];
};

static struct scalars fold(const struct mt_adamw *args)
{
    const double c1 = 1.0 - pow(args->beta1, (double)args->step);
    const double c2 = 1.0 - pow(args->beta2, (double)args->step);
    return {(float)args->grad_scale,
            (float)args->beta1,
            (float)args->beta2,
            (float)(1.0 - args->beta1),
            (float)(1.0 - args->beta2),
            (float)(args->lr / c1),
            (float)(1.0 / c2),
            (float)args->eps,
            (float)(args->lr * args->weight_decay)};
}

__device__ __forceinline__ float update_one(float value, float grad, float *m, float *v,
                                            const struct scalars *s, float decay)
{
    const float g = grad * s->grad_scale;
    *m = s->beta1 * *m + s->one_minus_beta1 * g;
    *v = s->beta2 * *v + s->one_minus_beta2 * (g * g);
    const float step = s->rate * *m / (sqrtf(*v * s->inverse_c2) + s->eps);
    return value - (step + decay * value);
}

__device__ __forceinline__ void update_quad(const struct item *item, const struct scalars *s,
                                            bool is_bf16, int64_t at)
{
    const bool has_quads = item->has_quads && at + 4 <= item->n;
    const float decay = item->decays ? s->decay : 0.0F;
    float4 value = mt_load_quad(item->value, at, item->n, has_quads);
    const float4 grad = mt_load_quad(item->grad, at, item->n, has_quads);
    float4 m = mt_load_quad(item->m, at, item->n, has_quads);
    float4 v = mt_load_quad(item->v, at, item->n, has_quads);
    value.x = update_one(value.x, grad.x, &m.x, &v.x, s, decay);
    value.y = update_one(value.y, grad.y, &m.y, &v.y, s, decay);
    value.z = update_one(value.z, grad.z, &m.z, &v.z, s, decay);
    value.w = update_one(value.w, grad.w, &m.w, &v.w, s, decay);
    mt_store_quad(item->value, at, item->n, has_quads, value);
    mt_store_quad(item->m, at, item->n, has_quads, m);
    mt_store_quad(item->v, at, item->n, has_quads, v);
    mt_store_quad(item->grad, at, item->n, has_quads, make_float4(0.0F, 0.0F, 0.0F, 0.0F));
    if (item->pack != nullptr && is_bf16) {
        mt_store_quad_bf16(static_cast<uint16_t *>(item->pack), at, item->n, at + 4 <= item->n,
                           value);
    } else if (item->pack != nullptr) {
        mt_store_quad(static_cast<float *>(item->pack), at, item->n, has_quads, value);
    }
}

__global__ void __launch_bounds__(THREADS) update_items(const struct job job)
{
    int i = 0;
    while (i + 1 < job.n_item && job.item[i + 1].first_chunk <= blockIdx.x) {
        i++;
    }
    const struct item item = job.item[i];
    const int64_t begin = (blockIdx.x - item.first_chunk) * CHUNK;
    const int64_t end = mt_cuda_min(item.n, begin + CHUNK);
    for (int64_t at = begin + 4 * (int64_t)threadIdx.x; at < end; at += 4 * THREADS) {
        update_quad(&item, &job.scalars, job.is_bf16, at);
    }
}

static struct item item_of(const struct mt_adamw_item *from, int64_t first_chunk)
{
    const bool has_quads = mt_has_quads(from->value, 4) && mt_has_quads(from->grad, 4) &&
                           mt_has_quads(from->m, 4) && mt_has_quads(from->v, 4);
    return {from->value,
            from->grad,
            from->m,
            from->v,
            from->weight != NULL ? from->weight->forward_pack : NULL,
            from->n,
            first_chunk,
            from->decays,
            has_quads};
}

void mt_cuda_adamw_update(struct mt_cuda *cuda, const struct mt_adamw_item *item, int64_t n_item,
                          const struct mt_adamw *args)
{
    struct job job = {};
    job.scalars = fold(args);
    job.is_bf16 = cuda->dtype == MT_BFLOAT16;
    int64_t n_chunk = 0;
    for (int64_t i = 0; i <= n_item; i++) {
        if (job.n_item == ITEMS || (i == n_item && job.n_item > 0)) {
            mt_launch(update_items, (unsigned)n_chunk, THREADS, 0, cuda->stream, job);
            job.n_item = 0;
            n_chunk = 0;
        }
        if (i < n_item && item[i].n > 0) {
            job.item[job.n_item++] = item_of(&item[i], n_chunk);
            n_chunk += mt_cuda_ceil(item[i].n, CHUNK);
        }
    }
}
