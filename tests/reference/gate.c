#include "reference/gate.h"

#include <math.h>
#include <stddef.h>

/* Whether expert a stands before expert b. */
static bool is_before(const double *z, int64_t a, int64_t b)
{
    if (isnan(z[a]) || isnan(z[b])) {
        return isnan(z[a]) == isnan(z[b]) ? a < b : isnan(z[b]);
    }
    return z[a] != z[b] ? z[a] > z[b] : a < b;
}

/* An expert's place is the number of experts before it. */
static void choose(int32_t *chosen, const double *z, const struct mt_ref_gate *gate)
{
    for (int64_t e = 0; e < gate->n_expert; e++) {
        int64_t place = 0;
        for (int64_t other = 0; other < gate->n_expert; other++) {
            place += is_before(z, other, e) ? 1 : 0;
        }
        if (place < gate->top_k) {
            chosen[place] = (int32_t)e;
        }
    }
}

void mt_ref_gate_forward(const struct mt_ref_gate_forward *args, int64_t n,
                         const struct mt_ref_gate *gate)
{
    for (int64_t t = 0; t < n; t++) {
        const double *z = args->logits + t * gate->n_expert;
        double *p = args->probability + t * gate->n_expert;
        int32_t *chosen = args->expert + t * gate->top_k;
        double *weight = args->weight + t * gate->top_k;
        double largest = -INFINITY;
        for (int64_t e = 0; e < gate->n_expert; e++) {
            largest = fmax(largest, z[e]);
        }
        double sum = 0.0;
        for (int64_t e = 0; e < gate->n_expert; e++) {
            p[e] = exp(z[e] - largest);
            sum += p[e];
        }
        for (int64_t e = 0; e < gate->n_expert; e++) {
            p[e] /= sum;
        }
        args->lse[t] = largest + log(sum);
        if (!args->is_given) {
            choose(chosen, z, gate);
        }
        double chosen_sum = 0.0;
        for (int64_t k = 0; k < gate->top_k; k++) {
            chosen_sum += p[chosen[k]];
        }
        for (int64_t k = 0; k < gate->top_k; k++) {
            weight[k] = gate->scale * p[chosen[k]] / (gate->normalize ? chosen_sum : 1.0);
        }
    }
}

/* Through p everything goes as dL/dz_j = p_j (dL/dp_j - sum_i p_i dL/dp_i); dlse/dz_j = p_j. */
void mt_ref_gate_backward(const struct mt_ref_gate_backward *args, int64_t n,
                          const struct mt_ref_gate *gate)
{
    for (int64_t t = 0; t < n; t++) {
        const double *p = args->probability + t * gate->n_expert;
        const int32_t *chosen = args->expert + t * gate->top_k;
        const double *d_weight = args->d_weight + t * gate->top_k;
        double *d_z = args->d_logits + t * gate->n_expert;
        double chosen_sum = 0.0;
        double through = 0.0; /* sum over the chosen of d_weight p */
        for (int64_t k = 0; k < gate->top_k; k++) {
            chosen_sum += p[chosen[k]];
            through += d_weight[k] * p[chosen[k]];
        }
        for (int64_t e = 0; e < gate->n_expert; e++) {
            d_z[e] = args->f != NULL ? args->balance_scale * args->f[e] : 0.0; /* dL/dp_e */
        }
        for (int64_t k = 0; k < gate->top_k; k++) {
            d_z[chosen[k]] += gate->normalize ? gate->scale * (d_weight[k] * chosen_sum - through) /
                                                    (chosen_sum * chosen_sum)
                                              : gate->scale * d_weight[k];
        }
        double mean = 0.0;
        for (int64_t e = 0; e < gate->n_expert; e++) {
            mean += p[e] * d_z[e];
        }
        for (int64_t e = 0; e < gate->n_expert; e++) {
            d_z[e] = p[e] * (d_z[e] - mean + args->z_scale * args->lse[t]);
        }
    }
}
