/* Products of ragged groups of rows, each group with its own weight.
 *
 * Work is cut into tiles of MT_GEMM_TILE rows that never cross a group, and for weight gradients
 * into blocks of outputs; how it is cut follows from the groups alone, so any number of threads
 * gives the same bits. */
#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/cpu/parallel.h"

#include <dnnl.h>

/* A walk over all tiles is handed out in this many runs, so that finding a run's first tile (a scan
 * over the groups) stays rare. */
enum { N_RUN = 64 };

/* A weight gradient is made in blocks of outputs: two per weight up to 256 outputs, so that two
 * threads share a dense one, and 128 at most. At 53 and 64 rows one call per weight reaches 0.87
 * to 0.95 of peak; blocks of 128 lose 0 to 0.05 of that, of 64 0.01 to 0.04, of 32 0.02 to 0.09
 * (Zen 4, oneDNN 2.6.3, four shapes from 128 x 192 to 512 x 256, best of 40 runs, 2026-11; the
 * machine was busy, disturbed values left out). */
enum { OUT_BLOCK_MIN = 64, OUT_BLOCK_MAX = 128, OUT_BLOCK_MULTIPLE = 16 };

static int64_t out_block_of(int64_t n_out)
{
    const int64_t half = mt_round_up(mt_ceil_div(n_out, 2), OUT_BLOCK_MULTIPLE);
    return mt_min_i64(mt_max_i64(half, OUT_BLOCK_MIN), OUT_BLOCK_MAX);
}

struct rows_job {
    const struct mt_gemm *gemm;
    float *y;
    const float *x;
    const struct mt_weight *const *weight;
    struct mt_groups groups;
    bool forward, accumulate;
};

static int64_t n_tile_of(struct mt_groups groups, int group)
{
    return mt_ceil_div(groups.offset[group + 1] - groups.offset[group], MT_GEMM_TILE);
}

static int64_t count_tiles(struct mt_groups groups)
{
    int64_t n_tile = 0;
    for (int group = 0; group < groups.n_group; group++) {
        n_tile += n_tile_of(groups, group);
    }
    return n_tile;
}

static void compute_tiles(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct rows_job *job = context;
    const int64_t n_x = mt_gemm_n_x(job->gemm);
    const int64_t n_y = mt_gemm_n_y(job->gemm);
    int group = 0;
    int64_t first = 0; /* tile number of the group's first */
    for (int64_t tile = chunk->begin; tile < chunk->end; tile++) {
        while (tile >= first + n_tile_of(job->groups, group)) {
            first += n_tile_of(job->groups, group);
            group++;
        }
        const struct mt_weight *weight = job->weight[group];
        const int64_t row = job->groups.offset[group] + (tile - first) * MT_GEMM_TILE;
        const int64_t n = mt_min_i64(job->groups.offset[group + 1] - row, MT_GEMM_TILE);
        mt_gemm_tile(job->gemm, chunk->thread, job->y + row * n_y, job->x + row * n_x,
                     job->forward ? weight->forward_pack : weight->backward_pack, n,
                     job->accumulate);
    }
}

static void compute_rows(struct mt_device *device, struct rows_job *job)
{
    const int64_t n_tile = count_tiles(job->groups);
    mt_cpu_for_chunks(device, n_tile, mt_ceil_div(n_tile, N_RUN), compute_tiles, job);
}

void mt_cpu_grouped_forward(struct mt_device *device, float *y, const float *x,
                            const struct mt_weight *const *weight, struct mt_groups groups)
{
    struct rows_job job = {
        .gemm = mt_gemm_find(MT_GEMM_FORWARD, weight[0]->n_out, weight[0]->n_in),
        .y = y,
        .x = x,
        .weight = weight,
        .groups = groups,
        .forward = true,
    };
    compute_rows(device, &job);
}

void mt_cpu_grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                   const struct mt_weight *const *weight, struct mt_groups groups,
                                   bool accumulate)
{
    struct rows_job job = {
        .gemm = mt_gemm_find(MT_GEMM_BACKWARD_INPUT, weight[0]->n_out, weight[0]->n_in),
        .y = d_x,
        .x = d_y,
        .weight = weight,
        .groups = groups,
        .forward = false,
        .accumulate = accumulate,
    };
    compute_rows(device, &job);
}

struct weight_job {
    float *const *d_w;
    const float *d_y, *x;
    int64_t n_out, n_in;
    int64_t out_block, n_block; /* outputs per block, blocks per group */
    struct mt_groups groups;
};

/* Rows are summed inside one call per block: their order is the library's own for these sizes. */
static void add_weight_block(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct weight_job *job = context;
    const int64_t group = chunk->index / job->n_block;
    const int64_t out = chunk->index % job->n_block * job->out_block;
    const int64_t row = job->groups.offset[group];
    const int64_t n = job->groups.offset[group + 1] - row;
    if (n == 0) {
        return;
    }
    MT_ASSERT(dnnl_sgemm('T', 'N', mt_min_i64(job->n_out - out, job->out_block), job->n_in, n, 1.0F,
                         job->d_y + row * job->n_out + out, job->n_out, job->x + row * job->n_in,
                         job->n_in, 1.0F, job->d_w[group] + out * job->n_in,
                         job->n_in) == dnnl_success);
}

void mt_cpu_grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in,
                                    struct mt_groups groups)
{
    struct weight_job job = {
        .d_w = d_w,
        .d_y = d_y,
        .x = x,
        .n_out = n_out,
        .n_in = n_in,
        .out_block = out_block_of(n_out),
        .n_block = mt_ceil_div(n_out, out_block_of(n_out)),
        .groups = groups,
    };
    mt_cpu_for_chunks(device, groups.n_group * job.n_block, 1, add_weight_block, &job);
}
