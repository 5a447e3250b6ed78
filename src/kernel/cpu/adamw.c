#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

#include <math.h>

/* Elements of a chunk: 128 KiB of each array. */
enum { CHUNK = 32768 };

/* The scalars of the update, folded in double precision and rounded once. */
struct adamw {
    float *value, *m, *v;
    const float *grad;
    float grad_scale, beta1, beta2;
    float one_minus_beta1, one_minus_beta2;
    float rate;       /* lr / (1 - beta1^step) */
    float inverse_c2; /* 1 / (1 - beta2^step) */
    float eps;
    float decay; /* lr weight_decay */
};

MT_CLONES static void update(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct adamw a = *(const struct adamw *)context;
    float *restrict value = a.value;
    float *restrict m = a.m;
    float *restrict v = a.v;
    const float *restrict grad = a.grad;
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        const float g = a.grad_scale * grad[i];
        m[i] = a.beta1 * m[i] + a.one_minus_beta1 * g;
        v[i] = a.beta2 * v[i] + a.one_minus_beta2 * (g * g);
        const float step = a.rate * m[i] / (sqrtf(v[i] * a.inverse_c2) + a.eps);
        /* The sum first: 1 - lr decay would round the decay away (1e-5 to 0.6 % of itself). */
        value[i] -= step + a.decay * value[i];
    }
}

void mt_cpu_adamw_update(struct mt_device *device, float *value, const float *grad, float *m,
                         float *v, int64_t n, const struct mt_adamw *args)
{
    const double c1 = 1.0 - pow(args->beta1, (double)args->step);
    const double c2 = 1.0 - pow(args->beta2, (double)args->step);
    struct adamw a = {
        .value = value,
        .m = m,
        .v = v,
        .grad = grad,
        .grad_scale = (float)args->grad_scale,
        .beta1 = (float)args->beta1,
        .beta2 = (float)args->beta2,
        .one_minus_beta1 = (float)(1.0 - args->beta1),
        .one_minus_beta2 = (float)(1.0 - args->beta2),
        .rate = (float)(args->lr / c1),
        .inverse_c2 = (float)(1.0 / c2),
        .eps = (float)args->eps,
        .decay = (float)(args->lr * args->weight_decay),
    };
    mt_cpu_for_chunks(device, n, CHUNK, update, &a);
}
