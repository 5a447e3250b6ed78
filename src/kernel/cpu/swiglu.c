#include "kernel/cpu/swiglu.h"

#include "kernel/cpu/vector.h"

MT_CLONES void mt_cpu_swiglu_forward(float *act, const float *gate, const float *up,
                                     const float *row_weight, int64_t n, int64_t width)
{
    for (int64_t row = 0; row < n; row++) {
        const int64_t start = row * width;
        const float weight = row_weight != NULL ? row_weight[row] : 1.0F;
        /* simd: act may be gate or up, element for element */
#pragma omp simd
        for (int64_t j = start; j < start + width; j++) {
            act[j] = gate[j] * mt_sigmoid(gate[j]) * up[j] * weight;
        }
    }
}

/* One row's arrays. */
struct row {
    float *d_gate, *d_up, *act;
    const float *d_act, *gate, *up;
    float weight;
};

/* Element j of the row; returns its term of d_row_weight. */
MT_INLINE float backward_element(const struct row *row, int64_t j)
{
    const float g = row->gate[j];
    const float u = row->up[j];
    const float d_act = row->d_act[j];
    const float s = mt_sigmoid(g);
    const float silu = g * s;
    const float weighted = d_act * row->weight;
    row->d_up[j] = weighted * silu;
    /* silu'(g) = s (1 + g (1 - s)) */
    row->d_gate[j] = weighted * u * (s * (1.0F + g * (1.0F - s)));
    row->act[j] = silu * u * row->weight;
    return d_act * (silu * u);
}

MT_INLINE float backward_row(const struct row *row, int64_t width)
{
    const struct row r = *row;
    float lane[MT_LANES] = {0};
    int64_t i = 0;
    for (; i + MT_LANES <= width; i += MT_LANES) {
        /* simd: outputs may be inputs, element for element */
#pragma omp simd
        for (int j = 0; j < MT_LANES; j++) {
            lane[j] += backward_element(&r, i + j);
        }
    }
    for (int j = 0; i + j < width; j++) {
        lane[j] += backward_element(&r, i + j);
    }
    return mt_lanes_sum(lane);
}

MT_CLONES void mt_cpu_swiglu_backward(const struct mt_cpu_swiglu_backward *args, int64_t n,
                                      int64_t width)
{
    for (int64_t row = 0; row < n; row++) {
        const int64_t start = row * width;
        const struct row r = {
            .d_gate = args->d_gate + start,
            .d_up = args->d_up + start,
            .act = args->act + start,
            .d_act = args->d_act + start,
            .gate = args->gate + start,
            .up = args->up + start,
            .weight = args->row_weight != NULL ? args->row_weight[row] : 1.0F,
        };
        const float d_weight = backward_row(&r, width);
        if (args->d_row_weight != NULL) {
            args->d_row_weight[row] = d_weight;
        }
    }
}
