#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/simd.h"

#include <string.h>

struct embedding {
    float *out;      /* forward: x [n,D]; backward: d_table [V,D] */
    const float *in; /* forward: table [V,D]; backward: d_x [n,D] */
    const int32_t *token;
    int64_t n, width;
};

static void look_up_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct embedding *e = context;
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        memcpy(e->out + i * e->width, e->in + (int64_t)e->token[i] * e->width,
               (size_t)e->width * sizeof(float));
    }
}

void mt_cpu_embedding_forward(struct mt_device *device, float *x, const int32_t *token,
                              const float *table, int64_t n, int64_t width)
{
    struct embedding e = {x, table, token, n, width};
    mt_cpu_for_chunks(device, n, mt_max_i64(1, 16384 / width), look_up_rows, &e);
}

/* Threads take columns, each of them all rows in order: no two meet in an element. */
MT_CLONES static void add_columns(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct embedding *e = context;
    for (int64_t i = 0; i < e->n; i++) {
        float *d_row = e->out + (int64_t)e->token[i] * e->width;
        const float *d_x = e->in + i * e->width;
#pragma omp simd
        for (int64_t j = chunk->begin; j < chunk->end; j++) {
            d_row[j] += d_x[j];
        }
    }
}

void mt_cpu_embedding_backward(struct mt_device *device, float *d_table, const int32_t *token,
                               const float *d_x, int64_t n, int64_t width)
{
    struct embedding e = {d_table, d_x, token, n, width};
    /* An element's sum is the same in any chunking, so this one may follow the threads. */
    const int64_t columns = mt_round_up(mt_ceil_div(width, device->n_thread), MT_LANES);
    mt_cpu_for_chunks(device, width, columns, add_columns, &e);
}
