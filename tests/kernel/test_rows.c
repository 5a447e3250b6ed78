/* mt_rows_*: copies by offsets and sums of rows, absent ones included. */
#include "base/memory.h"
#include "kernel/pair.h"
#include "reference/rows.h"

static const int64_t cases[][3] = {{0, 2, 8},  {1, 1, 1},     {5, 2, 17}, {40, 3, 64},
                                   {7, 8, 65}, {129, 2, 130}, {3, 0, 9},  {300, 1, 100}};

/* A permutation of the rows [0, n): steps of a number without a common factor with n. */
static int64_t shuffled(int64_t i, int64_t n)
{
    return n % 7919 == 0 ? i : i * 7919 % n;
}

static void copies_follow_both_offsets(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 4 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = cases[i / 4][0];
        const int64_t width = cases[i / 4][2];
        const bool scatter = i % 2 != 0;
        const bool gather = i / 2 % 2 != 0;
        const struct pair in = pair_random(&arena, n * width, 1);
        int64_t *offset = mt_arena_cut(&arena, n * (int64_t)sizeof(int64_t));
        for (int64_t row = 0; row < n; row++) {
            offset[row] = shuffled(row, n) * width;
        }
        for (int n_thread = 1; n_thread <= 3; n_thread++) {
            struct mt_device device = device_of(n_thread);
            const struct pair out = pair_random(&arena, n * width, 2);
            mt_rows_copy(&device, out.f, scatter ? offset : NULL, in.f, gather ? offset : NULL, n,
                         width);
            for (int64_t row = 0; row < n; row++) {
                MT_TEST_SAME_BITS(out.f + (scatter ? offset[row] : row * width),
                                  in.f + (gather ? offset[row] : row * width), width);
            }
            pair_check_canaries(out);
        }
    }
    mt_arena_clear(&arena);
}

/* Whichever side says so; width 1 too, which is copied in another way. */
static void rows_of_negative_offset_are_left_out(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int64_t width = 1; width <= 33; width += 16) {
        const int64_t n = 50;
        const struct pair in = pair_random(&arena, n * width, 1);
        const struct pair out = pair_random(&arena, n * width, 2);
        const struct pair before = pair_random(&arena, n * width, 2);
        int64_t to[50];
        int64_t from[50];
        for (int64_t row = 0; row < n; row++) {
            to[row] = row % 3 == 0 ? -1 : row * width;
            from[row] = row % 5 == 0 ? -1 : row * width;
        }
        struct mt_device device = device_of(2);
        mt_rows_copy(&device, out.f, to, in.f, from, n, width);
        for (int64_t row = 0; row < n; row++) {
            const bool is_copied = row % 3 != 0 && row % 5 != 0;
            MT_TEST_SAME_BITS(out.f + row * width, (is_copied ? in.f : before.f) + row * width,
                              width);
        }
        pair_check_canaries(out);
    }
    mt_arena_clear(&arena);
}

/* 17 MiB, which are written past the caches: to places that suit that and to others. */
static void many_rows_are_copied_as_few(void **state)
{
    MT_UNUSED(state);
    enum { N = 16500, WIDTH = 260 };
    struct mt_device device = device_of(2);
    float *memory = NULL;
    float *in = NULL;
    int64_t *from = NULL;
    MT_TEST_OK(MT_ALLOCATE(memory, N * WIDTH + 1, "test"));
    MT_TEST_OK(MT_ALLOCATE(in, 100 * WIDTH, "test"));
    MT_TEST_OK(MT_ALLOCATE(from, N, "test"));
    for (int64_t i = 0; i < (int64_t)100 * WIDTH; i++) {
        in[i] = (float)i;
    }
    for (int64_t row = 0; row < N; row++) {
        from[row] = row % 9 == 4 ? -1 : row % 100 * WIDTH;
    }
    for (int64_t shift = 0; shift < 2; shift++) {
        float *out = memory + shift;
        memset(memory, 0, sizeof(*memory) * ((size_t)N * WIDTH + 1));
        mt_rows_copy(&device, out, NULL, in, from, N, WIDTH);
        for (int64_t row = 0; row < N; row++) {
            const float *want = in + (from[row] < 0 ? 0 : from[row]);
            for (int64_t i = 0; i < WIDTH; i++) {
                assert_true(out[row * WIDTH + i] == (from[row] < 0 ? 0.0F : want[i]));
            }
        }
    }
    mt_memory_free(memory);
    mt_memory_free(in);
    mt_memory_free(from);
}

/* Offsets [n * n_choice] into n * n_choice rows; every fifth is absent. */
static int64_t *make_offsets(struct mt_arena *arena, int64_t n_pair, int64_t width)
{
    int64_t *offset = mt_arena_cut(arena, n_pair * (int64_t)sizeof(int64_t));
    for (int64_t i = 0; i < n_pair; i++) {
        offset[i] = i % 5 == 3 ? -1 : shuffled(i, n_pair) * width;
    }
    return offset;
}

static void sums_match_the_reference_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    for (int i = 0; i < 2 * N_ITEM(cases); i++) {
        mt_arena_release(&arena, 0);
        const int64_t n = cases[i / 2][0];
        const int64_t n_choice = cases[i / 2][1];
        const int64_t width = cases[i / 2][2];
        const bool accumulate = i % 2 != 0;
        const struct pair in = pair_random(&arena, n * n_choice * width, 1);
        const int64_t *offset = make_offsets(&arena, n * n_choice, width);
        struct pair first = pair_random(&arena, n * width, 2);
        if (!accumulate) {
            memset(first.d, 0, (size_t)first.n * sizeof(double));
        }
        mt_ref_rows_combine(first.d, in.d, offset, n, n_choice, width);
        struct mt_rows_combine args = {first.f, in.f, offset, n_choice, width, accumulate};
        struct mt_device device = device_of(1);
        mt_rows_combine(&device, &args, n);
        PAIR_CLOSE(first, 1e-6);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            const struct pair other = pair_random(&arena, n * width, 2);
            args.out = other.f;
            device = device_of(n_thread);
            mt_rows_combine(&device, &args, n);
            PAIR_SAME(first, other);
        }
    }
    mt_arena_clear(&arena);
}

/* (1e8 + 1) - 1e8 is 0 in float32, 1 in another order. */
static void choices_are_summed_in_order(void **state)
{
    MT_UNUSED(state);
    const float in[] = {1e8F, 1.0F, -1e8F};
    const int64_t forth[] = {0, 1, 2};
    const int64_t back[] = {2, 0, 1};
    float out = 5.0F;
    struct mt_rows_combine args = {&out, in, forth, 3, 1, false};
    struct mt_device device = device_of(1);
    mt_rows_combine(&device, &args, 1);
    assert_true(out == 0.0F);
    args.in_offset = back;
    mt_rows_combine(&device, &args, 1);
    assert_true(out == 1.0F);
}

struct objective {
    struct pair in, out, d_out;
    const int64_t *offset;
};

static double objective(void *context)
{
    const struct objective *o = context;
    memset(o->out.d, 0, (size_t)o->out.n * sizeof(double));
    mt_ref_rows_combine(o->out.d, o->in.d, o->offset, 4, 3, 5);
    return weighted_sum(o->out.d, o->d_out.d, o->out.n);
}

static void reference_backward_matches_central_differences(void **state)
{
    MT_UNUSED(state);
    struct mt_arena arena;
    arena_init(&arena);
    struct objective o = {pair_random(&arena, 60, 1), pair_random(&arena, 20, 2),
                          pair_random(&arena, 20, 3), make_offsets(&arena, 12, 5)};
    const struct pair d_in = pair_random(&arena, 60, 4);
    memset(d_in.d, 0, 60 * sizeof(double));
    mt_ref_rows_combine_backward(d_in.d, o.d_out.d, o.offset, 4, 3, 5);
    PAIR_GRADIENT(objective, &o, o.in, d_in);
    mt_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_follow_both_offsets),
        cmocka_unit_test(rows_of_negative_offset_are_left_out),
        cmocka_unit_test(many_rows_are_copied_as_few),
        cmocka_unit_test(sums_match_the_reference_on_any_number_of_threads),
        cmocka_unit_test(choices_are_summed_in_order),
        cmocka_unit_test(reference_backward_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
