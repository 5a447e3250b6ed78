#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/vector.h"

#include <math.h>

/* Rows of a chunk: about 16 KiB of logits. */
static int64_t chunk_rows(int64_t n_expert)
{
    return mt_max_i64(1, 4096 / n_expert);
}

/* Experts of a chunk of the sums over tokens. */
enum { COLUMNS = 64 };

struct forward {
    const struct mt_gate_forward *args;
    const struct mt_gate *gate;
    int64_t n;
};

/* Index of the first of x [n] that equals `value`, which is there. */
MT_INLINE int64_t first_equal(const float *x, float value, int64_t n)
{
    int64_t i = 0;
    for (; i + MT_LANES <= n; i += MT_LANES) {
        uint32_t equal = 0;
#pragma omp simd reduction(| : equal)
        for (uint32_t j = 0; j < MT_LANES; j++) {
            equal |= x[i + j] == value ? 1U << j : 0U;
        }
        if (equal != 0) {
            return i + __builtin_ctz(equal);
        }
    }
    while (x[i] != value) {
        i++;
    }
    return i;
}

static inline bool is_chosen(const int32_t *chosen, int64_t n_chosen, int64_t e)
{
    for (int64_t k = 0; k < n_chosen; k++) {
        if (chosen[k] == e) {
            return true;
        }
    }
    return false;
}

/* The rest of `chosen` when no number above -infinity is left: -infinities, then NaNs, by id. */
static void choose_odd(int32_t *chosen, int64_t n_chosen, int64_t top_k, const float *logits,
                       int64_t n_expert)
{
    for (int nan = 0; nan <= 1; nan++) {
        for (int64_t e = 0; e < n_expert && n_chosen < top_k; e++) {
            if ((isnan(logits[e]) != 0) == (nan != 0) && !is_chosen(chosen, n_chosen, e)) {
                chosen[n_chosen++] = (int32_t)e;
            }
        }
    }
}

/* chosen [top_k]: the largest logits of [n_expert], the lower id first where they are equal. Judged
 * by logits, whose order the softmax keeps where it does not round differences away. `left`
 * [n_expert] is for what remains to be chosen from. A search of the whole row per choice: 3 to 5
 * times faster than keeping a sorted list, whose branches nobody can predict (E = 64, K = 8). */
MT_INLINE void choose_experts(int32_t *chosen, float *left, const float *logits, int64_t n_expert,
                              int64_t top_k)
{
    for (int64_t e = 0; e < n_expert; e++) {
        left[e] = logits[e];
    }
    for (int64_t k = 0; k < top_k; k++) {
        const float largest = mt_max(left, n_expert);
        if (largest == -INFINITY) {
            choose_odd(chosen, k, top_k, logits, n_expert);
            return;
        }
        const int64_t e = first_equal(left, largest, n_expert);
        chosen[k] = (int32_t)e;
        left[e] = -INFINITY;
    }
}

/* weight [top_k] of one row. Normalised: a softmax over the chosen, so there is no division by a
 * sum of probabilities that may be tiny. Given choices come in any order: the largest logit is
 * sought. */
MT_INLINE void weigh_experts(float *weight, const int32_t *chosen, const float *logits,
                             const float *probability, const struct mt_gate *gate)
{
    if (!gate->normalize) {
        for (int64_t k = 0; k < gate->top_k; k++) {
            weight[k] = gate->scale * probability[chosen[k]];
        }
        return;
    }
    float sum = 0.0F;
    float largest = logits[chosen[0]];
    for (int64_t k = 1; k < gate->top_k; k++) {
        largest = logits[chosen[k]] > largest ? logits[chosen[k]] : largest;
    }
    for (int64_t k = 0; k < gate->top_k; k++) {
        weight[k] = mt_exp_softmax(logits[chosen[k]] - largest);
        sum += weight[k];
    }
    /* A NaN anywhere in the row makes every p a NaN, chosen or not: so it must make the weights. */
    const float factor = isnan(probability[chosen[0]]) ? NAN : gate->scale / sum;
    for (int64_t k = 0; k < gate->top_k; k++) {
        weight[k] *= factor;
    }
}

MT_CLONES static void forward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const int64_t n_expert = f->gate->n_expert;
    const int64_t top_k = f->gate->top_k;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *logits = f->args->logits + row * n_expert;
        float *probability = f->args->probability + row * n_expert;
        int32_t *chosen = f->args->expert + row * top_k;
        if (!f->args->is_given) {
            choose_experts(chosen, probability, logits, n_expert, top_k);
        }
        const float largest = mt_max(logits, n_expert);
        const float sum = mt_exp_sum(probability, logits, largest, n_expert);
        const float inverse = 1.0F / sum;
        for (int64_t e = 0; e < n_expert; e++) {
            probability[e] *= inverse;
        }
        f->args->lse[row] = largest + logf(sum);
        weigh_experts(f->args->weight + row * top_k, chosen, logits, probability, f->gate);
    }
}

/* probability_sum of the chunk's experts over all rows, in order. */
MT_CLONES static void sum_columns(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const int64_t n_column = chunk->end - chunk->begin;
    double sum[COLUMNS] = {0};
    for (int64_t row = 0; row < f->n; row++) {
        const float *probability = f->args->probability + row * f->gate->n_expert + chunk->begin;
#pragma omp simd
        for (int64_t j = 0; j < n_column; j++) {
            sum[j] += (double)probability[j];
        }
    }
    for (int64_t j = 0; j < n_column; j++) {
        f->args->probability_sum[chunk->begin + j] = sum[j];
    }
}

void mt_cpu_gate_forward(struct mt_device *device, const struct mt_gate_forward *args, int64_t n,
                         const struct mt_gate *gate)
{
    struct forward f = {args, gate, n};
    mt_cpu_for_chunks(device, n, chunk_rows(gate->n_expert), forward_rows, &f);
    mt_cpu_for_chunks(device, gate->n_expert, COLUMNS, sum_columns, &f);
    for (int64_t e = 0; e < gate->n_expert; e++) {
        args->count[e] = 0;
    }
    for (int64_t i = 0; i < n * gate->top_k; i++) {
        args->count[args->expert[i]]++;
    }
    double lse_square_sum = 0.0;
    for (int64_t row = 0; row < n; row++) {
        lse_square_sum += (double)args->lse[row] * (double)args->lse[row];
    }
    *args->lse_square_sum = lse_square_sum;
}

struct backward {
    const struct mt_gate_backward *args;
    const struct mt_gate *gate;
};

/* d_logits [n_expert] = p (balance_scale f + constant): every term that is a multiple of p. */
MT_INLINE void full_softmax_gradient(float *d_logits, const float *probability, const float *f,
                                     float balance_scale, float constant, int64_t n_expert)
{
    if (f == NULL) {
        for (int64_t e = 0; e < n_expert; e++) {
            d_logits[e] = probability[e] * constant;
        }
        return;
    }
    for (int64_t e = 0; e < n_expert; e++) {
        d_logits[e] = probability[e] * (balance_scale * f[e] + constant);
    }
}

MT_CLONES static void backward_rows(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct backward *b = context;
    const struct mt_gate_backward *args = b->args;
    const int64_t n_expert = b->gate->n_expert;
    const int64_t top_k = b->gate->top_k;
    const bool normalize = b->gate->normalize;
    for (int64_t row = chunk->begin; row < chunk->end; row++) {
        const float *probability = args->probability + row * n_expert;
        const int32_t *chosen = args->expert + row * top_k;
        const float *weight = args->weight + row * top_k;
        const float *d_weight = args->d_weight + row * top_k;
        float *d_logits = args->d_logits + row * n_expert;
        float through = 0.0F; /* sum_k weight_k d_weight_k */
        for (int64_t k = 0; k < top_k; k++) {
            through += weight[k] * d_weight[k];
        }
        float constant = args->z_scale != 0.0F ? args->z_scale * args->lse[row] : 0.0F;
        if (args->f != NULL) {
            constant -= args->balance_scale * mt_dot(args->f, probability, n_expert);
        }
        if (!normalize) {
            constant -= through;
        }
        full_softmax_gradient(d_logits, probability, args->f, args->balance_scale, constant,
                              n_expert);
        /* The weights are scale times a softmax over the chosen, whose mean the gradient subtracts.
         * Divided term by term, so that one chosen expert gives exactly 0. */
        float mean = 0.0F;
        for (int64_t k = 0; normalize && k < top_k; k++) {
            mean += weight[k] / b->gate->scale * d_weight[k];
        }
        for (int64_t k = 0; k < top_k; k++) {
            d_logits[chosen[k]] += weight[k] * (d_weight[k] - mean);
        }
    }
}

void mt_cpu_gate_backward(struct mt_device *device, const struct mt_gate_backward *args, int64_t n,
                          const struct mt_gate *gate)
{
    struct backward b = {args, gate};
    mt_cpu_for_chunks(device, n, chunk_rows(gate->n_expert), backward_rows, &b);
}
