#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

#include <math.h>

void mt_cpu_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim, double theta)
{
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double frequency = pow(theta, -2.0 * (double)i / (double)head_dim);
        for (int64_t t = 0; t < length; t++) {
            const double angle = (double)t * frequency;
            cosine[t * half + i] = (float)cos(angle);
            sine[t * half + i] = (float)sin(angle);
        }
    }
}

struct rotation {
    float *x;
    const struct mt_rope *rope;
    float direction; /* +1 forward, -1 backward: the sign of the angle */
};

MT_CLONES static void rotate_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct rotation *rotation = context;
    const struct mt_rope *rope = rotation->rope;
    const int64_t half = rope->head_dim / 2;
    const float direction = rotation->direction;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const int64_t position = row % rope->length;
        const float *cosine = rope->cosine + position * half;
        const float *sine = rope->sine + position * half;
        for (int64_t head = 0; head < rope->n_head; head++) {
            float *first = rotation->x + (row * rope->n_head + head) * rope->head_dim;
            float *second = first + half;
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                const float a = first[i];
                const float b = second[i];
                const float s = direction * sine[i];
                first[i] = a * cosine[i] - b * s;
                second[i] = b * cosine[i] + a * s;
            }
        }
    }
}

void mt_cpu_rope_apply(struct mt_device *device, float *x, int64_t n, const struct mt_rope *rope,
                       bool backward)
{
    struct rotation rotation = {x, rope, backward ? -1.0F : 1.0F};
    const int64_t chunk_rows = mt_max_i64(1, 16384 / (rope->n_head * rope->head_dim));
    mt_cpu_for_chunks(device, n, chunk_rows, rotate_rows, &rotation);
}
