/* mt_expert_*: against the naive operations in double, and bit for bit against the operations that
 * they stand for. */
#include "kernel/cpu/swiglu.h"
#include "kernel/pair.h"
#include "reference/linear.h"
#include "reference/swiglu.h"

/* Largest error seen 6e-7. */
static const double bound = 2e-6;

enum { MAX_GROUP = 140, GATE = 0, UP, DOWN, N_MATRIX };

struct ragged {
    int n_group;
    int64_t rows[10];
    int64_t width, inner;
};

static const struct ragged cases[] = {
    {1, {0}, 8, 8},
    {3, {0, 0, 0}, 16, 24},
    {1, {1}, 1, 1},
    {5, {5, 0, 64, 1, 129}, 33, 17},
    {8, {17, 3, 64, 65, 63, 2, 1, 7}, 64, 48},
    {4, {0, 0, 1300, 0}, 16, 33},               /* a group larger than a panel */
    {6, {500, 500, 0, 30, 1025, 1024}, 24, 16}, /* panels of several groups, and of one */
};

struct problem {
    struct mt_device device;
    struct ragged shape;
    int64_t offset[MAX_GROUP + 1];
    struct mt_groups groups;
    struct pair x, y, gate, up, row_weight, d_y, d_x, d_row_weight;
    struct pair w[N_MATRIX][MAX_GROUP], d_w[N_MATRIX][MAX_GROUP];
    struct mt_weight weight[N_MATRIX][MAX_GROUP];
    const struct mt_weight *weights[N_MATRIX][MAX_GROUP];
    float *grads[N_MATRIX][MAX_GROUP];
    void *scratch;
};

static void init_matrix(struct problem *p, struct mt_arena *arena, int matrix, int group)
{
    const int64_t n_out = matrix == DOWN ? p->shape.width : p->shape.inner;
    const int64_t n_in = matrix == DOWN ? p->shape.inner : p->shape.width;
    const uint64_t seed = 100U + 10U * (uint64_t)group + (uint64_t)matrix;
    p->w[matrix][group] = pair_random(arena, n_out * n_in, seed);
    p->d_w[matrix][group] = pair_random(arena, n_out * n_in, seed + 5);
    struct mt_weight *weight = &p->weight[matrix][group];
    mt_weight_init(&p->device, weight, n_out, n_in, true,
                   mt_arena_cut(arena, mt_weight_bytes(&p->device, n_out, n_in, true)));
    mt_weight_pack(&p->device, weight, p->w[matrix][group].f);
    p->weights[matrix][group] = weight;
    p->grads[matrix][group] = p->d_w[matrix][group].f;
}

/* Rows of group g: shape->rows[g % 10]. */
static void problem_init_as(struct problem *p, struct mt_arena *arena, const struct ragged *shape,
                            int n_thread, enum mt_dtype dtype)
{
    memset(p, 0, sizeof(*p));
    p->device = device_of(n_thread);
    p->device.dtype = dtype;
    p->shape = *shape;
    for (int g = 0; g < shape->n_group; g++) {
        p->offset[g + 1] = p->offset[g] + shape->rows[g % N_ITEM(shape->rows)];
    }
    const int64_t n = p->offset[shape->n_group];
    p->groups = (struct mt_groups){shape->n_group, p->offset};
    MT_TEST_OK(mt_linear_prepare(&p->device, shape->inner, shape->width));
    MT_TEST_OK(mt_linear_prepare(&p->device, shape->width, shape->inner));
    p->x = pair_random(arena, n * shape->width, 1);
    p->y = pair_random(arena, n * shape->width, 2);
    p->gate = pair_random(arena, n * shape->inner, 3);
    p->up = pair_random(arena, n * shape->inner, 4);
    p->row_weight = pair_random(arena, n, 5);
    p->d_y = pair_random(arena, n * shape->width, 6);
    p->d_x = pair_random(arena, n * shape->width, 7);
    p->d_row_weight = pair_random(arena, n, 8);
    for (int g = 0; g < shape->n_group; g++) {
        for (int m = 0; m < N_MATRIX; m++) {
            init_matrix(p, arena, m, g);
        }
    }
    p->scratch = mt_arena_cut(arena, mt_expert_scratch_bytes(&p->device, shape->inner, n));
}

static void problem_init(struct problem *p, struct mt_arena *arena, const struct ragged *shape,
                         int n_thread)
{
    problem_init_as(p, arena, shape, n_thread, MT_FLOAT32);
}

static void forward(struct problem *p, bool weighted)
{
    const struct mt_expert_weights weights = {p->weights[GATE], p->weights[UP], p->weights[DOWN]};
    const struct mt_expert_forward args = {.y = p->y.f,
                                           .gate = p->gate.f,
                                           .up = p->up.f,
                                           .x = p->x.f,
                                           .row_weight = weighted ? p->row_weight.f : NULL,
                                           .scratch = p->scratch};
    mt_expert_forward(&p->device, &args, &weights, p->groups);
}

/* `in_place`: d_x takes the place of d_y. */
static struct mt_expert_backward backward_args(struct problem *p, bool weighted, bool in_place)
{
    return (struct mt_expert_backward){.d_x = in_place ? p->d_y.f : p->d_x.f,
                                       .d_row_weight = weighted ? p->d_row_weight.f : NULL,
                                       .gate = p->gate.f,
                                       .up = p->up.f,
                                       .d_y = p->d_y.f,
                                       .x = p->x.f,
                                       .row_weight = weighted ? p->row_weight.f : NULL,
                                       .d_gate_weight = p->grads[GATE],
                                       .d_up_weight = p->grads[UP],
                                       .d_down_weight = p->grads[DOWN],
                                       .scratch = p->scratch};
}

static void backward(struct problem *p, bool weighted, bool in_place)
{
    const struct mt_expert_weights weights = {p->weights[GATE], p->weights[UP], p->weights[DOWN]};
    const struct mt_expert_backward args = backward_args(p, weighted, in_place);
    mt_expert_backward(&p->device, &args, &weights, p->groups);
}

/* The gradients of W_gate and W_up by themselves, when x's has left: d_x, in the place of d_y, is
 * not what it was. */
static void backward_in_two(struct problem *p)
{
    const struct mt_expert_weights weights = {p->weights[GATE], p->weights[UP], p->weights[DOWN]};
    struct mt_expert_backward args = backward_args(p, true, true);
    args.d_gate_weight = NULL;
    args.d_up_weight = NULL;
    mt_expert_backward(&p->device, &args, &weights, p->groups);
    memcpy(p->d_x.f, p->d_y.f, (size_t)p->d_x.n * sizeof(float));
    memset(p->d_y.f, 0xff, (size_t)p->d_y.n * sizeof(float));
    args = backward_args(p, true, true);
    mt_expert_backward_rest(&p->device, &args, &weights, p->groups);
}

/* One group in double; act and its gradient are cut from the arena. */
static void expect_group(struct problem *p, struct mt_arena *arena, int g)
{
    const int64_t row = p->offset[g];
    const int64_t n = p->offset[g + 1] - row;
    const int64_t width = p->shape.width;
    const int64_t inner = p->shape.inner;
    double *gate = p->gate.d + row * inner;
    double *up = p->up.d + row * inner;
    const double *x = p->x.d + row * width;
    const double *d_y = p->d_y.d + row * width;
    const int64_t inner_bytes = n * inner * (int64_t)sizeof(double);
    double *act = mt_arena_cut(arena, inner_bytes);
    double *d_act = mt_arena_cut(arena, inner_bytes);
    double *d_gate = mt_arena_cut(arena, inner_bytes);
    double *d_up = mt_arena_cut(arena, inner_bytes);
    mt_ref_linear_forward(gate, x, p->w[GATE][g].d, n, inner, width);
    mt_ref_linear_forward(up, x, p->w[UP][g].d, n, inner, width);
    mt_ref_swiglu_forward(act, gate, up, p->row_weight.d + row, n, inner);
    mt_ref_linear_forward(p->y.d + row * width, act, p->w[DOWN][g].d, n, width, inner);

    memset(d_act, 0, (size_t)inner_bytes);
    memset(p->d_x.d + row * width, 0, (size_t)(n * width) * sizeof(double));
    mt_ref_linear_backward_input(d_act, d_y, p->w[DOWN][g].d, n, width, inner);
    const struct mt_ref_swiglu_backward swiglu = {d_gate, d_up, p->d_row_weight.d + row, d_act,
                                                  gate,   up,   p->row_weight.d + row};
    mt_ref_swiglu_backward(&swiglu, n, inner);
    mt_ref_linear_backward_weight(p->d_w[DOWN][g].d, d_y, act, n, width, inner);
    mt_ref_linear_backward_input(p->d_x.d + row * width, d_gate, p->w[GATE][g].d, n, inner, width);
    mt_ref_linear_backward_input(p->d_x.d + row * width, d_up, p->w[UP][g].d, n, inner, width);
    mt_ref_linear_backward_weight(p->d_w[GATE][g].d, d_gate, x, n, inner, width);
    mt_ref_linear_backward_weight(p->d_w[UP][g].d, d_up, x, n, inner, width);
}

static void expect(struct problem *p, struct mt_arena *arena, bool weighted)
{
    for (int64_t i = 0; !weighted && i < p->row_weight.n; i++) {
        p->row_weight.d[i] = 1.0;
    }
    for (int g = 0; g < p->shape.n_group; g++) {
        expect_group(p, arena, g);
    }
}

static void check_weights(struct problem *p)
{
    for (int g = 0; g < p->shape.n_group; g++) {
        for (int m = 0; m < N_MATRIX; m++) {
            PAIR_CLOSE(p->d_w[m][g], bound);
        }
    }
}

static void same_bits(const struct problem *a, const struct problem *b)
{
    PAIR_SAME(a->y, b->y);
    PAIR_SAME(a->gate, b->gate); /* their gradients, after backward */
    PAIR_SAME(a->up, b->up);
    PAIR_SAME(a->d_x, b->d_x);
    PAIR_SAME(a->d_row_weight, b->d_row_weight);
    for (int g = 0; g < a->shape.n_group; g++) {
        for (int m = 0; m < N_MATRIX; m++) {
            PAIR_SAME(a->d_w[m][g], b->d_w[m][g]);
        }
    }
}

static void values_match_the_reference(void **state)
{
    MT_UNUSED(state);
    static struct problem p;
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        const bool weighted = i % 2 != 0;
        mt_arena_release(&arena, 0);
        problem_init(&p, &arena, &cases[i / 2], 1 + i % 3);
        expect(&p, &arena, weighted);
        forward(&p, weighted);
        PAIR_CLOSE(p.y, bound);
        PAIR_CLOSE(p.gate, bound);
        PAIR_CLOSE(p.up, bound);
        backward(&p, weighted, false);
        PAIR_CLOSE(p.d_x, bound);
        if (weighted) {
            PAIR_CLOSE(p.d_row_weight, bound);
        }
        check_weights(&p);
    }
    mt_arena_clear(&arena);
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    MT_UNUSED(state);
    static struct problem one;
    static struct problem many;
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            mt_arena_release(&arena, 0);
            problem_init(&one, &arena, &cases[i], 1);
            problem_init(&many, &arena, &cases[i], n_thread);
            forward(&one, true);
            forward(&many, true);
            backward(&one, true, false);
            backward(&many, true, false);
            same_bits(&one, &many);
        }
    }
    mt_arena_clear(&arena);
}

/* The sequence that one call stands for. */
static void compute_apart(struct problem *p, struct mt_arena *arena)
{
    const int64_t n = p->offset[p->shape.n_group];
    const int64_t width = p->shape.width;
    const int64_t inner = p->shape.inner;
    float *act = mt_arena_cut(arena, n * inner * (int64_t)sizeof(float));
    mt_grouped_forward(&p->device, p->gate.f, p->x.f, p->weights[GATE], p->groups);
    mt_grouped_forward(&p->device, p->up.f, p->x.f, p->weights[UP], p->groups);
    mt_cpu_swiglu_forward(act, p->gate.f, p->up.f, p->row_weight.f, n, inner);
    mt_grouped_forward(&p->device, p->y.f, act, p->weights[DOWN], p->groups);
    mt_grouped_backward_input(&p->device, act, p->d_y.f, p->weights[DOWN], p->groups, false);
    const struct mt_cpu_swiglu_backward swiglu = {p->gate.f, p->up.f, p->d_row_weight.f, act, act,
                                                  p->gate.f, p->up.f, p->row_weight.f};
    mt_cpu_swiglu_backward(&swiglu, n, inner);
    mt_grouped_backward_weight(&p->device, p->grads[DOWN], p->d_y.f, act, width, inner, p->groups);
    mt_grouped_backward_input(&p->device, p->d_x.f, p->gate.f, p->weights[GATE], p->groups, false);
    mt_grouped_backward_input(&p->device, p->d_x.f, p->up.f, p->weights[UP], p->groups, true);
    mt_grouped_backward_weight(&p->device, p->grads[GATE], p->gate.f, p->x.f, inner, width,
                               p->groups);
    mt_grouped_backward_weight(&p->device, p->grads[UP], p->up.f, p->x.f, inner, width, p->groups);
}

/* Gradients of weights too, also of groups that are cut, and where rows are rounded. */
static void one_call_has_the_bits_of_the_operations_apart(void **state)
{
    MT_UNUSED(state);
    static struct problem fused;
    static struct problem apart;
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        const struct ragged *shape = &cases[i / 2];
        const enum mt_dtype dtype = i % 2 == 0 ? MT_FLOAT32 : MT_BFLOAT16;
        mt_arena_release(&arena, 0);
        problem_init_as(&fused, &arena, shape, 2, dtype);
        problem_init_as(&apart, &arena, shape, 1, dtype);
        forward(&fused, true);
        backward(&fused, true, false);
        compute_apart(&apart, &arena);
        same_bits(&fused, &apart);
    }
    mt_arena_clear(&arena);
}

static void gradients_that_were_left_have_the_same_bits(void **state)
{
    MT_UNUSED(state);
    static struct problem one;
    static struct problem two;
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        /* Rows of odd width in bfloat16 share words, which the emulated GPU takes for a race. */
        const bool is_rounded = i % 2 != 0 && cases[i / 2].inner % 2 == 0;
        const enum mt_dtype dtype = is_rounded ? MT_BFLOAT16 : MT_FLOAT32;
        mt_arena_release(&arena, 0);
        problem_init_as(&one, &arena, &cases[i / 2], 1, dtype);
        problem_init_as(&two, &arena, &cases[i / 2], 2, dtype);
        forward(&one, true);
        forward(&two, true);
        backward(&one, true, false);
        backward_in_two(&two);
        same_bits(&one, &two);
    }
    mt_arena_clear(&arena);
}

static void gradients_may_take_the_place_of_what_they_come_from(void **state)
{
    MT_UNUSED(state);
    static struct problem apart;
    static struct problem inside;
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        problem_init(&apart, &arena, &cases[i], 1);
        problem_init(&inside, &arena, &cases[i], 1);
        forward(&apart, true);
        forward(&inside, true);
        backward(&apart, true, false);
        backward(&inside, true, true);
        PAIR_SAME(apart.d_x, inside.d_y);
        inside.d_x = apart.d_x;
        same_bits(&apart, &inside);
    }
    mt_arena_clear(&arena);
}

/* Resident experts first, then the late ones: two calls do what one does. */
static void a_range_of_groups_gives_what_all_give(void **state)
{
    MT_UNUSED(state);
    static struct problem all;
    static struct problem parts;
    struct mt_arena arena;
    arena_init(&arena);
    problem_init(&all, &arena, &cases[4], 1);
    problem_init(&parts, &arena, &cases[4], 1);
    forward(&all, true);
    backward(&all, true, false);
    const int n_group = cases[4].n_group;
    for (int first = 0; first < n_group; first += 3) {
        struct problem part = parts;
        part.groups =
            (struct mt_groups){first + 3 < n_group ? 3 : n_group - first, parts.offset + first};
        for (int m = 0; m < N_MATRIX; m++) {
            for (int g = first; g < n_group; g++) {
                part.weights[m][g - first] = parts.weights[m][g];
                part.grads[m][g - first] = parts.grads[m][g];
            }
        }
        forward(&part, true);
        backward(&part, true, false);
    }
    same_bits(&all, &parts);
    mt_arena_clear(&arena);
}

/* More groups than a panel holds, most of a row or two. */
static void many_small_groups_match_the_reference(void **state)
{
    MT_UNUSED(state);
    static struct problem p;
    const struct ragged many = {MAX_GROUP, {1, 2, 0, 16, 1, 7, 0, 3, 8, 1}, 16, 24};
    struct mt_arena arena;
    arena_init(&arena);
    problem_init(&p, &arena, &many, 3);
    expect(&p, &arena, true);
    forward(&p, true);
    PAIR_CLOSE(p.y, bound);
    backward(&p, true, false);
    PAIR_CLOSE(p.d_x, bound);
    PAIR_CLOSE(p.d_row_weight, bound);
    check_weights(&p);
    mt_arena_clear(&arena);
}

static void no_group_is_no_work_and_a_warm_call_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    static struct problem p;
    struct mt_arena arena;
    arena_init(&arena);
    problem_init(&p, &arena, &cases[4], 2);
    const int64_t before = mt_memory_n_allocated();
    forward(&p, true);
    backward(&p, true, false);
    assert_int_equal(mt_memory_n_allocated(), before);
    p.groups.n_group = 0;
    forward(&p, true);
    backward(&p, true, false);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_the_reference),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(one_call_has_the_bits_of_the_operations_apart),
        cmocka_unit_test(gradients_that_were_left_have_the_same_bits),
        cmocka_unit_test(gradients_may_take_the_place_of_what_they_come_from),
        cmocka_unit_test(a_range_of_groups_gives_what_all_give),
        cmocka_unit_test(many_small_groups_match_the_reference),
        cmocka_unit_test(no_group_is_no_work_and_a_warm_call_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
