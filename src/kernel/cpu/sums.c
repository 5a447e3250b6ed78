#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

#include <string.h>

/* Elements of a chunk: 128 KiB. A sum has at most PARTIALS chunks, which are longer when they
 * must be: a number that depends on n alone. */
enum { CHUNK = 32768, PARTIALS = 256 };

struct squares {
    const float *x;
    double partial[PARTIALS];
};

MT_CLONES static void sum_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    struct squares *squares = context;
    const float *x = squares->x;
    double lane[MT_LANES] = {0};
    int64_t i = chunk->begin;
    for (; i + MT_LANES <= chunk->end; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] += (double)x[i + j] * (double)x[i + j];
        }
    }
    for (int j = 0; i + j < chunk->end; j++) {
        lane[j] += (double)x[i + j] * (double)x[i + j];
    }
    double sum = 0.0;
    for (int j = 0; j < MT_LANES; j++) {
        sum += lane[j];
    }
    squares->partial[chunk->index] = sum;
}

void mt_cpu_sum_squares(struct mt_device *device, double *sum, const float *x, int64_t n)
{
    struct squares squares = {.x = x};
    const int64_t chunk = mt_max_i64(CHUNK, mt_round_up(mt_ceil_div(n, PARTIALS), MT_LANES));
    mt_cpu_for_chunks(device, n, chunk, sum_chunk, &squares);
    *sum = 0.0;
    for (int64_t i = 0; i < mt_ceil_div(n, chunk); i++) {
        *sum += squares.partial[i];
    }
}

static void zero_chunk(void *context, const struct mt_cpu_chunk *chunk)
{
    float *x = context;
    memset(x + chunk->begin, 0, (size_t)(chunk->end - chunk->begin) * sizeof(float));
}

void mt_cpu_fill_zero(struct mt_device *device, float *x, int64_t n)
{
    mt_cpu_for_chunks(device, n, CHUNK, zero_chunk, x);
}
