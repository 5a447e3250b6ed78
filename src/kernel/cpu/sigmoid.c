#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/vector.h"

enum { CHUNK = 4096 };

struct sigmoid {
    float *out;
    const float *x, *y; /* forward: x; backward: x = d_y and y */
};

MT_CLONES static void forward_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct sigmoid *s = context;
    /* simd: out may be x, element for element */
#pragma omp simd
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        s->out[i] = mt_sigmoid(s->x[i]);
    }
}

void mt_cpu_sigmoid_forward(struct mt_device *device, float *y, const float *x, int64_t n)
{
    struct sigmoid s = {.out = y, .x = x};
    mt_cpu_for_chunks(device, n, CHUNK, forward_chunk, &s);
}

MT_CLONES static void backward_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct sigmoid *s = context;
#pragma omp simd
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        s->out[i] = s->x[i] * s->y[i] * (1.0F - s->y[i]);
    }
}

void mt_cpu_sigmoid_backward(struct mt_device *device, float *d_x, const float *d_y, const float *y,
                             int64_t n)
{
    struct sigmoid s = {.out = d_x, .x = d_y, .y = y};
    mt_cpu_for_chunks(device, n, CHUNK, backward_chunk, &s);
}
