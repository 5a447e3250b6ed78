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

/* Rows of d_y x rstd that are summed in float before they join d_w, and columns that a thread takes
 * when there are several. */
enum { ROWS = 16, COLUMNS = 64 };

struct forward {
    float *y, *rstd;
    float *sum; /* NULL: x is normed, not added */
    const float *x;
    const float *w;
    int64_t width;
    float eps;
};

/* sum [n] += x [n]; returns the sum of its squares, as mt_dot(sum, sum) would. */
MT_INLINE float add_and_square(float *restrict sum, const float *restrict x, int64_t n)
{
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            const float value = sum[i + j] + x[i + j];
            sum[i + j] = value;
            lane[j] += value * value;
        }
    }
    for (int j = 0; i + j < n; j++) {
        const float value = sum[i + j] + x[i + j];
        sum[i + j] = value;
        lane[j] += value * value;
    }
    return mt_lanes_sum(lane);
}

/* y [n] = x rstd w from the sum of squares of x; returns rstd. */
MT_INLINE float norm_row(const struct forward *f, float *y, const float *x, float square_sum)
{
    const float *w = f->w;
    const float rstd = 1.0F / sqrtf(square_sum / (float)f->width + f->eps);
#pragma omp simd
    for (int64_t j = 0; j < f->width; j++) {
        y[j] = x[j] * rstd * w[j];
    }
    return rstd;
}

MT_CLONES static void forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward f = *(const struct forward *)context;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *x = f.x + row * f.width;
        f.rstd[row] = norm_row(&f, f.y + row * f.width, x, mt_dot(x, x, f.width));
    }
}

MT_CLONES static void add_forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward f = *(const struct forward *)context;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        float *sum = f.sum + row * f.width;
        const float square_sum = add_and_square(sum, f.x + row * f.width, f.width);
        f.rstd[row] = norm_row(&f, f.y + row * f.width, sum, square_sum);
    }
}

void mt_cpu_rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                             const float *w, int64_t n, int64_t width, float eps)
{
    struct forward f = {y, rstd, NULL, x, w, width, eps};
    mt_cpu_for_chunks(device, n, chunk_rows(width), forward_rows, &f);
}

void mt_cpu_add_rms_norm_forward(struct mt_device *device,
                                 const struct mt_add_rms_norm_forward *args, int64_t n,
                                 int64_t width)
{
    struct forward f = {args->y, args->rstd, args->sum, args->x, args->w, width, args->eps};
    mt_cpu_for_chunks(device, n, chunk_rows(width), add_forward_rows, &f);
}

struct backward {
    const struct mt_rms_norm_backward *args;
    int64_t n, width;
};

/* d_w of n columns += their sum over rows first .. last - 1 in order. */
MT_INLINE void add_weight_columns(const struct backward *b, int64_t first, int64_t last,
                                  int64_t column, int64_t n)
{
    const int64_t width = b->width;
    const float *x = b->args->x + column;
    const float *d_y = b->args->d_y + column;
    float *d_w = b->args->d_w + column;
    float sum[COLUMNS] = {0};
    for (int64_t row = first; row < last; row++) {
        const float rstd = b->args->rstd[row];
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            sum[j] += d_y[row * width + j] * (x[row * width + j] * rstd);
        }
    }
    for (int64_t j = 0; j < n; j++) {
        d_w[j] += sum[j];
    }
}

/* d_w of columns begin .. end - 1 += their sum over ROWS rows from `first` on. */
MT_INLINE void add_weight_rows(const struct backward *b, int64_t first, int64_t begin, int64_t end)
{
    const int64_t last = mt_min_i64(first + ROWS, b->n);
    int64_t column = begin;
    for (; column + COLUMNS <= end; column += COLUMNS) {
        add_weight_columns(b, first, last, column, COLUMNS);
    }
    if (column < end) {
        add_weight_columns(b, first, last, column, end - column);
    }
}

MT_CLONES static void backward_weight(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    for (int64_t first = 0; first < b->n; first += ROWS) {
        add_weight_rows(b, first, chunk->begin, chunk->end);
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

/* factor [end - begin] = what x is multiplied by in d_x. */
MT_INLINE void find_factors(const struct backward *b, int64_t begin, int64_t end, float *factor)
{
    const struct mt_rms_norm_backward *args = b->args;
    const int64_t width = b->width;
    for (int64_t row = begin; row < end; row++) {
        const float rstd = args->rstd[row];
        const float sum =
            triple_sum(args->d_y + row * width, args->w, args->x + row * width, width);
        factor[row - begin] = sum * rstd / (float)width * rstd;
    }
}

MT_INLINE void write_input_rows(const struct backward *b, int64_t begin, int64_t end,
                                const float *factor)
{
    const struct mt_rms_norm_backward *args = b->args;
    const bool accumulate = args->accumulate;
    const float *w = args->w;
    const int64_t width = b->width;
    for (int64_t row = begin; row < end; row++) {
        const float *x = args->x + row * width;
        const float *d_y = args->d_y + row * width;
        float *d_x = args->d_x + row * width;
        const float rstd = args->rstd[row];
        const float x_factor = factor[row - begin];
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float before = accumulate ? d_x[j] : 0.0F;
            d_x[j] = before + rstd * (d_y[j] * w[j] - x[j] * x_factor);
        }
    }
}

MT_CLONES static void backward_input(void *context, const struct mt_cpu_chunk *chunk)
{
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        float factor = 0.0F;
        find_factors(context, row, row + 1, &factor);
        write_input_rows(context, row, row + 1, &factor);
    }
}

/* Everything for ROWS rows at a time, which come from memory once, row by row. */
MT_CLONES static void backward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    for (int64_t first = chunk->begin; first < chunk->end; first += ROWS) {
        const int64_t last = mt_min_i64(first + ROWS, chunk->end);
        float factor[ROWS];
        find_factors(b, first, last, factor);
        add_weight_rows(b, first, 0, b->width);
        write_input_rows(b, first, last, factor);
    }
}

/* The sums have one order, whichever way. First d_w: d_x may overwrite d_y. */
void mt_cpu_rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                              int64_t n, int64_t width)
{
    struct backward b = {args, n, width};
    if (device->n_thread == 1) {
        const int64_t chunk = mt_round_up(chunk_rows(width), ROWS);
        mt_cpu_for_chunks(device, n, chunk, backward_rows, &b);
    } else {
        mt_cpu_for_chunks(device, width, COLUMNS, backward_weight, &b);
        mt_cpu_for_chunks(device, n, chunk_rows(width), backward_input, &b);
    }
}
