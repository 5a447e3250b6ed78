/* Products of ragged groups of rows, each group with its own weight.
 *
 * Work is cut into tiles of MT_GEMM_TILE rows that never cross a group, and for weight gradients
 * into blocks of outputs; how it is cut follows from the groups alone, so any number of threads
 * gives the same bits. */
#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/gradient.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/tile.h"

/* A weight gradient is made in blocks of outputs: as large as scratch allows, since every block
 * brings all of x into panels anew, but two for each thread at least, and not below 64. The bits do
 * not depend on it (gradient.h), so it may follow the threads. */
enum { OUT_BLOCK_MIN = 64, OUT_BLOCK_MULTIPLE = 16, BLOCKS_A_THREAD = 2 };

/* Rows between two breaths: 512 x 256 outputs take 280 us. Whole blocks of gradient.c, so that
 * sums are those of one call. */
static int64_t breath_rows(enum mt_dtype dtype)
{
    return dtype == MT_BFLOAT16 ? 256 : 128;
}

static int64_t out_block_of(const struct mt_device *device, int64_t n_out, int n_group)
{
    const int64_t wanted = device->n_thread > 1
                               ? mt_ceil_div((int64_t)BLOCKS_A_THREAD * device->n_thread, n_group)
                               : 1;
    const int64_t block = mt_round_up(mt_ceil_div(n_out, wanted), OUT_BLOCK_MULTIPLE);
    return mt_min_i64(mt_max_i64(block, OUT_BLOCK_MIN), MT_GRADIENT_MAX_M);
}

struct rows_job {
    const struct mt_gemm *gemm;
    float *y;
    const float *x;
    const struct mt_weight *const *weight;
    struct mt_groups groups;
    bool forward, accumulate;
};

static void compute_tile(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct rows_job *job = context;
    const struct mt_cpu_tile tile = mt_cpu_tile_at(job->groups, chunk->index);
    const struct mt_weight *weight = job->weight[tile.group];
    mt_gemm_tile(job->gemm, chunk->thread, job->y + tile.row * mt_gemm_n_y(job->gemm),
                 job->x + tile.row * mt_gemm_n_x(job->gemm),
                 job->forward ? weight->forward_pack : weight->backward_pack, tile.n,
                 job->accumulate);
}

void mt_cpu_grouped_forward(struct mt_device *device, float *y, const float *x,
                            const struct mt_weight *const *weight, struct mt_groups groups)
{
    struct rows_job job = {
        .gemm = mt_gemm_find(device->dtype, MT_GEMM_FORWARD, weight[0]->n_out, weight[0]->n_in),
        .y = y,
        .x = x,
        .weight = weight,
        .groups = groups,
        .forward = true,
    };
    mt_cpu_for_chunks(device, mt_cpu_n_tile(groups), 1, compute_tile, &job);
}

void mt_cpu_grouped_backward_input(struct mt_device *device, float *d_x, const float *d_y,
                                   const struct mt_weight *const *weight, struct mt_groups groups,
                                   bool accumulate)
{
    struct rows_job job = {
        .gemm =
            mt_gemm_find(device->dtype, MT_GEMM_BACKWARD_INPUT, weight[0]->n_out, weight[0]->n_in),
        .y = d_x,
        .x = d_y,
        .weight = weight,
        .groups = groups,
        .forward = false,
        .accumulate = accumulate,
    };
    mt_cpu_for_chunks(device, mt_cpu_n_tile(groups), 1, compute_tile, &job);
}

struct weight_job {
    struct mt_device *device;
    float *const *d_w;
    const float *d_y, *x;
    int64_t n_out, n_in;
    int64_t out_block, n_block; /* outputs per block, blocks per group */
    struct mt_groups groups;
};

static void add_weight_block(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct weight_job *job = context;
    const int64_t group = chunk->index / job->n_block;
    const int64_t out = chunk->index % job->n_block * job->out_block;
    const int64_t end = job->groups.offset[group + 1];
    const int64_t step = breath_rows(job->device->dtype);
    /* The next group's rows follow, and are this thread's if it is alone. */
    const bool goes_on = job->device->n_thread == 1 && job->n_block == 1;
    const int64_t last = goes_on ? job->groups.offset[job->groups.n_group] : end;
    for (int64_t row = job->groups.offset[group]; row < end; row += step) {
        const int64_t k = mt_min_i64(end - row, step);
        const struct mt_cpu_gradient gradient = {
            .c = job->d_w[group] + out * job->n_in,
            .c_stride = job->n_in,
            .a = job->d_y + row * job->n_out + out,
            .a_stride = job->n_out,
            .b = job->x + row * job->n_in,
            .b_stride = job->n_in,
            .m = mt_min_i64(job->n_out - out, job->out_block),
            .n = job->n_in,
            .k = k,
            .k_next = mt_min_i64(last - row - k, step),
            .dtype = job->device->dtype,
        };
        mt_cpu_add_gradient(&gradient);
        mt_cpu_breathe(job->device, chunk);
    }
}

void mt_cpu_grouped_backward_weight(struct mt_device *device, float *const *d_w, const float *d_y,
                                    const float *x, int64_t n_out, int64_t n_in,
                                    struct mt_groups groups)
{
    const int64_t out_block = out_block_of(device, n_out, groups.n_group);
    struct weight_job job = {
        .device = device,
        .d_w = d_w,
        .d_y = d_y,
        .x = x,
        .n_out = n_out,
        .n_in = n_in,
        .out_block = out_block,
        .n_block = mt_ceil_div(n_out, out_block),
        .groups = groups,
    };
    mt_cpu_for_chunks(device, groups.n_group * job.n_block, 1, add_weight_block, &job);
}
