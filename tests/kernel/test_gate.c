/* mt_gate_*: values, gradients of the weights and of both losses, ties, NaN and infinite logits. */
#include "kernel/pair.h"
#include "reference/gate.h"

/* Largest errors seen: forward 2e-7, backward 3e-7. */
static const double bound = 2e-6;

static const int64_t cases[][3] = {
    {0, 8, 2},   {1, 1, 1},    {1, 2, 2},   {7, 5, 1},   {33, 8, 2},   {65, 17, 3},  {40, 64, 8},
    {9, 100, 7}, {5, 512, 16}, {3, 16, 16}, {2, 40, 40}, {200, 33, 4}, {130, 128, 1}};

struct problem {
    int64_t n;
    struct mt_gate gate;
    struct pair logits, weight, probability, lse, d_weight, d_logits, f;
    int32_t *expert, *expert_ref; /* [n,K] */
    int64_t *count;               /* [E] */
    double *probability_sum;      /* [E] */
    double lse_square_sum;
    bool with_losses, is_given;
};

static void problem_init(struct problem *p, struct mt_arena *arena, const int64_t size[3],
                         bool normalize)
{
    const int64_t n = size[0];
    const int64_t n_expert = size[1];
    const int64_t top_k = size[2];
    p->n = n;
    p->gate = (struct mt_gate){n_expert, top_k, normalize, normalize ? 1.5F : 2.5F};
    p->with_losses = false;
    p->is_given = false;
    p->logits = pair_uniform(arena, n * n_expert, 1, -4.0, 4.0);
    p->weight = pair_random(arena, n * top_k, 2);
    p->probability = pair_random(arena, n * n_expert, 3);
    p->lse = pair_random(arena, n, 4);
    p->d_weight = pair_random(arena, n * top_k, 5);
    p->d_logits = pair_random(arena, n * n_expert, 6);
    p->f = pair_uniform(arena, n_expert, 7, 0.0, 1.0);
    p->expert = mt_arena_cut(arena, n * top_k * (int64_t)sizeof(int32_t));
    p->expert_ref = mt_arena_cut(arena, n * top_k * (int64_t)sizeof(int32_t));
    p->count = mt_arena_cut(arena, n_expert * (int64_t)sizeof(int64_t));
    p->probability_sum = mt_arena_cut(arena, n_expert * (int64_t)sizeof(double));
    memset(p->count, 0xff, (size_t)n_expert * sizeof(int64_t));
    memset(p->probability_sum, 0xff, (size_t)n_expert * sizeof(double));
    p->lse_square_sum = -1.0;
}

static void forward(struct problem *p, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    const struct mt_gate_forward args = {
        .expert = p->expert,
        .weight = p->weight.f,
        .probability = p->probability.f,
        .lse = p->lse.f,
        .count = p->count,
        .probability_sum = p->probability_sum,
        .lse_square_sum = &p->lse_square_sum,
        .logits = p->logits.f,
        .is_given = p->is_given,
    };
    mt_gate_forward(&device, &args, p->n, &p->gate);
}

static void compute(struct problem *p, int n_thread)
{
    forward(p, n_thread);
    struct mt_device device = device_of(n_thread);
    const struct mt_gate_backward args = {
        .d_logits = p->d_logits.f,
        .d_weight = p->d_weight.f,
        .expert = p->expert,
        .weight = p->weight.f,
        .probability = p->probability.f,
        .lse = p->lse.f,
        .f = p->with_losses ? p->f.f : NULL,
        .balance_scale = p->with_losses ? 0.75F : 0.0F,
        .z_scale = p->with_losses ? 0.25F : 0.0F,
    };
    mt_gate_backward(&device, &args, p->n, &p->gate);
}

static struct mt_ref_gate reference_gate(const struct problem *p)
{
    return (struct mt_ref_gate){p->gate.n_expert, p->gate.top_k, p->gate.normalize,
                                (double)p->gate.scale};
}

static void reference_forward(struct problem *p)
{
    const struct mt_ref_gate gate = reference_gate(p);
    const struct mt_ref_gate_forward args = {p->expert_ref, p->weight.d, p->probability.d,
                                             p->lse.d,      p->logits.d, p->is_given};
    mt_ref_gate_forward(&args, p->n, &gate);
}

static void reference_backward(struct problem *p)
{
    const struct mt_ref_gate gate = reference_gate(p);
    const struct mt_ref_gate_backward args = {
        .d_logits = p->d_logits.d,
        .d_weight = p->d_weight.d,
        .expert = p->expert_ref,
        .probability = p->probability.d,
        .lse = p->lse.d,
        .f = p->with_losses ? p->f.d : NULL,
        .balance_scale = p->with_losses ? 0.75 : 0.0,
        .z_scale = p->with_losses ? 0.25 : 0.0,
    };
    mt_ref_gate_backward(&args, p->n, &gate);
}

static void check_sums(const struct problem *p)
{
    double lse_square_sum = 0.0;
    for (int64_t t = 0; t < p->n; t++) {
        lse_square_sum += p->lse.d[t] * p->lse.d[t];
    }
    assert_true(fabs(p->lse_square_sum - lse_square_sum) <= 1e-5 * lse_square_sum);
    for (int64_t e = 0; e < p->gate.n_expert; e++) {
        int64_t count = 0;
        double sum = 0.0;
        for (int64_t i = 0; i < p->n * p->gate.top_k; i++) {
            count += p->expert_ref[i] == e ? 1 : 0;
        }
        for (int64_t t = 0; t < p->n; t++) {
            sum += p->probability.d[t * p->gate.n_expert + e];
        }
        assert_true(p->count[e] == count);
        assert_true(fabs(p->probability_sum[e] - sum) <= 1e-5 * sum);
    }
}

static void check_same(const struct problem *one, const struct problem *many)
{
    PAIR_SAME(one->weight, many->weight);
    PAIR_SAME(one->probability, many->probability);
    PAIR_SAME(one->lse, many->lse);
    PAIR_SAME(one->d_logits, many->d_logits);
    const size_t n_expert = (size_t)one->gate.n_expert;
    const size_t n_pair = (size_t)(one->n * one->gate.top_k);
    assert_memory_equal(one->count, many->count, n_expert * sizeof(int64_t));
    assert_memory_equal(one->probability_sum, many->probability_sum, n_expert * sizeof(double));
    assert_true(one->lse_square_sum == many->lse_square_sum);
    assert_true(n_pair == 0 || memcmp(one->expert, many->expert, n_pair * sizeof(int32_t)) == 0);
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 4 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const bool normalize = i % 2 != 0;
        struct problem one;
        problem_init(&one, &arena, cases[i / 4], normalize);
        one.with_losses = i / 2 % 2 != 0;
        compute(&one, 1);
        reference_forward(&one);
        reference_backward(&one);
        const size_t n_pair = (size_t)(one.n * one.gate.top_k);
        assert_true(n_pair == 0 ||
                    memcmp(one.expert, one.expert_ref, n_pair * sizeof(int32_t)) == 0);
        PAIR_CLOSE(one.weight, bound);
        PAIR_CLOSE(one.probability, bound);
        PAIR_CLOSE(one.lse, bound);
        if (one.gate.top_k < one.gate.n_expert || one.with_losses) {
            PAIR_CLOSE(one.d_logits, bound);
        }
        check_sums(&one);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, cases[i / 4], normalize);
            many.with_losses = one.with_losses;
            compute(&many, n_thread);
            check_same(&one, &many);
        }
    }
    mt_arena_clear(&arena);
}

static void equal_logits_choose_the_lowest_ids(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        struct problem p;
        problem_init(&p, &arena, cases[i], true);
        for (int64_t j = 0; j < p.logits.n; j++) {
            p.logits.f[j] = 0.25F;
        }
        forward(&p, 1);
        for (int64_t j = 0; j < p.n * p.gate.top_k; j++) {
            assert_int_equal(p.expert[j], j % p.gate.top_k);
            assert_true(fabs((double)p.weight.f[j] * (double)p.gate.top_k - 1.5) < 1e-6);
        }
    }
    mt_arena_clear(&arena);
}

/* Few different values: every row is full of ties. */
static void ties_go_to_the_lower_id(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        struct problem p;
        problem_init(&p, &arena, cases[i], true);
        for (int64_t j = 0; j < p.logits.n; j++) {
            p.logits.f[j] = floorf(p.logits.f[j]);
        }
        pair_widen(p.logits);
        forward(&p, 1);
        reference_forward(&p);
        const size_t n_pair = (size_t)(p.n * p.gate.top_k);
        assert_true(n_pair == 0 || memcmp(p.expert, p.expert_ref, n_pair * sizeof(int32_t)) == 0);
    }
    mt_arena_clear(&arena);
}

static void check_distinct(const struct problem *p)
{
    for (int64_t t = 0; t < p->n; t++) {
        const int32_t *chosen = p->expert + t * p->gate.top_k;
        for (int64_t k = 0; k < p->gate.top_k; k++) {
            assert_true(chosen[k] >= 0 && chosen[k] < p->gate.n_expert);
            for (int64_t other = 0; other < k; other++) {
                assert_true(chosen[k] != chosen[other]);
            }
        }
    }
}

static void odd_logits_give_different_ids_in_range_and_show(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const float odd[] = {(float)NAN, (float)-NAN, (float)INFINITY, (float)-INFINITY};
    for (int i = 0; i < 2 * N_ITEM(odd) * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        struct problem p;
        problem_init(&p, &arena, cases[i % N_ITEM(cases)], i % 2 != 0);
        const int which = i / N_ITEM(cases) % N_ITEM(odd);
        const int64_t step = i >= N_ITEM(odd) * N_ITEM(cases) ? 1 : 3;
        for (int64_t j = 0; j < p.logits.n; j += step) {
            p.logits.f[j] = odd[which];
        }
        pair_widen(p.logits);
        compute(&p, 1);
        check_distinct(&p);
        reference_forward(&p);
        const size_t n_pair = (size_t)(p.n * p.gate.top_k);
        assert_true(n_pair == 0 || memcmp(p.expert, p.expert_ref, n_pair * sizeof(int32_t)) == 0);
        /* Element 0 is odd: row 0 has a NaN or an infinity. A lone -infinity is a probability 0. */
        if (p.n > 0 && which < 3) {
            assert_true(isnan(p.probability.f[0]) && isnan(p.weight.f[0]));
            assert_true(isnan(p.d_logits.f[0]));
        }
    }
    mt_arena_clear(&arena);
}

/* p of the chosen underflows to 0 but for the first; their sum is no divisor to trust. */
static void normalised_weights_of_far_apart_logits_are_finite(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {1, 4, 2};
    struct problem p;
    problem_init(&p, &arena, size, true);
    p.logits.f[0] = -3e38F;
    p.logits.f[1] = 3e38F;
    p.logits.f[2] = -1e30F;
    p.logits.f[3] = 1e30F;
    compute(&p, 1);
    assert_int_equal(p.expert[0], 1);
    assert_int_equal(p.expert[1], 3);
    assert_true(p.weight.f[0] == 1.5F && p.weight.f[1] == 0.0F);
    for (int e = 0; e < 4; e++) {
        assert_true(p.d_logits.f[e] == 0.0F);
    }
    mt_arena_clear(&arena);
}

/* The choices of a study, in any order: weighed, counted and differentiated like chosen ones. */
static void given_choices_are_kept_and_weighed(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        struct problem p;
        problem_init(&p, &arena, cases[i / 2], i % 2 != 0);
        p.is_given = true;
        for (int64_t j = 0; j < p.n * p.gate.top_k; j++) {
            const int64_t choice = (j / p.gate.top_k * 7 + j % p.gate.top_k) % p.gate.n_expert;
            p.expert[j] = p.expert_ref[j] = (int32_t)choice;
        }
        compute(&p, 1);
        reference_forward(&p);
        reference_backward(&p);
        const size_t n_pair = (size_t)(p.n * p.gate.top_k);
        assert_true(n_pair == 0 || memcmp(p.expert, p.expert_ref, n_pair * sizeof(int32_t)) == 0);
        PAIR_CLOSE(p.weight, bound);
        if (p.gate.top_k < p.gate.n_expert) {
            PAIR_CLOSE(p.d_logits, bound);
        }
        check_sums(&p);
    }
    mt_arena_clear(&arena);
}

static void gradient_is_exactly_zero_off_the_chosen(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {50, 20, 3};
    struct problem p;
    problem_init(&p, &arena, size, true);
    compute(&p, 1);
    for (int64_t t = 0; t < p.n; t++) {
        int64_t n_nonzero = 0;
        for (int64_t e = 0; e < 20; e++) {
            n_nonzero += p.d_logits.f[t * 20 + e] != 0.0F ? 1 : 0;
        }
        assert_true(n_nonzero <= 3);
    }
    mt_arena_clear(&arena);
}

/* The objective whose gradient mt_ref_gate_backward states, with the choice held. */
static double objective(void *context)
{
    struct problem *p = context;
    reference_forward(p);
    double sum = weighted_sum(p->weight.d, p->d_weight.d, p->weight.n);
    for (int64_t i = 0; p->with_losses && i < p->probability.n; i++) {
        sum += 0.75 * p->f.d[i % p->gate.n_expert] * p->probability.d[i];
    }
    for (int64_t t = 0; p->with_losses && t < p->n; t++) {
        sum += 0.125 * p->lse.d[t] * p->lse.d[t];
    }
    return sum;
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    static const int64_t size[3] = {4, 7, 3};
    for (int i = 0; i < 4; i++) {
        mt_arena_release(&arena, 0);
        struct problem p;
        problem_init(&p, &arena, size, i % 2 != 0);
        p.with_losses = i / 2 != 0;
        reference_forward(&p);
        reference_backward(&p);
        PAIR_GRADIENT(objective, &p, p.logits, p.d_logits);
    }
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(equal_logits_choose_the_lowest_ids),
        cmocka_unit_test(ties_go_to_the_lower_id),
        cmocka_unit_test(odd_logits_give_different_ids_in_range_and_show),
        cmocka_unit_test(normalised_weights_of_far_apart_logits_are_finite),
        cmocka_unit_test(given_choices_are_kept_and_weighed),
        cmocka_unit_test(gradient_is_exactly_zero_off_the_chosen),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
