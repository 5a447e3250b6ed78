#include "reference/moe_layer.h"

#include "reference/linear.h"
#include "reference/router.h"
#include "reference/swiglu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One token's gate. */
struct token_gate {
    double *logits, *probability; /* [E] */
    double *weight;               /* [K] */
    int32_t *expert;              /* [K] */
    double lse;
};

/* One network x -> down (silu(gate x) * (up x) * weight) of width `inner`, or its gradients. */
struct network {
    double *gate, *up, *down;
    int64_t width, inner;
};

static struct network expert_of(const struct mt_ref_moe_weights *weights,
                                const struct mt_ref_moe *moe, int64_t expert)
{
    const int64_t matrix = expert * moe->inner * moe->width;
    return (struct network){.gate = weights->gate + matrix,
                            .up = weights->up + matrix,
                            .down = weights->down + matrix,
                            .width = moe->width,
                            .inner = moe->inner};
}

static struct network shared_of(const struct mt_ref_moe_weights *weights,
                                const struct mt_ref_moe *moe)
{
    return (struct network){.gate = weights->shared_gate,
                            .up = weights->shared_up,
                            .down = weights->shared_down,
                            .width = moe->width,
                            .inner = moe->shared_inner};
}

/* n zeros. */
static double *zeros(int64_t n)
{
    double *values = calloc((size_t)(n > 0 ? n : 1), sizeof(*values));
    if (values == NULL) {
        abort();
    }
    return values;
}

static struct token_gate gate_token(const double *x, const struct mt_ref_moe_weights *weights,
                                    const struct mt_ref_moe *moe)
{
    struct token_gate token = {.logits = zeros(moe->gate.n_expert),
                               .probability = zeros(moe->gate.n_expert),
                               .weight = zeros(moe->gate.top_k),
                               .expert = calloc((size_t)moe->gate.top_k, sizeof(int32_t))};
    const struct mt_ref_gate_forward args = {.expert = token.expert,
                                             .weight = token.weight,
                                             .probability = token.probability,
                                             .lse = &token.lse,
                                             .logits = token.logits};
    mt_ref_router_forward(token.logits, x, weights->router, 1, moe->gate.n_expert, moe->width);
    mt_ref_gate_forward(&args, 1, &moe->gate);
    return token;
}

static void free_token(struct token_gate *token)
{
    free(token->logits);
    free(token->probability);
    free(token->weight);
    free(token->expert);
}

/* out [D] += the network's answer to x [D] */
static void network_forward(double *out, const double *x, double weight, struct network network)
{
    const int64_t inner = network.inner;
    double *gate = zeros(3 * inner);
    double *up = gate + inner;
    double *act = up + inner;
    double *y = zeros(network.width);
    mt_ref_linear_forward(gate, x, network.gate, 1, inner, network.width);
    mt_ref_linear_forward(up, x, network.up, 1, inner, network.width);
    mt_ref_swiglu_forward(act, gate, up, &weight, 1, inner);
    mt_ref_linear_forward(y, act, network.down, 1, network.width, inner);
    for (int64_t d = 0; d < network.width; d++) {
        out[d] += y[d];
    }
    free(gate);
    free(y);
}

/* d_x [D] +=, gradients +=; returns the gradient of weight. */
static double network_backward(double *d_x, struct network d, const double *d_out, const double *x,
                               double weight, struct network network)
{
    const int64_t inner = network.inner;
    const int64_t width = network.width;
    double *gate = zeros(6 * inner);
    double *up = gate + inner;
    double *act = up + inner;
    double *d_act = act + inner;
    double *d_gate = d_act + inner;
    double *d_up = d_gate + inner;
    double d_weight = 0.0;
    mt_ref_linear_forward(gate, x, network.gate, 1, inner, width);
    mt_ref_linear_forward(up, x, network.up, 1, inner, width);
    mt_ref_swiglu_forward(act, gate, up, &weight, 1, inner);
    mt_ref_linear_backward_input(d_act, d_out, network.down, 1, width, inner);
    mt_ref_linear_backward_weight(d.down, d_out, act, 1, width, inner);
    const struct mt_ref_swiglu_backward args = {.d_gate = d_gate,
                                                .d_up = d_up,
                                                .d_row_weight = &d_weight,
                                                .d_act = d_act,
                                                .gate = gate,
                                                .up = up,
                                                .row_weight = &weight};
    mt_ref_swiglu_backward(&args, 1, inner);
    mt_ref_linear_backward_weight(d.gate, d_gate, x, 1, inner, width);
    mt_ref_linear_backward_weight(d.up, d_up, x, 1, inner, width);
    mt_ref_linear_backward_input(d_x, d_gate, network.gate, 1, inner, width);
    mt_ref_linear_backward_input(d_x, d_up, network.up, 1, inner, width);
    free(gate);
    return d_weight;
}

/* What weighs the shared experts for one token. */
static double shared_weight(const double *x, const struct mt_ref_moe_weights *weights,
                            const struct mt_ref_moe *moe)
{
    double logit = 0.0;
    if (weights->shared_scale == NULL) {
        return 1.0;
    }
    mt_ref_linear_forward(&logit, x, weights->shared_scale, 1, 1, moe->width);
    return 1.0 / (1.0 + exp(-logit));
}

static void shared_backward(double *d_x, const struct mt_ref_moe_backward *args,
                            const double *d_out, const double *x, const struct mt_ref_moe *moe)
{
    const double weight = shared_weight(x, args->weights, moe);
    const double d_weight = network_backward(d_x, shared_of(args->d_weights, moe), d_out, x, weight,
                                             shared_of(args->weights, moe));
    if (args->weights->shared_scale != NULL) {
        const double d_logit = d_weight * weight * (1.0 - weight);
        mt_ref_linear_backward_weight(args->d_weights->shared_scale, &d_logit, x, 1, 1, moe->width);
        mt_ref_linear_backward_input(d_x, &d_logit, args->weights->shared_scale, 1, 1, moe->width);
    }
}

/* Adds one token to the sums and returns its balance and z terms. */
static double count_token(const struct mt_ref_moe_forward *args, const struct token_gate *token,
                          const struct mt_ref_moe *moe)
{
    double balance = 0.0;
    for (int64_t e = 0; e < moe->gate.n_expert; e++) {
        balance += moe->f != NULL ? moe->f[e] * token->probability[e] : 0.0;
        if (args->probability_sum != NULL) {
            args->probability_sum[e] += token->probability[e];
        }
    }
    for (int64_t k = 0; args->count != NULL && k < moe->gate.top_k; k++) {
        args->count[token->expert[k]]++;
    }
    if (args->lse_square_sum != NULL) {
        *args->lse_square_sum += token->lse * token->lse;
    }
    return moe->balance_scale * balance + moe->z_scale / 2.0 * token->lse * token->lse;
}

double mt_ref_moe_forward(const struct mt_ref_moe_forward *args, int64_t n,
                          const struct mt_ref_moe *moe)
{
    double terms = 0.0;
    for (int64_t t = 0; t < n; t++) {
        const double *x = args->x + t * moe->width;
        double *out = args->out + t * moe->width;
        struct token_gate token = gate_token(x, args->weights, moe);
        memset(out, 0, (size_t)moe->width * sizeof(*out));
        for (int64_t k = 0; k < moe->gate.top_k; k++) {
            network_forward(out, x, token.weight[k],
                            expert_of(args->weights, moe, token.expert[k]));
        }
        if (moe->shared_inner > 0) {
            network_forward(out, x, shared_weight(x, args->weights, moe),
                            shared_of(args->weights, moe));
        }
        terms += count_token(args, &token, moe);
        free_token(&token);
    }
    return terms;
}

static void router_backward(double *d_x, const struct mt_ref_moe_backward *args, const double *x,
                            const struct token_gate *token, const double *d_weight,
                            const struct mt_ref_moe *moe)
{
    double *d_logits = zeros(moe->gate.n_expert);
    const struct mt_ref_gate_backward gate = {.d_logits = d_logits,
                                              .d_weight = d_weight,
                                              .expert = token->expert,
                                              .probability = token->probability,
                                              .lse = &token->lse,
                                              .f = moe->f,
                                              .balance_scale = moe->balance_scale,
                                              .z_scale = moe->z_scale};
    mt_ref_gate_backward(&gate, 1, &moe->gate);
    const struct mt_ref_router_backward router = {.d_x = d_x,
                                                  .d_w = args->d_weights->router,
                                                  .d_logits = d_logits,
                                                  .x = x,
                                                  .w = args->weights->router};
    mt_ref_router_backward(&router, 1, moe->gate.n_expert, moe->width);
    free(d_logits);
}

void mt_ref_moe_backward(const struct mt_ref_moe_backward *args, int64_t n,
                         const struct mt_ref_moe *moe)
{
    for (int64_t t = 0; t < n; t++) {
        const double *x = args->x + t * moe->width;
        const double *d_out = args->d_out + t * moe->width;
        double *d_x = args->d_x + t * moe->width;
        double *d_weight = zeros(moe->gate.top_k);
        struct token_gate token = gate_token(x, args->weights, moe);
        memset(d_x, 0, (size_t)moe->width * sizeof(*d_x));
        for (int64_t k = 0; k < moe->gate.top_k; k++) {
            const int32_t e = token.expert[k];
            d_weight[k] = network_backward(d_x, expert_of(args->d_weights, moe, e), d_out, x,
                                           token.weight[k], expert_of(args->weights, moe, e));
        }
        if (moe->shared_inner > 0) {
            shared_backward(d_x, args, d_out, x, moe);
        }
        router_backward(d_x, args, x, &token, d_weight, moe);
        free_token(&token);
        free(d_weight);
    }
}
