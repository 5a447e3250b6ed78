#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"
#include "kernel/cpu/weight_pack.h"

#include <math.h>

/* Elements of a chunk: 128 KiB of each array. A weight that is packed goes in slabs of its packs
 * instead, so that its values are packed while a core's cache has them. */
enum { CHUNK = 32768 };

/* The scalars of the update, folded in double precision and rounded once. */
struct scalars {
    float grad_scale, beta1, beta2;
    float one_minus_beta1, one_minus_beta2;
    float rate;       /* lr / (1 - beta1^step) */
    float inverse_c2; /* 1 / (1 - beta2^step) */
    float eps;
    float decay; /* lr weight_decay, 0 where nothing decays */
};

struct job {
    enum mt_dtype dtype;
    struct scalars decaying, other;
    const struct mt_adamw_item *item;
    int64_t n_item;
};

static struct scalars fold(const struct mt_adamw *args, double weight_decay)
{
    const double c1 = 1.0 - pow(args->beta1, (double)args->step);
    const double c2 = 1.0 - pow(args->beta2, (double)args->step);
    return (struct scalars){
        .grad_scale = (float)args->grad_scale,
        .beta1 = (float)args->beta1,
        .beta2 = (float)args->beta2,
        .one_minus_beta1 = (float)(1.0 - args->beta1),
        .one_minus_beta2 = (float)(1.0 - args->beta2),
        .rate = (float)(args->lr / c1),
        .inverse_c2 = (float)(1.0 / c2),
        .eps = (float)args->eps,
        .decay = (float)(args->lr * weight_decay),
    };
}

MT_CLONES static void update(const struct scalars *scalars, const struct mt_adamw_item *item,
                             int64_t begin, int64_t end)
{
    const struct scalars a = *scalars;
    float *restrict value = item->value;
    float *restrict m = item->m;
    float *restrict v = item->v;
    float *restrict grad = item->grad;
    for (int64_t i = begin; i < end; i++) {
        const float g = a.grad_scale * grad[i];
        grad[i] = 0.0F;
        m[i] = a.beta1 * m[i] + a.one_minus_beta1 * g;
        v[i] = a.beta2 * v[i] + a.one_minus_beta2 * (g * g);
        const float step = a.rate * m[i] / (sqrtf(v[i] * a.inverse_c2) + a.eps);
        /* The sum first: 1 - lr decay would round the decay away (1e-5 to 0.6 % of itself). */
        value[i] -= step + a.decay * value[i];
    }
}

static bool is_in_slabs(const struct job *job, const struct mt_adamw_item *item)
{
    return item->weight != NULL && mt_weight_pack_find(job->dtype, item->weight).has_slabs;
}

static int64_t count_chunks(const struct job *job, const struct mt_adamw_item *item)
{
    return is_in_slabs(job, item) ? mt_weight_pack_n_slab(item->weight)
                                  : mt_ceil_div(item->n, CHUNK);
}

/* The item of a chunk: the last that begins at it or before, and is not empty. */
static const struct mt_adamw_item *find_item(const struct job *job, int64_t chunk)
{
    int64_t low = 0;
    int64_t high = job->n_item;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (job->item[middle].first_chunk <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &job->item[low];
}

static void update_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct job *job = context;
    const struct mt_adamw_item *item = find_item(job, chunk->index);
    const bool in_slabs = is_in_slabs(job, item);
    const int64_t size = in_slabs ? MT_PACK_SLAB * item->weight->n_in : CHUNK;
    const int64_t index = chunk->index - item->first_chunk;
    update(item->decays ? &job->decaying : &job->other, item, index * size,
           mt_min_i64(item->n, (index + 1) * size));
    if (in_slabs) {
        const struct mt_weight_pack pack = mt_weight_pack_find(job->dtype, item->weight);
        mt_weight_pack_slab(&pack, item->weight, item->value, index);
    }
}

void mt_cpu_adamw_update(struct mt_device *device, struct mt_adamw_item *item, int64_t n_item,
                         const struct mt_adamw *args)
{
    struct job job = {.dtype = device->dtype,
                      .decaying = fold(args, args->weight_decay),
                      .other = fold(args, 0.0),
                      .item = item,
                      .n_item = n_item};
    int64_t n_chunk = 0;
    for (int64_t i = 0; i < n_item; i++) {
        item[i].first_chunk = n_chunk;
        n_chunk += count_chunks(&job, &item[i]);
    }
    mt_cpu_for_chunks(device, n_chunk, 1, update_chunk, &job);
    for (int64_t i = 0; i < n_item; i++) {
        if (item[i].weight != NULL && !is_in_slabs(&job, &item[i])) {
            mt_cpu_weight_pack(device, item[i].weight, item[i].value);
        }
    }
}
