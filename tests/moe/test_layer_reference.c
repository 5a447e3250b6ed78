/* The judge judged: the reference layer's backward against central differences of its forward. */
#include "reference/difference.h"
#include "reference/moe_layer.h"
#include "support/test.h"

#include <stdlib.h>

enum { N = 5, D = 4, F = 3, E = 5, MAX_SHARED = 6, N_TENSOR = 8, ND = N * D, ED = E * D };
enum { EFD = E * F * D };

struct judged {
    struct mt_ref_moe moe;
    double f[E];
    double x[ND], d_out[ND], out[ND], d_x[ND];
    double value[N_TENSOR][EFD], grad[N_TENSOR][EFD];
    struct mt_ref_moe_weights weights, d_weights;
};

static struct mt_ref_moe_weights point(double tensor[N_TENSOR][EFD])
{
    return (struct mt_ref_moe_weights){.router = tensor[0],
                                       .gate = tensor[1],
                                       .up = tensor[2],
                                       .down = tensor[3],
                                       .shared_gate = tensor[4],
                                       .shared_up = tensor[5],
                                       .shared_down = tensor[6],
                                       .shared_scale = tensor[7]};
}

static double objective(void *context)
{
    struct judged *judged = context;
    const struct mt_ref_moe_forward args = {
        .out = judged->out, .x = judged->x, .weights = &judged->weights};
    double sum = mt_ref_moe_forward(&args, N, &judged->moe);
    for (int i = 0; i < N * D; ++i) {
        sum += judged->out[i] * judged->d_out[i];
    }
    return sum;
}

static void check(struct judged *judged, double *values, const double *analytic, int64_t n)
{
    assert_true(mt_ref_gradient_error(objective, judged, values, n, analytic) < 1e-6);
}

static void judge(int64_t top_k, bool normalize, int64_t n_shared, bool is_scaled)
{
    struct judged *judged = calloc(1, sizeof(*judged));
    assert_non_null(judged);
    judged->moe = (struct mt_ref_moe){
        .width = D,
        .inner = F,
        .shared_inner = n_shared * F,
        .gate = {.n_expert = E, .top_k = top_k, .normalize = normalize, .scale = 1.5},
        .f = judged->f,
        .balance_scale = 0.7,
        .z_scale = 0.3};
    mt_ref_fill(judged->f, E, 1);
    mt_ref_fill(judged->x, ND, 2);
    mt_ref_fill(judged->d_out, ND, 3);
    for (int t = 0; t < N_TENSOR; ++t) {
        mt_ref_fill(judged->value[t], EFD, 10U + (uint64_t)t);
    }
    judged->weights = point(judged->value);
    judged->d_weights = point(judged->grad);
    if (!is_scaled) {
        judged->weights.shared_scale = NULL;
    }
    const struct mt_ref_moe_backward args = {.d_x = judged->d_x,
                                             .d_weights = &judged->d_weights,
                                             .d_out = judged->d_out,
                                             .x = judged->x,
                                             .weights = &judged->weights};
    mt_ref_moe_backward(&args, N, &judged->moe);
    check(judged, judged->x, judged->d_x, ND);
    check(judged, judged->value[0], judged->grad[0], ED);
    for (int t = 1; t < 4; ++t) {
        check(judged, judged->value[t], judged->grad[t], EFD);
    }
    for (int t = 4; t < 7; ++t) {
        check(judged, judged->value[t], judged->grad[t], n_shared * F * D);
    }
    check(judged, judged->value[7], judged->grad[7], is_scaled ? D : 0);
    free(judged);
}

static void gradients_agree_with_central_differences(void **state)
{
    (void)state;
    judge(1, false, 0, false);
    judge(2, true, 1, false);
    judge(2, false, MAX_SHARED / F, true);
    judge(E, true, 1, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_agree_with_central_differences)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
