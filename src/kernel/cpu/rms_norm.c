#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/vector.h"

#include <math.h>

/* Rows of a chunk: about 64 KiB of x, so that a chunk costs far more than its dispatch. */
static int64_t chunk_rows(int64_t width)
{
    return mt_max_i64(1, 16384 / width);
}

/* Columns of a chunk of d_w, and rows summed in float before they join d_w. */
enum { COLUMNS = 64, ROWS = 64 };

struct forward {
    float *y, *rstd;
    const float *x, *w;
    int64_t width;
    float eps;
};

MT_CLONES static void forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const float *w = f->w;
    const int64_t width = f->width;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *x = f->x + row * width;
        float *y = f->y + row * width;
        const float mean = mt_dot(x, x, width) / (float)width;
        const float rstd = 1.0F / sqrtf(mean + f->eps);
        f->rstd[row] = rstd;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            y[j] = x[j] * rstd * w[j];
        }
    }
}

void mt_cpu_rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                             const float *w, int64_t n, int64_t width, float eps)
{
    struct forward f = {y, rstd, x, w, width, eps};
    mt_cpu_for_chunks(device, n, chunk_rows(width), forward_rows, &f);
}

struct backward {
    const struct mt_rms_norm_backward *args;
    int64_t n, width;
};

/* d_w of the chunk's columns over all rows: groups of ROWS rows in order, each row in order. */
MT_CLONES static void backward_weight(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    const int64_t width = b->width;
    const int64_t n_column = chunk->end - chunk->begin;
    float *d_w = b->args->d_w + chunk->begin;
    for (int64_t first = 0; first < b->n; first += ROWS) {
        const int64_t last = mt_min_i64(first + ROWS, b->n);
        float sum[COLUMNS] = {0};
        for (int64_t row = first; row < last; row++) {
            const float *x = b->args->x + row * width + chunk->begin;
            const float *d_y = b->args->d_y + row * width + chunk->begin;
            const float rstd = b->args->rstd[row];
#pragma omp simd
            for (int64_t j = 0; j < n_column; j++) {
                sum[j] += d_y[j] * (x[j] * rstd);
            }
        }
        for (int64_t j = 0; j < n_column; j++) {
            d_w[j] += sum[j];
        }
    }
}

/* sum over j of d_y w x */
MT_INLINE float triple_sum(const float *d_y, const float *w, const float *x, int64_t n)
{
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] += d_y[i + j] * w[i + j] * x[i + j];
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] += d_y[i + j] * w[i + j] * x[i + j];
    }
    return mt_lanes_sum(lane);
}

MT_CLONES static void backward_input(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    const struct mt_rms_norm_backward *args = b->args;
    const float *w = args->w;
    const bool accumulate = args->accumulate;
    const int64_t width = b->width;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *x = args->x + row * width;
        const float *d_y = args->d_y + row * width;
        float *d_x = args->d_x + row * width;
        const float rstd = args->rstd[row];
        const float mean = triple_sum(d_y, w, x, width) * rstd / (float)width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float before = accumulate ? d_x[j] : 0.0F;
            d_x[j] = before + rstd * (d_y[j] * w[j] - x[j] * rstd * mean);
        }
    }
}

void mt_cpu_rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                              int64_t n, int64_t width)
{
    struct backward b = {args, n, width};
    /* First d_w: d_x may overwrite d_y. */
    mt_cpu_for_chunks(device, width, COLUMNS, backward_weight, &b);
    mt_cpu_for_chunks(device, n, chunk_rows(width), backward_input, &b);
}
