/* What runs once a token beside the large products: router, gate, embedding,
 * combining; and the sums over all parameters. */
#include "kernel/bench_internal.h"

#include <string.h>

/* configs/bench-cpu.toml: 8 sequences of 256 tokens, width 256, 4 heads, 8 experts, top-2. */
enum { N_TOKEN = 2048, WIDTH = 256, N_EXPERT = 8, TOP_K = 2 };
enum { N_SUM = 8 << 20 }; /* 32 MiB, beyond the caches */

struct token_case {
    float *x, *d_x, *rows, *w, *d_w, *logits, *d_logits, *weight, *d_weight, *probability, *lse;
    float *large, *other;
    int32_t *expert, *token;
    int64_t *count, *offset;
    double *sum;
};

static const struct mt_gate gate = {
    .n_expert = N_EXPERT, .top_k = TOP_K, .normalize = true, .scale = 1.0F};

static void run_router_forward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    mt_router_forward(device, c->logits, c->x, c->w, N_TOKEN, N_EXPERT, WIDTH);
}

static void run_router_backward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    const struct mt_router_backward args = {
        .d_x = c->d_x, .d_w = c->d_w, .d_logits = c->d_logits, .x = c->x, .w = c->w};
    mt_router_backward(device, &args, N_TOKEN, N_EXPERT, WIDTH);
}

static void run_gate_forward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    const struct mt_gate_forward args = {.expert = c->expert,
                                         .weight = c->weight,
                                         .probability = c->probability,
                                         .lse = c->lse,
                                         .count = c->count,
                                         .probability_sum = c->sum,
                                         .lse_square_sum = c->sum + N_EXPERT,
                                         .logits = c->logits};
    mt_gate_forward(device, &args, N_TOKEN, &gate);
}

static void run_gate_backward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    const struct mt_gate_backward args = {.d_logits = c->d_logits,
                                          .d_weight = c->d_weight,
                                          .expert = c->expert,
                                          .weight = c->weight,
                                          .probability = c->probability,
                                          .lse = c->lse,
                                          .z_scale = 1e-6F};
    mt_gate_backward(device, &args, N_TOKEN, &gate);
}

static void run_rows_combine(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    const struct mt_rows_combine args = {
        .out = c->d_x, .in = c->rows, .in_offset = c->offset, .n_choice = TOP_K, .width = WIDTH};
    mt_rows_combine(device, &args, N_TOKEN);
}

static void run_embedding_forward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    mt_embedding_forward(device, c->d_x, c->token, c->rows, N_TOKEN, WIDTH);
}

static void run_embedding_backward(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    mt_embedding_backward(device, c->rows, c->token, c->x, N_TOKEN, WIDTH);
}

static void run_sum_squares(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    mt_sum_squares(device, c->sum, c->large, N_SUM);
}

static void run_fill_zero(struct mt_device *device, void *context)
{
    const struct token_case *c = context;
    mt_fill_zero(device, c->other, N_SUM);
}

static void *cut(struct mt_bench *bench, int64_t n_bytes)
{
    void *memory = mt_arena_cut(&bench->arena, n_bytes);
    memset(memory, 0, (size_t)n_bytes);
    return memory;
}

static void init_case(struct mt_bench *bench, struct token_case *c)
{
    const int64_t n_value = (int64_t)N_TOKEN * WIDTH;
    const int64_t n_choice = (int64_t)N_TOKEN * TOP_K;
    *c = (struct token_case){
        .x = mt_bench_floats(bench, n_value),
        .d_x = mt_bench_floats(bench, n_value),
        .rows = mt_bench_floats(bench, n_value * TOP_K),
        .w = mt_bench_floats(bench, (int64_t)N_EXPERT * WIDTH),
        .d_w = mt_bench_floats(bench, (int64_t)N_EXPERT * WIDTH),
        .logits = mt_bench_floats(bench, (int64_t)N_TOKEN * N_EXPERT),
        .d_logits = mt_bench_floats(bench, (int64_t)N_TOKEN * N_EXPERT),
        .weight = mt_bench_floats(bench, n_choice),
        .d_weight = mt_bench_floats(bench, n_choice),
        .probability = mt_bench_floats(bench, (int64_t)N_TOKEN * N_EXPERT),
        .lse = mt_bench_floats(bench, N_TOKEN),
        .large = mt_bench_floats(bench, N_SUM),
        .other = mt_bench_floats(bench, N_SUM),
        .expert = cut(bench, n_choice * (int64_t)sizeof(int32_t)),
        .token = cut(bench, N_TOKEN * (int64_t)sizeof(int32_t)),
        .count = cut(bench, N_EXPERT * (int64_t)sizeof(int64_t)),
        .offset = cut(bench, n_choice * (int64_t)sizeof(int64_t)),
        .sum = cut(bench, (N_EXPERT + 1) * (int64_t)sizeof(double)),
    };
    for (int64_t i = 0; i < n_choice; i++) {
        c->offset[i] = i * 5 % n_choice * WIDTH;
    }
    for (int64_t i = 0; i < N_TOKEN; i++) {
        c->token[i] = (int32_t)(i * 7 % WIDTH);
    }
}

void mt_bench_tokens(struct mt_bench *bench)
{
    const double values = (double)N_TOKEN * WIDTH;
    const double products = 2.0 * values * N_EXPERT;
    const double logits = (double)N_TOKEN * N_EXPERT;
    const int64_t mark = mt_arena_mark(&bench->arena);
    struct token_case c;
    init_case(bench, &c);
    mt_bench_line(bench, "router_forward", "2048 x 8x256", MT_BENCH_FLOPS, products,
                  run_router_forward, &c);
    mt_bench_line(bench, "router_backward", "2048 x 8x256", MT_BENCH_FLOPS, 2.0 * products,
                  run_router_backward, &c);
    mt_bench_line(bench, "gate_forward", "2048 x 8, top-2", MT_BENCH_BYTES,
                  8.0 * logits + 8.0 * N_TOKEN * TOP_K, run_gate_forward, &c);
    mt_bench_line(bench, "gate_backward", "2048 x 8, top-2", MT_BENCH_BYTES,
                  8.0 * logits + 12.0 * N_TOKEN * TOP_K, run_gate_backward, &c);
    mt_bench_line(bench, "rows_combine", "2048 x 2 of 256", MT_BENCH_BYTES,
                  4.0 * (TOP_K + 1) * values, run_rows_combine, &c);
    mt_bench_line(bench, "embedding_forward", "2048 x 256", MT_BENCH_BYTES, 8.0 * values,
                  run_embedding_forward, &c);
    mt_bench_line(bench, "embedding_backward", "2048 x 256", MT_BENCH_BYTES, 12.0 * values,
                  run_embedding_backward, &c);
    mt_bench_line(bench, "sum_squares", "8 Mi", MT_BENCH_BYTES, 4.0 * N_SUM, run_sum_squares, &c);
    mt_bench_line(bench, "fill_zero", "8 Mi", MT_BENCH_BYTES, 4.0 * N_SUM, run_fill_zero, &c);
    mt_arena_release(&bench->arena, mark);
}
