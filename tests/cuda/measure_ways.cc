/* Products of experts by both of their ways, side by side over rows, and what the rule takes: the
 * figures of mt_cuda_planned_ways are a model's until this has run on a GPU. */
#include "cuda/measure.h"

#include "kernel/cuda/product_ways.h"

#include <cstdio>

namespace
{
/* W_gate of all experts of a layer, and rows for them. */
struct problem {
    std::vector<struct mt_weight> weight;
    std::vector<const struct mt_weight *> weights;
    std::vector<float *> d_w;
    std::vector<int64_t> offset;
    struct mt_groups groups;
    float *x, *y;
    int64_t n_out, n_in;
};

void make_problem(bench *b, struct problem *p, enum mt_dtype dtype,
                  const std::vector<int64_t> &rows)
{
    p->n_out = b->s.inner;
    p->n_in = b->s.width;
    p->offset.push_back(0);
    for (const int64_t n : rows) {
        p->weight.push_back(b->weight(dtype, p->n_out, p->n_in));
        p->d_w.push_back(b->values(p->n_out * p->n_in));
        p->offset.push_back(p->offset.back() + n);
    }
    for (const struct mt_weight &weight : p->weight) {
        p->weights.push_back(&weight);
    }
    p->groups = {(int)rows.size(), p->offset.data()};
    p->x = b->values(p->offset.back() * p->n_in);
    p->y = b->values(p->offset.back() * p->n_out);
}

enum direction { FORWARD, INPUT, WEIGHT, N_DIRECTION };
const char *const names[N_DIRECTION] = {"forward", "backward, input", "backward, weight"};

void run(struct mt_cuda *cuda, const struct problem &p, enum direction direction)
{
    if (direction == FORWARD) {
        mt_cuda_grouped_forward(cuda, p.y, p.x, p.weights.data(), p.groups);
    } else if (direction == INPUT) {
        mt_cuda_grouped_backward_input(cuda, p.x, p.y, p.weights.data(), p.groups, false);
    } else {
        mt_cuda_grouped_backward_weight(cuda, p.d_w.data(), p.y, p.x, p.n_out, p.n_in, p.groups);
    }
}

struct mt_cuda_ways all_apart()
{
    struct mt_cuda_ways ways = {};
    return ways;
}

struct mt_cuda_ways all_grouped()
{
    struct mt_cuda_ways ways = {};
    ways.apart_flops = INT64_MAX;
    return ways;
}

struct mt_cuda_ways own_kernel()
{
    struct mt_cuda_ways ways = {};
    ways.few_rows = MT_CUDA_FEW_ROWS;
    return ways;
}

double time_as(bench *b, enum mt_dtype dtype, const struct mt_cuda_ways &ways,
               const struct problem &p, enum direction direction)
{
    struct mt_cuda *cuda = b->cuda(dtype);
    cuda->ways = ways;
    const double seconds = b->time(dtype, [&] { run(cuda, p, direction); });
    cuda->ways = mt_cuda_planned_ways();
    return seconds;
}

/* All three products of these rows: shares of the rate of one large product. */
void compare(bench *b, const char *rows_text, const std::vector<int64_t> &rows)
{
    struct problem p = {};
    make_problem(b, &p, MT_FLOAT32, rows);
    const double flops = 2.0 * (double)(p.offset.back() * p.n_out * p.n_in);
    const double bound = b->bound(MT_FLOAT32, 0.0, flops);
    for (const enum direction direction : {FORWARD, INPUT, WEIGHT}) {
        const double grouped = time_as(b, MT_FLOAT32, all_grouped(), p, direction);
        const double apart = time_as(b, MT_FLOAT32, all_apart(), p, direction);
        const double planned = time_as(b, MT_FLOAT32, mt_cuda_planned_ways(), p, direction);
        std::printf("| %s | float32 | %s | %.2f | %.2f | %.2f | %.2f |\n", names[direction],
                    rows_text, bound / grouped, bound / apart, bound / planned,
                    planned / (grouped < apart ? grouped : apart));
    }
    b->clear();
}

/* Forward in bfloat16: our own kernel in place of the grouped launch, which it has not. */
void compare_few(bench *b, const char *rows_text, const std::vector<int64_t> &rows)
{
    struct problem p = {};
    make_problem(b, &p, MT_BFLOAT16, rows);
    const double flops = 2.0 * (double)(p.offset.back() * p.n_out * p.n_in);
    const double bytes = 2.0 * (double)(b->s.n_expert * p.n_out * p.n_in);
    const double bound = b->bound(MT_BFLOAT16, bytes, flops);
    const double own = time_as(b, MT_BFLOAT16, own_kernel(), p, FORWARD);
    const double apart = time_as(b, MT_BFLOAT16, all_apart(), p, FORWARD);
    const double planned = time_as(b, MT_BFLOAT16, mt_cuda_planned_ways(), p, FORWARD);
    std::printf("| %s | bfloat16 | %s | %.2f | %.2f | %.2f | %.2f |\n", names[FORWARD], rows_text,
                bound / own, bound / apart, bound / planned, planned / (own < apart ? own : apart));
    b->clear();
}
}  // namespace

void measure_ways(bench *b)
{
    const std::vector<int64_t> all_rows =
        b->s.is_small ? std::vector<int64_t>{3}
                      : std::vector<int64_t>{16, 64, 128, 256, 384, 512, 1024};
    const size_t n_expert = (size_t)b->s.n_expert;
    std::printf("\nProducts of all experts of a layer by each of their ways, as shares of their "
                "bound: one launch for all of them (in bfloat16 our own kernel), one after another "
                "on side streams, and what the rule takes; then the rule's time over the faster "
                "one's, which is to be 1. Beyond 1.1 its figures are to be changed "
                "(mt_cuda_planned_ways).\n\n"
                "| product | operands | rows each | together | apart | by the rule | over the "
                "faster |\n|---|---|---|---|---|---|---|\n");
    char text[64];
    for (const int64_t rows : all_rows) {
        std::snprintf(text, sizeof(text), "%lld", (long long)rows);
        compare(b, text, std::vector<int64_t>(n_expert, rows));
    }
    /* One popular expert. */
    std::vector<int64_t> skewed(n_expert, b->s.is_small ? 2 : 32);
    skewed[1] = b->s.is_small ? 9 : 4096;
    std::snprintf(text, sizeof(text), "%lld, one %lld", (long long)skewed[0], (long long)skewed[1]);
    compare(b, text, skewed);
    for (const int64_t rows : {4, 16}) {
        std::snprintf(text, sizeof(text), "%lld", (long long)rows);
        compare_few(b, text, std::vector<int64_t>(n_expert, rows));
    }
}
