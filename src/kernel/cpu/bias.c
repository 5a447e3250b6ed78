#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

struct bias {
    float *out;      /* forward: y [n,width]; backward: d_bias [width] */
    const float *in; /* forward: bias [width]; backward: d_y [n,width] */
    int64_t n, width;
};

MT_CLONES static void add_to_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct bias *b = context;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        float *y = b->out + row * b->width;
#pragma omp simd
        for (int64_t j = 0; j < b->width; j++) {
            y[j] += b->in[j];
        }
    }
}

void mt_cpu_bias_forward(struct mt_device *device, float *y, const float *bias, int64_t n,
                         int64_t width)
{
    struct bias b = {y, bias, n, width};
    mt_cpu_for_chunks(device, n, mt_max_i64(1, 16384 / width), add_to_rows, &b);
}

/* Columns whose sums stay in the first cache over all rows. */
enum { COLUMNS = 64 };

/* A column's sum is its own, so that neither chunks nor threads change it. */
MT_CLONES static void sum_columns(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct bias *b = context;
    const int64_t n_column = chunk->end - chunk->begin;
    double sum[COLUMNS] = {0};
    for (int64_t row = 0; row < b->n; row++) {
        const float *d_y = b->in + row * b->width + chunk->begin;
#pragma omp simd
        for (int64_t j = 0; j < n_column; j++) {
            sum[j] += (double)d_y[j];
        }
    }
    for (int64_t j = 0; j < n_column; j++) {
        b->out[chunk->begin + j] += (float)sum[j];
    }
}

void mt_cpu_bias_backward(struct mt_device *device, float *d_bias, const float *d_y, int64_t n,
                          int64_t width)
{
    struct bias b = {d_bias, d_y, n, width};
    mt_cpu_for_chunks(device, width, COLUMNS, sum_columns, &b);
}
