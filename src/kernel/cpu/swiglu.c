#include "kernel/cpu/swiglu.h"

#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/vector.h"

/* Rows of a chunk: about 32 KiB an array. */
static int64_t chunk_rows(int64_t width)
{
    return mt_max_i64(1, 8192 / width);
}

/* 1 / (1 + exp(-g)) with the bits of mt_exp, but one power of two: below -88.4 exp is infinite and
 * the result 0, above 87 it is 1. */
MT_INLINE float sigmoid(float g)
{
    /* Both comparisons are false for a NaN. */
    float x = -g > 89.0F ? 89.0F : -g;
    x = x < -87.0F ? -87.0F : x;
    const struct mt_exp_parts parts = mt_exp_split(x);
    return 1.0F / (1.0F + parts.power * mt_float_from_bits((parts.k_bits << 23) + 0x3f800000U));
}

struct forward {
    float *act;
    const float *gate, *up, *row_weight;
    int64_t width;
};

MT_CLONES static void forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *gate = f->gate + row * f->width;
        const float *up = f->up + row * f->width;
        float *act = f->act + row * f->width;
        const float weight = f->row_weight != NULL ? f->row_weight[row] : 1.0F;
        /* simd: act may be gate or up, element for element */
#pragma omp simd
        for (int64_t j = 0; j < f->width; j++) {
            act[j] = gate[j] * sigmoid(gate[j]) * up[j] * weight;
        }
    }
}

void mt_cpu_swiglu_forward_rows(float *act, const float *gate, const float *up,
                                const float *row_weight, int64_t n, int64_t width)
{
    struct forward f = {act, gate, up, row_weight, width};
    forward_rows(&f, &(struct mt_cpu_chunk){.begin = 0, .end = n});
}

void mt_cpu_swiglu_forward(struct mt_device *device, float *act, const float *gate, const float *up,
                           const float *row_weight, int64_t n, int64_t width)
{
    struct forward f = {act, gate, up, row_weight, width};
    mt_cpu_for_chunks(device, n, chunk_rows(width), forward_rows, &f);
}

struct backward {
    const struct mt_swiglu_backward *args;
    int64_t width;
};

/* One row's arrays; act NULL when it is not wanted. */
struct row {
    float *d_gate, *d_up, *act;
    const float *d_act, *gate, *up;
    float weight;
};

/* Element j of the row; returns its term of d_row_weight. */
MT_INLINE float backward_element(const struct row *row, int64_t j, bool with_act)
{
    const float g = row->gate[j];
    const float u = row->up[j];
    const float d_act = row->d_act[j];
    const float s = sigmoid(g);
    const float silu = g * s;
    const float weighted = d_act * row->weight;
    row->d_up[j] = weighted * silu;
    /* silu'(g) = s (1 + g (1 - s)) */
    row->d_gate[j] = weighted * u * (s * (1.0F + g * (1.0F - s)));
    if (with_act) {
        row->act[j] = silu * u * row->weight;
    }
    return d_act * (silu * u);
}

MT_INLINE float backward_row(const struct row *row, int64_t width, bool with_act)
{
    const struct row r = *row;
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= width; i += MT_LANES) {
        /* simd: outputs may be inputs, element for element */
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] += backward_element(&r, i + j, with_act);
        }
    }
    for (int j = 0; i + j < width; j++) {
        lane[j] += backward_element(&r, i + j, with_act);
    }
    return mt_lanes_sum(lane);
}

MT_CLONES static void backward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    const struct mt_swiglu_backward *args = b->args;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const int64_t start = row * b->width;
        const bool with_act = args->act != NULL;
        const struct row r = {
            .d_gate = args->d_gate + start,
            .d_up = args->d_up + start,
            .act = with_act ? args->act + start : NULL,
            .d_act = args->d_act + start,
            .gate = args->gate + start,
            .up = args->up + start,
            .weight = args->row_weight != NULL ? args->row_weight[row] : 1.0F,
        };
        const float d_weight =
            with_act ? backward_row(&r, b->width, true) : backward_row(&r, b->width, false);
        if (args->d_row_weight != NULL) {
            args->d_row_weight[row] = d_weight;
        }
    }
}

void mt_cpu_swiglu_backward_rows(const struct mt_swiglu_backward *args, int64_t n, int64_t width)
{
    struct backward b = {args, width};
    backward_rows(&b, &(struct mt_cpu_chunk){.begin = 0, .end = n});
}

void mt_cpu_swiglu_backward(struct mt_device *device, const struct mt_swiglu_backward *args,
                            int64_t n, int64_t width)
{
    struct backward b = {args, width};
    mt_cpu_for_chunks(device, n, chunk_rows(width), backward_rows, &b);
}
