#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Rows of more bytes than this have left the caches before somebody reads them, and are written
 * past them, which spares reading what is overwritten: 32768 rows of 1 KiB take 10 ms where they
 * took 17 (four layers; 2 shared Zen 4 cores, processor time, 2026-11). */
static const int64_t STREAM_FROM_BYTES = INT64_C(16) << 20;

static int64_t chunk_rows(int64_t width)
{
    return mt_max_i64(1, 16384 / width);
}

struct copy {
    float *out;
    const int64_t *out_offset;
    const float *in;
    const int64_t *in_offset;
    int64_t width;
    bool streams;
};

static void stream_row(float *out, const float *in, int64_t width)
{
#if defined(__x86_64__)
    if (width % 4 == 0 && (uintptr_t)out % sizeof(__m128) == 0) {
        for (int64_t i = 0; i < width; i += 4) {
            _mm_stream_ps(out + i, _mm_loadu_ps(in + i));
        }
        return;
    }
#endif
    memcpy(out, in, (size_t)width * sizeof(float));
}

static void end_stream(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

static void copy_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct copy *c = context;
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        const int64_t to = c->out_offset != NULL ? c->out_offset[i] : i * c->width;
        const int64_t from = c->in_offset != NULL ? c->in_offset[i] : i * c->width;
        if (to >= 0 && from >= 0 && c->width == 1) {
            c->out[to] = c->in[from]; /* weights of rows: without a call for each */
        } else if (to >= 0 && from >= 0 && c->streams) {
            stream_row(c->out + to, c->in + from, c->width);
        } else if (to >= 0 && from >= 0) {
            memcpy(c->out + to, c->in + from, (size_t)c->width * sizeof(float));
        }
    }
    if (c->streams) {
        end_stream();
    }
}

void mt_cpu_rows_copy(struct mt_device *device, float *out, const int64_t *out_offset,
                      const float *in, const int64_t *in_offset, int64_t n, int64_t width)
{
    const bool streams = n * width * (int64_t)sizeof(float) >= STREAM_FROM_BYTES;
    struct copy c = {out, out_offset, in, in_offset, width, streams};
    mt_cpu_for_chunks(device, n, chunk_rows(width), copy_rows, &c);
}

/* Columns summed at a time: the sum stays in registers over all choices, so that `out` is written
 * once (and not n_choice times). */
enum { COLUMNS = 64 };

/* out [n_column] (=, or +=) sum over the choices of one token, columns from `column` on. (Fetching
 * the next token's rows ahead made 16 choices of 256 columns a third slower.) */
MT_INLINE void combine_columns(const struct mt_rows_combine *args, const int64_t *offset,
                               float *out, int64_t column, int64_t n_column)
{
    float sum[COLUMNS];
    for (int64_t j = 0; j < n_column; j++) {
        sum[j] = args->accumulate ? out[j] : 0.0F;
    }
    for (int64_t k = 0; k < args->n_choice; k++) {
        if (offset[k] < 0) {
            continue;
        }
        const float *in = args->in + offset[k] + column;
#pragma omp simd
        for (int64_t j = 0; j < n_column; j++) {
            sum[j] += in[j];
        }
    }
    for (int64_t j = 0; j < n_column; j++) {
        out[j] = sum[j];
    }
}

MT_CLONES static void combine_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct mt_rows_combine *args = context;
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        const int64_t *offset = args->in_offset + i * args->n_choice;
        float *out = args->out + i * args->width;
        int64_t column = 0;
        for (; column + COLUMNS <= args->width; column += COLUMNS) {
            combine_columns(args, offset, out + column, column, COLUMNS);
        }
        if (column < args->width) {
            combine_columns(args, offset, out + column, column, args->width - column);
        }
    }
}

void mt_cpu_rows_combine(struct mt_device *device, const struct mt_rows_combine *args, int64_t n)
{
    struct mt_rows_combine copy = *args;
    mt_cpu_for_chunks(device, n, chunk_rows(args->width), combine_rows, &copy);
}
