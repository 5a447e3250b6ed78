/* mt_attention_*: values and gradients over groupings, lengths and head widths that are no multiple
 * of any block, with and without rotary embedding. */
#include "kernel/pair.h"
#include "reference/attention.h"
#include "reference/difference.h"
#include "reference/rope.h"

/* Largest errors seen: forward 4e-7, backward 8e-7. */
static const double forward_bound = 3e-6;
static const double backward_bound = 6e-6;

static const struct mt_attention cases[] = {
    {1, 1, 1, 1, 8},    {2, 7, 2, 1, 8},    {1, 64, 4, 1, 32},  {2, 65, 4, 2, 64},
    {1, 130, 4, 4, 96}, {1, 130, 2, 1, 20}, {2, 33, 3, 3, 128}, {1, 65, 1, 1, 7},
    {0, 16, 2, 1, 8},   {1, 300, 2, 2, 16}, {3, 31, 4, 1, 1},   {1, 128, 2, 1, 64},
    {2, 2, 2, 2, 64},   {1, 63, 4, 2, 16},  {1, 255, 2, 1, 64}, {1, 257, 1, 1, 48},
    {1, 320, 1, 1, 64}, {1, 576, 2, 1, 32}, {2, 1, 4, 2, 128},
};

#ifndef MT_TEST_LENGTH
#define MT_TEST_LENGTH 1000 /* longest sequence; shorter ones on the emulated GPU */
#endif

struct problem {
    struct mt_attention shape;
    struct mt_rope tables;
    bool has_rope;
    struct pair q, k, v, o, lse, d_o, d_q, d_k, d_v;
};

static void problem_init(struct problem *p, struct mt_arena *arena,
                         const struct mt_attention *shape, double size)
{
    const int64_t n_token = shape->n_sequence * shape->length;
    const int64_t n_query = n_token * shape->n_head * shape->head_dim;
    const int64_t n_key = n_token * shape->n_kv_head * shape->head_dim;
    p->shape = *shape;
    p->has_rope = false;
    p->q = pair_uniform(arena, n_query, 1, -size, size);
    p->k = pair_uniform(arena, n_key, 2, -size, size);
    p->v = pair_random(arena, n_key, 3);
    p->o = pair_random(arena, n_query, 4);
    p->lse = pair_random(arena, n_token * shape->n_head, 5);
    p->d_o = pair_random(arena, n_query, 6);
    p->d_q = pair_random(arena, n_query, 7);
    p->d_k = pair_random(arena, n_key, 8);
    p->d_v = pair_random(arena, n_key, 9);
}

static const double theta = 10000.0;

static void add_rope(struct problem *p, struct mt_arena *arena)
{
    const int64_t n = p->shape.length * p->shape.head_dim / 2;
    const struct pair cosine = pair_random(arena, n, 12);
    const struct pair sine = pair_random(arena, n, 13);
    mt_rope_tables(cosine.f, sine.f, p->shape.length, p->shape.head_dim, theta);
    p->tables = (struct mt_rope){cosine.f, sine.f};
    p->has_rope = true;
}

static void compute(struct problem *p, struct mt_arena *arena, int n_thread)
{
    struct mt_device device = device_of(n_thread);
    const int64_t bytes = mt_attention_scratch_bytes(&device, &p->shape);
    /* NaN where nothing was written: what is read before it is written shows. */
    struct pair scratch = pair_random(arena, bytes / (int64_t)sizeof(float), 10);
    memset(scratch.f, 0xff, (size_t)bytes);
    const struct mt_rope *rope = p->has_rope ? &p->tables : NULL;
    const struct mt_attention_forward forward = {p->o.f, p->lse.f,  p->q.f, p->k.f,
                                                 p->v.f, scratch.f, rope};
    mt_attention_forward(&device, &forward, &p->shape);
    const struct mt_attention_backward backward = {p->d_q.f, p->d_k.f,  p->d_v.f, p->d_o.f,
                                                   p->o.f,   p->lse.f,  p->q.f,   p->k.f,
                                                   p->v.f,   scratch.f, rope};
    mt_attention_backward(&device, &backward, &p->shape);
    pair_check_canaries(scratch);
}

static struct mt_ref_attention reference_shape(const struct mt_attention *s)
{
    return (struct mt_ref_attention){s->n_sequence, s->length, s->n_head, s->n_kv_head,
                                     s->head_dim};
}

/* x [N, n_head, Dh] turned by its positions, or back. */
static void turn(const struct problem *p, struct pair x, int64_t n_head, double direction)
{
    const struct mt_ref_rope rope = {p->shape.length, n_head, p->shape.head_dim, theta};
    if (p->has_rope) {
        mt_ref_rope(x.d, p->shape.n_sequence * p->shape.length, &rope, direction);
    }
}

static void check_reference(struct problem *p)
{
    const struct mt_ref_attention shape = reference_shape(&p->shape);
    turn(p, p->q, p->shape.n_head, 1.0);
    turn(p, p->k, p->shape.n_kv_head, 1.0);
    mt_ref_attention_forward(p->o.d, p->lse.d, p->q.d, p->k.d, p->v.d, &shape);
    const struct mt_ref_attention_backward args = {p->d_q.d, p->d_k.d, p->d_v.d, p->d_o.d,
                                                   p->q.d,   p->k.d,   p->v.d};
    mt_ref_attention_backward(&args, &shape);
    turn(p, p->d_q, p->shape.n_head, -1.0);
    turn(p, p->d_k, p->shape.n_kv_head, -1.0);
    PAIR_CLOSE(p->o, forward_bound);
    PAIR_CLOSE(p->lse, forward_bound);
    PAIR_CLOSE(p->d_q, backward_bound);
    PAIR_CLOSE(p->d_k, backward_bound);
    PAIR_CLOSE(p->d_v, backward_bound);
}

static void values_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const struct mt_attention *shape = &cases[i / 2];
        const bool has_rope = i % 2 != 0 && shape->head_dim % 2 == 0;
        if (shape->length > MT_TEST_LENGTH) {
            continue;
        }
        struct problem one;
        problem_init(&one, &arena, shape, 2.0);
        has_rope ? add_rope(&one, &arena) : (void)0;
        compute(&one, &arena, 1);
        check_reference(&one);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct problem many;
            problem_init(&many, &arena, shape, 2.0);
            many.tables = one.tables;
            many.has_rope = has_rope;
            compute(&many, &arena, n_thread);
            PAIR_SAME(one.o, many.o);
            PAIR_SAME(one.lse, many.lse);
            PAIR_SAME(one.d_q, many.d_q);
            PAIR_SAME(one.d_k, many.d_k);
            PAIR_SAME(one.d_v, many.d_v);
        }
    }
    mt_arena_clear(&arena);
}

/* Scores of some thousands: the running maximum moves, most probabilities underflow. */
static void large_scores_give_finite_probabilities(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 200, 1, 1, 32};
    struct problem p;
    problem_init(&p, &arena, &shape, 60.0);
    compute(&p, &arena, 1);
    const struct mt_ref_attention ref = reference_shape(&shape);
    mt_ref_attention_forward(p.o.d, p.lse.d, p.q.d, p.k.d, p.v.d, &ref);
    /* A score of 2000 has an absolute rounding of 1e-4, which the exponential makes relative. */
    PAIR_CLOSE(p.o, 2e-3);
    PAIR_CLOSE(p.lse, 1e-6);
    mt_arena_clear(&arena);
}

/* Values of later positions, whatever they are, cannot be seen. */
static void later_positions_do_not_change_earlier_results(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 100, 2, 1, 16};
    struct problem one;
    struct problem other;
    problem_init(&one, &arena, &shape, 1.0);
    problem_init(&other, &arena, &shape, 1.0);
    const int64_t position = 41;
    for (int64_t i = position * 16; i < other.k.n; i++) {
        other.k.f[i] += 1000.0F;
        other.v.f[i] = -other.v.f[i];
    }
    compute(&one, &arena, 1);
    compute(&other, &arena, 1);
    MT_TEST_SAME_BITS(one.o.f, other.o.f, position * 32);
    mt_arena_clear(&arena);
}

static void a_nan_is_passed_on(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 40, 1, 1, 16};
    struct problem p;
    problem_init(&p, &arena, &shape, 1.0);
    p.k.f[48] = (float)NAN;
    compute(&p, &arena, 1);
    assert_true(isnan(p.lse.f[3]) && isnan(p.lse.f[39]) && !isnan(p.lse.f[2]));
    mt_arena_clear(&arena);
}

struct objective {
    struct problem p;
    struct mt_ref_attention shape;
};

static double objective(void *context)
{
    struct objective *o = context;
    const struct problem *p = &o->p;
    mt_ref_attention_forward(p->o.d, p->lse.d, p->q.d, p->k.d, p->v.d, &o->shape);
    return weighted_sum(p->o.d, p->d_o.d, p->o.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {2, 5, 4, 2, 3};
    struct objective o;
    o.shape = reference_shape(&shape);
    problem_init(&o.p, &arena, &shape, 1.0);
    const struct pair numeric = pair_random(&arena, o.p.q.n, 11);
    const struct mt_ref_attention_backward args = {o.p.d_q.d, o.p.d_k.d, o.p.d_v.d, o.p.d_o.d,
                                                   o.p.q.d,   o.p.k.d,   o.p.v.d};
    mt_ref_attention_backward(&args, &o.shape);
    mt_ref_difference(objective, &o, o.p.q.d, o.p.q.n, numeric.d);
    assert_true(mt_ref_gradient_error(o.p.d_q.d, numeric.d, o.p.q.n) < 1e-6);
    mt_ref_difference(objective, &o, o.p.k.d, o.p.k.n, numeric.d);
    assert_true(mt_ref_gradient_error(o.p.d_k.d, numeric.d, o.p.k.n) < 1e-6);
    mt_ref_difference(objective, &o, o.p.v.d, o.p.v.n, numeric.d);
    assert_true(mt_ref_gradient_error(o.p.d_v.d, numeric.d, o.p.v.n) < 1e-6);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(large_scores_give_finite_probabilities),
        cmocka_unit_test(later_positions_do_not_change_earlier_results),
        cmocka_unit_test(a_nan_is_passed_on),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
