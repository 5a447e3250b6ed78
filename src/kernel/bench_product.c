/* Matrix products: dense, and grouped as the experts use them. */
#include "kernel/bench_internal.h"

enum { N_EXPERT = 8, SHAPE_TEXT_BYTES = 64 };
_Static_assert(N_EXPERT == 8, "the printed shape says 8");

/* One weight for the dense lines, N_EXPERT for the grouped ones. */
struct products {
    int64_t n_out, n_in;
    struct mt_groups groups;
    int64_t offset[N_EXPERT + 1];
    float *x, *d_x, *y, *d_y;
    float *d_w[N_EXPERT];
    struct mt_weight weight[N_EXPERT];
    const struct mt_weight *weights[N_EXPERT];
    float *values;
};

static void run_forward(struct mt_device *device, void *context)
{
    const struct products *p = context;
    mt_grouped_forward(device, p->y, p->x, p->weights, p->groups);
}

static void run_backward_input(struct mt_device *device, void *context)
{
    const struct products *p = context;
    mt_grouped_backward_input(device, p->d_x, p->d_y, p->weights, p->groups, false);
}

static void run_backward_weight(struct mt_device *device, void *context)
{
    const struct products *p = context;
    mt_grouped_backward_weight(device, p->d_w, p->d_y, p->x, p->n_out, p->n_in, p->groups);
}

static void run_pack(struct mt_device *device, void *context)
{
    struct products *p = context;
    mt_weight_pack(device, &p->weight[0], p->values);
}

static enum mt_status init_products(struct mt_bench *bench, struct products *p, int n_group,
                                    int64_t rows)
{
    MT_TRY(mt_linear_prepare(bench->device, p->n_out, p->n_in));
    const int64_t n = n_group * rows;
    const int64_t n_weight = p->n_out * p->n_in;
    p->x = mt_bench_floats(bench, n * p->n_in);
    p->d_x = mt_bench_floats(bench, n * p->n_in);
    p->y = mt_bench_floats(bench, n * p->n_out);
    p->d_y = mt_bench_floats(bench, n * p->n_out);
    p->values = mt_bench_floats(bench, n_weight);
    for (int group = 0; group < n_group; group++) {
        p->offset[group + 1] = (group + 1) * rows;
        p->d_w[group] = mt_bench_floats(bench, n_weight);
        void *memory =
            mt_arena_cut(&bench->arena, mt_weight_bytes(bench->device, p->n_out, p->n_in, true));
        mt_weight_init(bench->device, &p->weight[group], p->n_out, p->n_in, true, memory);
        mt_weight_pack(bench->device, &p->weight[group], p->values);
        p->weights[group] = &p->weight[group];
    }
    p->groups.n_group = n_group;
    p->groups.offset = p->offset;
    return MT_OK;
}

static enum mt_status bench_shape(struct mt_bench *bench, int n_group, int64_t rows, int64_t n_out,
                                  int64_t n_in)
{
    const int64_t mark = mt_arena_mark(&bench->arena);
    struct products p = {.n_out = n_out, .n_in = n_in};
    MT_TRY(init_products(bench, &p, n_group, rows));
    char shape[SHAPE_TEXT_BYTES];
    const bool dense = n_group == 1;
    (void)snprintf(shape, sizeof(shape), "%s%lld x %lldx%lld", dense ? "" : "8 x ", (long long)rows,
                   (long long)n_out, (long long)n_in);
    const double flops = 2.0 * (double)n_group * (double)rows * (double)n_out * (double)n_in;
    mt_bench_line(bench, dense ? "linear_forward" : "grouped_forward", shape, MT_BENCH_FLOPS, flops,
                  run_forward, &p);
    mt_bench_line(bench, dense ? "linear_backward_input" : "grouped_backward_input", shape,
                  MT_BENCH_FLOPS, flops, run_backward_input, &p);
    mt_bench_line(bench, dense ? "linear_backward_weight" : "grouped_backward_weight", shape,
                  MT_BENCH_FLOPS, flops, run_backward_weight, &p);
    if (dense) {
        mt_bench_line(bench, "weight_pack", shape, MT_BENCH_BYTES,
                      16.0 * (double)n_out * (double)n_in, run_pack, &p);
    }
    mt_arena_release(&bench->arena, mark);
    return MT_OK;
}

enum mt_status mt_bench_products(struct mt_bench *bench)
{
    static const int64_t dense[][3] = {
        {512, 256, 256}, {512, 128, 128}, {300, 192, 128}, {1024, 1024, 1024}};
    static const int64_t rows_per_expert[] = {1, 4, 16, 53, 64, 256};
    for (size_t i = 0; i < sizeof(dense) / sizeof(dense[0]); i++) {
        MT_TRY(bench_shape(bench, 1, dense[i][0], dense[i][1], dense[i][2]));
    }
    for (size_t i = 0; i < sizeof(rows_per_expert) / sizeof(rows_per_expert[0]); i++) {
        MT_TRY(bench_shape(bench, N_EXPERT, rows_per_expert[i], 512, 256));
        MT_TRY(bench_shape(bench, N_EXPERT, rows_per_expert[i], 256, 512));
    }
    return MT_OK;
}
