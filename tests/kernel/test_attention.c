/* mt_attention_*: values and gradients over groupings, segments, lengths and head widths that are
 * no multiple of any block, with and without rotary embedding. */
#include "kernel/attention_problem.h"
#include "kernel/product.h"
#include "reference/rope.h"

/* Largest errors seen: forward 4e-7, backward 8e-7. */
static const double forward_bound = 3e-6;
static const double backward_bound = 6e-6;

/* o, lse, gradients */
struct bounds {
    double o, lse, gradient;
};
/* Of bfloat16, compared with the reference on rounded operands, what kernel.h allows. Largest
 * errors seen: o 1.4e-3, lse 2e-7, gradients 7.3e-3. An angle that
 * is rounded in float32 may round an element of q or k the other way, which lse shows. */
static const struct bounds rounded_bounds = {0x1p-8, 3e-6, 0x1p-6};
static const double rounded_angle_bound = 0x1p-8;

static const struct mt_attention cases[] = {
    {1, 1, 1, 1, 8, 0},    {2, 7, 2, 1, 8, 0},    {1, 64, 4, 1, 32, 0},  {2, 65, 4, 2, 64, 0},
    {1, 130, 4, 4, 96, 0}, {1, 130, 2, 1, 20, 0}, {2, 33, 3, 3, 128, 0}, {1, 65, 1, 1, 7, 0},
    {0, 16, 2, 1, 8, 0},   {1, 300, 2, 2, 16, 0}, {3, 31, 4, 1, 1, 0},   {1, 128, 2, 1, 64, 0},
    {2, 2, 2, 2, 64, 0},   {1, 63, 4, 2, 16, 0},  {1, 255, 2, 1, 64, 0}, {1, 257, 1, 1, 48, 0},
    {1, 320, 1, 1, 64, 0}, {1, 576, 2, 1, 32, 0}, {2, 1, 4, 2, 128, 0},  {1, 35, 2, 1, 130, 0},
};

#ifndef MT_TEST_LENGTH
#define MT_TEST_LENGTH 1000 /* longest sequence; shorter ones on the emulated GPU */
#endif

static bool is_rounded(const struct problem *p)
{
    return p->dtype == MT_BFLOAT16 && p->shape.head_dim <= MT_TEST_ROUNDED_HEAD;
}

/* x [N, n_head, Dh] turned by its positions, or back: those in the sequence, for scores must not
 * tell; where they are rounded after it, those in the segment, as kernel.h says. */
static void turn(const struct problem *p, struct pair x, int64_t n_head, double direction)
{
    const bool has_segments = p->segments != NULL && is_rounded(p);
    const int64_t n = has_segments ? p->segments->n : p->shape.n_sequence;
    for (int64_t i = 0; p->has_rope && i < n; i++) {
        const int64_t begin = has_segments ? p->segments->start[i] : i * p->shape.length;
        const int64_t end = has_segments ? p->segments->start[i + 1] : begin + p->shape.length;
        const struct mt_ref_rope rope = {end - begin, n_head, p->shape.head_dim, theta};
        mt_ref_rope(x.d + begin * n_head * p->shape.head_dim, end - begin, &rope, direction);
    }
}

static void round_twin(struct pair x)
{
    for (int64_t i = 0; i < x.n; i++) {
        x.d[i] = product_bf16(x.d[i]);
    }
}

/* What the reference is given: turned, and rounded as the device's products have it. */
static void prepare_reference(struct problem *p)
{
    turn(p, p->q, p->shape.n_head, 1.0);
    turn(p, p->k, p->shape.n_kv_head, 1.0);
    if (is_rounded(p)) {
        round_twin(p->q);
        round_twin(p->k);
        round_twin(p->v);
        round_twin(p->d_o);
    }
}

/* first [N]: of each token's segment; NULL: each sequence is one. */
static void check_within(struct problem *p, const int64_t *first, struct bounds bounds)
{
    struct mt_ref_attention shape = reference_shape(&p->shape);
    shape.first = first;
    prepare_reference(p);
    mt_ref_attention_forward(p->o.d, p->lse.d, p->q.d, p->k.d, p->v.d, &shape);
    const struct mt_ref_attention_backward args = {p->d_q.d, p->d_k.d, p->d_v.d, p->d_o.d,
                                                   p->q.d,   p->k.d,   p->v.d};
    mt_ref_attention_backward(&args, &shape);
    turn(p, p->d_q, p->shape.n_head, -1.0);
    turn(p, p->d_k, p->shape.n_kv_head, -1.0);
    PAIR_CLOSE(p->o, bounds.o);
    PAIR_CLOSE(p->lse, bounds.lse);
    PAIR_CLOSE(p->d_q, bounds.gradient);
    PAIR_CLOSE(p->d_k, bounds.gradient);
    PAIR_CLOSE(p->d_v, bounds.gradient);
}

static void check_masked_reference(struct problem *p, const int64_t *first)
{
    struct bounds bounds = {forward_bound, forward_bound, backward_bound};
    if (is_rounded(p)) {
        bounds = rounded_bounds;
        bounds.lse = p->has_rope ? rounded_angle_bound : bounds.lse;
    }
    check_within(p, first, bounds);
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
        check_masked_reference(&one, NULL);
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

/* Lengths of segments, again and again until a sequence is full: single tokens, a block and its
 * neighbours, more than a block of keys, all of a sequence. */
static const int64_t patterns[][4] = {{1, 2, 1, 3}, {5, 64, 1, 9},     {63, 65, 32, 300},
                                      {7, 7, 7, 7}, {256, 257, 1, 33}, {9999, 1, 1, 1}};

/* start [N + 1], first [N] */
static int64_t cut_segments(const struct mt_attention *shape, const int64_t *pattern,
                            int64_t *start, int64_t *first)
{
    int64_t n = 0;
    for (int64_t b = 0; b < shape->n_sequence; b++) {
        for (int64_t t = 0; t < shape->length; n++) {
            const int64_t left = shape->length - t;
            const int64_t length = pattern[n % 4] < left ? pattern[n % 4] : left;
            start[n] = b * shape->length + t;
            for (int64_t i = 0; i < length; i++) {
                first[start[n] + i] = t;
            }
            t += length;
        }
    }
    start[n] = shape->n_sequence * shape->length;
    return n;
}

enum { MAX_TOKEN = 2048 };

/* One case with one pattern: against the reference, which masks and keeps positions as they are in
 * the sequence; and, beside other segments, each as it is alone. */
static void check_segments(struct mt_arena *arena, const struct mt_attention *shape,
                           const int64_t *pattern)
{
    int64_t start[MAX_TOKEN + 1];
    int64_t first[MAX_TOKEN];
    struct problem one;
    struct problem many;
    const struct mt_attention_segments segments = {cut_segments(shape, pattern, start, first),
                                                   start};
    problem_init(&one, arena, shape, 2.0);
    problem_init(&many, arena, shape, 2.0);
    if (shape->head_dim % 2 == 0) {
        add_rope(&one, arena);
        many.tables = one.tables;
        many.has_rope = true;
    }
    one.segments = many.segments = &segments;
    compute(&one, arena, 1);
    compute(&many, arena, 3);
    PAIR_SAME(one.o, many.o);
    PAIR_SAME(one.d_q, many.d_q);
    PAIR_SAME(one.d_k, many.d_k);
    PAIR_SAME(one.d_v, many.d_v);
    check_masked_reference(&one, first);
}

static void tokens_see_their_own_segment_only(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        if (cases[i].length <= MT_TEST_LENGTH) {
            check_segments(&arena, &cases[i], patterns[i % N_ITEM(patterns)]);
        }
    }
    mt_arena_clear(&arena);
}

static void every_token_may_be_a_segment_of_its_own(void **state)
{
    MT_UNUSED(state);
    static const struct mt_attention shape = {1, 250, 1, 1, 4, 0};
    static const int64_t ones[4] = {1, 1, 1, 1};
    struct mt_arena arena;
    arena_init(&arena);
    check_segments(&arena, &shape, ones);
    mt_arena_clear(&arena);
}

/* The same document, at two places of a sequence: the same bits. */
static void a_segment_has_the_same_bits_wherever_it_lies(void **state)
{
    MT_UNUSED(state);
    enum { LENGTH = 90, OFFSET = 37, WIDTH = 2 * 16, KV_WIDTH = 16 };
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, OFFSET + LENGTH, 2, 1, 16, 0};
    const int64_t front[] = {0, LENGTH, OFFSET + LENGTH};
    const int64_t back[] = {0, OFFSET, OFFSET + LENGTH};
    const struct mt_attention_segments segments[] = {{2, front}, {2, back}};
    struct problem p[2];
    for (int i = 0; i < 2; i++) {
        problem_init(&p[i], &arena, &shape, 1.0);
        add_rope(&p[i], &arena);
        p[i].segments = &segments[i];
    }
    memcpy(p[1].q.f + (int64_t)OFFSET * WIDTH, p[0].q.f, sizeof(float) * LENGTH * WIDTH);
    memcpy(p[1].d_o.f + (int64_t)OFFSET * WIDTH, p[0].d_o.f, sizeof(float) * LENGTH * WIDTH);
    memcpy(p[1].k.f + (int64_t)OFFSET * KV_WIDTH, p[0].k.f, sizeof(float) * LENGTH * KV_WIDTH);
    memcpy(p[1].v.f + (int64_t)OFFSET * KV_WIDTH, p[0].v.f, sizeof(float) * LENGTH * KV_WIDTH);
    compute(&p[0], &arena, 1);
    compute(&p[1], &arena, 1);
    MT_TEST_SAME_BITS(p[0].o.f, p[1].o.f + (int64_t)OFFSET * WIDTH, LENGTH * WIDTH);
    MT_TEST_SAME_BITS(p[0].d_q.f, p[1].d_q.f + (int64_t)OFFSET * WIDTH, LENGTH * WIDTH);
    MT_TEST_SAME_BITS(p[0].d_k.f, p[1].d_k.f + (int64_t)OFFSET * KV_WIDTH, LENGTH * KV_WIDTH);
    mt_arena_clear(&arena);
}

/* Scores of some thousands: the running maximum moves, most probabilities underflow. */
static void large_scores_give_finite_probabilities(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 200, 1, 1, 32, 0};
    struct problem p;
    problem_init(&p, &arena, &shape, 60.0);
    compute(&p, &arena, 1);
    const struct mt_ref_attention ref = reference_shape(&shape);
    prepare_reference(&p);
    mt_ref_attention_forward(p.o.d, p.lse.d, p.q.d, p.k.d, p.v.d, &ref);
    /* A score of 2000 has an absolute rounding of 1e-4, which the exponential makes relative. */
    PAIR_CLOSE(p.o, is_rounded(&p) ? rounded_bounds.o : 2e-3);
    PAIR_CLOSE(p.lse, 1e-6);
    mt_arena_clear(&arena);
}

/* Values of later positions, whatever they are, cannot be seen. */
static void later_positions_do_not_change_earlier_results(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 100, 2, 1, 16, 0};
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

/* The rows of later queries, computed behind n_past keys that stand there already. */
static void check_past(struct problem *whole, struct mt_arena *arena, int64_t n_past,
                       int64_t length)
{
    const int64_t mark = mt_arena_mark(arena);
    struct mt_device device = device_of_type(2, whole->dtype);
    struct mt_attention shape = whole->shape;
    shape.n_past = n_past;
    shape.length = length;
    const int64_t stride = shape.n_head * shape.head_dim;
    const struct pair o = pair_random(arena, length * stride, 20);
    const struct pair lse = pair_random(arena, length * shape.n_head, 21);
    void *scratch = mt_arena_cut(arena, mt_attention_scratch_bytes(&device, &shape));
    const struct mt_attention_forward args = {.o = o.f,
                                              .lse = lse.f,
                                              .q = whole->q.f + n_past * stride,
                                              .k = whole->k.f,
                                              .v = whole->v.f,
                                              .scratch = scratch,
                                              .rope = whole->has_rope ? &whole->tables : NULL};
    mt_attention_forward(&device, &args, &shape);
    MT_TEST_SAME_BITS(o.f, whole->o.f + n_past * stride, length * stride);
    for (int64_t h = 0; h < shape.n_head; h++) {
        MT_TEST_SAME_BITS(lse.f + h * length, whole->lse.f + h * whole->shape.length + n_past,
                          length);
    }
    pair_check_canaries(o);
    pair_check_canaries(lse);
    mt_arena_release(arena, mark);
}

static void queries_behind_a_past_have_the_bits_of_all_at_once(void **state)
{
    MT_UNUSED(state);
    static const struct mt_attention shapes[] = {
        {1, 330, 4, 2, 32, 0}, {1, 70, 2, 1, 20, 0}, {1, 64, 1, 1, 128, 0}, {1, 2, 3, 3, 8, 0}};
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(shapes); i++) {
        mt_arena_release(&arena, 0);
        struct problem whole;
        const int64_t length = shapes[i].length;
        if (length > MT_TEST_LENGTH) {
            continue;
        }
        problem_init(&whole, &arena, &shapes[i], 2.0);
        add_rope(&whole, &arena);
        compute(&whole, &arena, 1);
        for (int64_t n_past = 1; n_past < length; n_past++) {
            check_past(&whole, &arena, n_past, 1);
        }
        static const int64_t some[] = {1, 2, 63, 64, 65, 200, 255, 256, 257};
        for (int s = 0; s < N_ITEM(some) && some[s] < length; s++) {
            check_past(&whole, &arena, some[s], length - some[s]);
            check_past(&whole, &arena, some[s], (length - some[s] + 1) / 2);
        }
    }
    mt_arena_clear(&arena);
}

static void round_values(struct pair x)
{
    for (int64_t i = 0; i < x.n; i++) {
        x.f[i] = (float)product_bf16((double)x.f[i]);
    }
    pair_widen(x);
}

/* Operands that rounding leaves as they are: what is left, exponentials and d_s, any device may
 * round or not, within one bound. Heads on both sides of what a GPU multiplies in bfloat16. */
static void a_bfloat16_device_may_round_what_it_multiplies(void **state)
{
    MT_UNUSED(state);
    static const struct mt_attention shapes[] = {{1, 70, 2, 1, 128, 0}, {1, 70, 2, 1, 129, 0}};
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(shapes); i++) {
        struct problem p;
        mt_arena_release(&arena, 0);
        problem_init(&p, &arena, &shapes[i], 2.0);
        p.dtype = MT_BFLOAT16;
        round_values(p.q);
        round_values(p.k);
        round_values(p.v);
        round_values(p.d_o);
        compute(&p, &arena, 2);
        check_within(&p, NULL, rounded_bounds);
    }
    mt_arena_clear(&arena);
}

static void a_nan_is_passed_on(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    const struct mt_attention shape = {1, 40, 1, 1, 16, 0};
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
    const struct mt_attention shape = {2, 5, 4, 2, 3, 0};
    const int64_t first[] = {0, 0, 2, 2, 4, 0, 1, 1, 1, 1};
    struct objective o;
    o.shape = reference_shape(&shape);
    o.shape.first = first;
    problem_init(&o.p, &arena, &shape, 1.0);
    const struct mt_ref_attention_backward args = {o.p.d_q.d, o.p.d_k.d, o.p.d_v.d, o.p.d_o.d,
                                                   o.p.q.d,   o.p.k.d,   o.p.v.d};
    mt_ref_attention_backward(&args, &o.shape);
    PAIR_GRADIENT(objective, &o, o.p.q, o.p.d_q);
    PAIR_GRADIENT(objective, &o, o.p.k, o.p.d_k);
    PAIR_GRADIENT(objective, &o, o.p.v, o.p.d_v);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(tokens_see_their_own_segment_only),
        cmocka_unit_test(every_token_may_be_a_segment_of_its_own),
        cmocka_unit_test(a_segment_has_the_same_bits_wherever_it_lies),
        cmocka_unit_test(large_scores_give_finite_probabilities),
        cmocka_unit_test(later_positions_do_not_change_earlier_results),
        cmocka_unit_test(queries_behind_a_past_have_the_bits_of_all_at_once),
        cmocka_unit_test(a_bfloat16_device_may_round_what_it_multiplies),
        cmocka_unit_test(a_nan_is_passed_on),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
