/* Attention, and the operations that memory bounds. */
#include "kernel/bench_internal.h"

#include <string.h>

struct attention_case {
    struct mt_attention shape;
    struct mt_attention_forward forward;
    struct mt_attention_backward backward;
};

static void run_attention_forward(struct mt_device *device, void *context)
{
    const struct attention_case *c = context;
    mt_attention_forward(device, &c->forward, &c->shape);
}

static void run_attention_backward(struct mt_device *device, void *context)
{
    const struct attention_case *c = context;
    mt_attention_backward(device, &c->backward, &c->shape);
}

static void bench_attention(struct mt_bench *bench, struct mt_attention shape, const char *text)
{
    const int64_t mark = mt_arena_mark(&bench->arena);
    const int64_t n = shape.n_sequence * shape.length;
    const int64_t n_q = n * shape.n_head * shape.head_dim;
    const int64_t n_k = n * shape.n_kv_head * shape.head_dim;
    float *q = mt_bench_floats(bench, n_q);
    float *k = mt_bench_floats(bench, n_k);
    float *v = mt_bench_floats(bench, n_k);
    float *o = mt_bench_floats(bench, n_q);
    float *lse = mt_bench_floats(bench, n * shape.n_head);
    void *scratch = mt_arena_cut(&bench->arena, mt_attention_scratch_bytes(bench->device, &shape));
    struct attention_case c = {
        .shape = shape,
        .forward = {.o = o, .lse = lse, .q = q, .k = k, .v = v, .scratch = scratch},
        .backward = {.d_q = mt_bench_floats(bench, n_q),
                     .d_k = mt_bench_floats(bench, n_k),
                     .d_v = mt_bench_floats(bench, n_k),
                     .d_o = mt_bench_floats(bench, n_q),
                     .o = o,
                     .lse = lse,
                     .q = q,
                     .k = k,
                     .v = v,
                     .scratch = scratch},
    };
    const double pairs = 0.5 * (double)shape.length * (double)(shape.length + 1);
    const double products =
        (double)(shape.n_sequence * shape.n_head) * pairs * (double)shape.head_dim;
    mt_bench_line(bench, "attention_forward", text, MT_BENCH_FLOPS, 4.0 * products,
                  run_attention_forward, &c);
    mt_bench_line(bench, "attention_backward", text, MT_BENCH_FLOPS, 10.0 * products,
                  run_attention_backward, &c);
    mt_arena_release(&bench->arena, mark);
}

void mt_bench_attention(struct mt_bench *bench)
{
    bench_attention(bench, (struct mt_attention){8, 128, 4, 4, 32, 0}, "8 x 128, 4 x 32");
    bench_attention(bench, (struct mt_attention){2, 512, 8, 2, 64, 0}, "2 x 512, 8/2 x 64");
}

/* 8192 rows of 1024: 32 MiB a tensor, as much as the last cache of a Zen 4 core complex. */
enum { N_ROW = 8192, WIDTH = 1024 };

struct rows_case {
    float *a, *b, *c, *d, *e;
    float *per_row, *per_column, *d_per_column;
    int64_t *offset;
    int32_t *target;
};

static void run_rms_norm_forward(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    mt_rms_norm_forward(device, c->a, c->per_row, c->b, c->per_column, N_ROW, WIDTH, 1e-5F);
}

static void run_add_rms_norm(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    const struct mt_add_rms_norm_forward args = {
        .sum = c->b, .y = c->a, .rstd = c->per_row, .x = c->c, .w = c->per_column, .eps = 1e-5F};
    mt_add_rms_norm_forward(device, &args, N_ROW, WIDTH);
}

static void run_rms_norm_backward(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    const struct mt_rms_norm_backward args = {.d_x = c->a,
                                              .d_w = c->d_per_column,
                                              .d_y = c->c,
                                              .x = c->b,
                                              .w = c->per_column,
                                              .rstd = c->per_row};
    mt_rms_norm_backward(device, &args, N_ROW, WIDTH);
}

static void run_rows_copy(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    mt_rows_copy(device, c->a, NULL, c->b, c->offset, N_ROW, WIDTH);
}

static void run_cross_entropy(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    double loss = 0.0;
    mt_cross_entropy(device, &loss, c->d, c->target, N_ROW, WIDTH, 1e-3F);
}

static void run_adamw(struct mt_device *device, void *context)
{
    const struct rows_case *c = context;
    const struct mt_adamw args = {.lr = 1e-6,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .eps = 1e-8,
                                  .weight_decay = 0.1,
                                  .grad_scale = 1.0,
                                  .step = 10};
    struct mt_adamw_item item = {.value = c->a,
                                 .grad = c->b,
                                 .m = c->c,
                                 .v = c->e,
                                 .n = (int64_t)N_ROW * WIDTH,
                                 .decays = true};
    mt_adamw_update(device, &item, 1, &args);
}

void mt_bench_rows(struct mt_bench *bench)
{
    const int64_t n = (int64_t)N_ROW * WIDTH;
    const double items = (double)n;
    const char *shape = "8192 x 1024";
    const int64_t mark = mt_arena_mark(&bench->arena);
    struct rows_case c = {
        .a = mt_bench_floats(bench, n),
        .b = mt_bench_floats(bench, n),
        .c = mt_bench_floats(bench, n),
        .d = mt_bench_floats(bench, n),
        .e = mt_bench_floats(bench, n),
        .per_row = mt_bench_floats(bench, N_ROW),
        .per_column = mt_bench_floats(bench, WIDTH),
        .d_per_column = mt_bench_floats(bench, N_ROW),
        .offset = mt_arena_cut(&bench->arena, N_ROW * (int64_t)sizeof(int64_t)),
        .target = mt_arena_cut(&bench->arena, N_ROW * (int64_t)sizeof(int32_t)),
    };
    for (int64_t row = 0; row < N_ROW; row++) {
        c.offset[row] = row * 5 % N_ROW * WIDTH;
        c.target[row] = (int32_t)(row * 7 % WIDTH);
    }
    mt_bench_line(bench, "rms_norm_forward", shape, MT_BENCH_BYTES, 8.0 * items,
                  run_rms_norm_forward, &c);
    mt_bench_line(bench, "add_rms_norm_forward", shape, MT_BENCH_BYTES, 16.0 * items,
                  run_add_rms_norm, &c);
    mt_bench_line(bench, "rms_norm_backward", shape, MT_BENCH_BYTES, 12.0 * items,
                  run_rms_norm_backward, &c);
    mt_bench_line(bench, "rows_copy", shape, MT_BENCH_BYTES, 8.0 * items, run_rows_copy, &c);
    mt_bench_line(bench, "cross_entropy", shape, MT_BENCH_BYTES, 8.0 * items, run_cross_entropy,
                  &c);
    memset(c.e, 0, (size_t)n * sizeof(float)); /* second moments are not negative */
    mt_bench_line(bench, "adamw_update", shape, MT_BENCH_BYTES, 32.0 * items, run_adamw, &c);
    mt_arena_release(&bench->arena, mark);
}
