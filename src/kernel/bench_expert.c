/* Experts as a layer runs them: one call forward, one backward, for all that have rows. */
#include "kernel/bench_internal.h"

enum { N_EXPERT = 8, INNER = 512, WIDTH = 256, N_MATRIX = 3 };
enum { GATE, UP, DOWN };

struct expert_case {
    int64_t offset[N_EXPERT + 1];
    struct mt_weight weight[N_MATRIX][N_EXPERT];
    const struct mt_weight *weights[N_MATRIX][N_EXPERT];
    float *d_weight[N_MATRIX][N_EXPERT];
    struct mt_expert_forward forward;
    struct mt_expert_backward backward;
};

static struct mt_groups groups_of(const struct expert_case *c)
{
    return (struct mt_groups){N_EXPERT, c->offset};
}

static struct mt_expert_weights weights_of(const struct expert_case *c)
{
    return (struct mt_expert_weights){c->weights[GATE], c->weights[UP], c->weights[DOWN]};
}

static void run_forward(struct mt_device *device, void *context)
{
    const struct expert_case *c = context;
    const struct mt_expert_weights weights = weights_of(c);
    mt_expert_forward(device, &c->forward, &weights, groups_of(c));
}

/* Both: backward alone would begin with its own gradients, which it leaves in gate and up. */
static void run_both(struct mt_device *device, void *context)
{
    const struct expert_case *c = context;
    const struct mt_expert_weights weights = weights_of(c);
    mt_expert_forward(device, &c->forward, &weights, groups_of(c));
    mt_expert_backward(device, &c->backward, &weights, groups_of(c));
}

static void init_matrix(struct mt_bench *bench, struct expert_case *c, int matrix, int expert)
{
    const int64_t n_out = matrix == DOWN ? WIDTH : INNER;
    const int64_t n_in = matrix == DOWN ? INNER : WIDTH;
    const int64_t n_bytes = mt_weight_bytes(bench->device, n_out, n_in, true);
    struct mt_weight *weight = &c->weight[matrix][expert];
    mt_weight_init(bench->device, weight, n_out, n_in, true, mt_arena_cut(&bench->arena, n_bytes));
    /* The gradient's first values are the weight's. */
    c->d_weight[matrix][expert] = mt_bench_floats(bench, n_out * n_in);
    mt_weight_pack(bench->device, weight, c->d_weight[matrix][expert]);
    c->weights[matrix][expert] = weight;
}

static void init_case(struct mt_bench *bench, struct expert_case *c, int64_t rows)
{
    const int64_t n = N_EXPERT * rows;
    for (int expert = 0; expert < N_EXPERT; expert++) {
        c->offset[expert + 1] = (expert + 1) * rows;
        for (int matrix = 0; matrix < N_MATRIX; matrix++) {
            init_matrix(bench, c, matrix, expert);
        }
    }
    c->forward = (struct mt_expert_forward){
        .y = mt_bench_floats(bench, n * WIDTH),
        .gate = mt_bench_floats(bench, n * INNER),
        .up = mt_bench_floats(bench, n * INNER),
        .x = mt_bench_floats(bench, n * WIDTH),
        .row_weight = mt_bench_floats(bench, n),
        .scratch = mt_arena_cut(&bench->arena, mt_expert_scratch_bytes(bench->device, INNER, n)),
    };
    c->backward = (struct mt_expert_backward){
        .d_x = mt_bench_floats(bench, n * WIDTH),
        .d_row_weight = mt_bench_floats(bench, n),
        .gate = c->forward.gate,
        .up = c->forward.up,
        .d_y = mt_bench_floats(bench, n * WIDTH),
        .x = c->forward.x,
        .row_weight = c->forward.row_weight,
        .d_gate_weight = c->d_weight[GATE],
        .d_up_weight = c->d_weight[UP],
        .d_down_weight = c->d_weight[DOWN],
        .scratch = c->forward.scratch,
    };
}

static void bench_rows(struct mt_bench *bench, int64_t rows, const char *shape)
{
    const int64_t mark = mt_arena_mark(&bench->arena);
    struct expert_case c = {.offset = {0}};
    init_case(bench, &c, rows);
    const double products = 2.0 * N_EXPERT * (double)rows * INNER * WIDTH;
    mt_bench_line(bench, "expert_forward", shape, MT_BENCH_FLOPS, 3.0 * products, run_forward, &c);
    mt_bench_line(bench, "expert_forward_backward", shape, MT_BENCH_FLOPS, 9.0 * products, run_both,
                  &c);
    mt_arena_release(&bench->arena, mark);
}

enum mt_status mt_bench_experts(struct mt_bench *bench)
{
    MT_TRY(mt_linear_prepare(bench->device, INNER, WIDTH));
    MT_TRY(mt_linear_prepare(bench->device, WIDTH, INNER));
    bench_rows(bench, 64, "8 x 64 x 512x256");
    bench_rows(bench, 256, "8 x 256 x 512x256");
    return MT_OK;
}
