/* Routes of random cases, all ranks in one process: the exchange is simulated by copying blocks. */
#include "base/random.h"
#include "base/size.h"
#include "moe/route.h"
#include "support/test.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RANK = 64, MAX_EXPERT = 24, MAX_TOKEN = 12, MAX_CHOICE = 4 * MAX_TOKEN, WIDTH = 3 };

static const size_t ROW_BYTES = WIDTH * sizeof(float);

/* A stream of small random integers. */
struct dice {
    uint64_t seed, thrown;
};

static int64_t throw_dice(struct dice *dice, int64_t bound)
{
    return (int64_t)(mt_random_u64(dice->seed, 7, dice->thrown++) % (uint64_t)bound);
}

/* How a case draws tokens and experts. */
enum skew { EVEN, ALL_TO_ONE, SOME_RANKS_EMPTY, ONE_RANK_HAS_ALL };

struct world {
    int n_rank, n_expert, top_k;
    int64_t slice_rows;
    struct mt_placement placement;
    int64_t n_token[MAX_RANK];
    int32_t expert[MAX_RANK][MAX_CHOICE];
    int64_t counts[MAX_RANK * MAX_EXPERT];
    int64_t quota[MAX_RANK * MAX_RANK * MAX_EXPERT];
    struct mt_arena arena[MAX_RANK];
    struct mt_route *route[MAX_RANK];
    struct mt_arrivals arrivals[MAX_RANK];
    float *near[MAX_RANK], *far[MAX_RANK];
};

/* Every expert on its owner and, with probability 1/3, on each other rank. */
static void draw_placement(struct world *world, struct dice *dice, bool with_replicas)
{
    struct mt_placement *placement = &world->placement;
    MT_TEST_OK(mt_placement_init(placement, world->n_rank, world->n_expert,
                                 world->n_rank * world->n_expert));
    int n = 0;
    for (int e = 0; e < world->n_expert; ++e) {
        placement->owner[e] = (int)throw_dice(dice, world->n_rank);
        placement->instance_start[e] = n;
        for (int r = 0; r < world->n_rank; ++r) {
            const bool is_copy = with_replicas && throw_dice(dice, 3) == 0;
            if (r == placement->owner[e] || is_copy) {
                placement->is_late[n] = r != placement->owner[e] && throw_dice(dice, 2) == 0;
                placement->rank[n++] = r;
            }
        }
    }
    placement->instance_start[world->n_expert] = n;
}

/* K different experts for one token, from a first one by a stride. */
static void draw_token(struct world *world, struct dice *dice, enum skew skew, int rank,
                       int64_t token)
{
    const int64_t first = skew == ALL_TO_ONE ? 0 : throw_dice(dice, world->n_expert);
    const int64_t stride = skew == ALL_TO_ONE ? 1 : 1 + 2 * throw_dice(dice, 3);
    bool is_taken[MAX_EXPERT] = {false};
    for (int64_t k = 0; k < world->top_k; ++k) {
        int64_t e = (first + k * stride) % world->n_expert;
        while (is_taken[e]) {
            e = (e + 1) % world->n_expert;
        }
        is_taken[e] = true;
        world->expert[rank][token * world->top_k + k] = (int32_t)e;
        ++world->counts[(int64_t)rank * world->n_expert + e];
    }
}

static void draw_choices(struct world *world, struct dice *dice, enum skew skew)
{
    memset(world->counts, 0, sizeof(world->counts));
    for (int r = 0; r < world->n_rank; ++r) {
        world->n_token[r] = throw_dice(dice, MAX_TOKEN + 1);
        if ((skew == SOME_RANKS_EMPTY && throw_dice(dice, 2) == 0) ||
            (skew == ONE_RANK_HAS_ALL && r != world->n_rank - 1)) {
            world->n_token[r] = 0;
        }
        for (int64_t t = 0; t < world->n_token[r]; ++t) {
            draw_token(world, dice, skew, r, t);
        }
    }
}

/* Any quota that adds up, not only those that a split would make. */
static void draw_quota(struct world *world, struct dice *dice)
{
    const struct mt_placement *placement = &world->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    for (int r = 0; r < world->n_rank; ++r) {
        for (int e = 0; e < world->n_expert; ++e) {
            int64_t left = world->counts[r * world->n_expert + e];
            const int last = placement->instance_start[e + 1] - 1;
            for (int i = placement->instance_start[e]; i <= last; ++i) {
                const int64_t part = i == last ? left : throw_dice(dice, left + 1);
                world->quota[r * n_instance + i] = part;
                left -= part;
            }
        }
    }
}

static void allocate_arrivals(struct world *world, int r)
{
    struct mt_arrivals *arrivals = &world->arrivals[r];
    MT_TEST_OK(MT_ALLOCATE(arrivals->wide, world->slice_rows, "arrivals"));
    MT_TEST_OK(MT_ALLOCATE(arrivals->weight, world->slice_rows, "arrivals"));
    MT_TEST_OK(MT_ALLOCATE(arrivals->narrow, world->slice_rows, "arrivals"));
    MT_TEST_OK(MT_ALLOCATE(arrivals->group_start, world->n_expert + 1, "arrivals"));
    MT_TEST_OK(MT_ALLOCATE(arrivals->taken, world->n_rank, "arrivals"));
}

static void build_routes(struct world *world)
{
    int64_t n_row = 0;
    for (int r = 0; r < world->n_rank; ++r) {
        n_row += world->n_token[r] * world->top_k;
    }
    for (int r = 0; r < world->n_rank; ++r) {
        const int64_t n_choice = world->n_token[r] * world->top_k;
        const struct mt_route_size size = {.n_rank = world->n_rank,
                                           .n_expert = world->n_expert,
                                           .max_instance = world->placement.max_instance,
                                           .n_choice = n_choice,
                                           .n_row = n_row,
                                           .slice_rows = world->slice_rows};
        int64_t n_bytes = 0;
        assert_true(mt_route_bytes_max(&size, &n_bytes));
        MT_TEST_OK(mt_arena_init(&world->arena[r], n_bytes, "route"));
        const struct mt_route_input input = {.rank = r,
                                             .width = WIDTH,
                                             .slice_rows = world->slice_rows,
                                             .own_offset = n_choice * (WIDTH + 1),
                                             .own_weight_offset =
                                                 n_choice * (WIDTH + 1) + world->slice_rows * WIDTH,
                                             .placement = &world->placement,
                                             .quota = world->quota,
                                             .expert = world->expert[r],
                                             .n_choice = n_choice};
        world->route[r] = mt_route_build(&input, &world->arena[r]);
        const int64_t n_near = n_choice + world->slice_rows; /* rows computed here are behind */
        MT_TEST_OK(MT_ALLOCATE(world->near[r], n_near * (WIDTH + 1), "near"));
        MT_TEST_OK(MT_ALLOCATE(world->far[r], world->slice_rows * (WIDTH + 1), "far"));
        allocate_arrivals(world, r);
    }
}

static void make_world(struct world *world, uint64_t seed)
{
    struct dice dice = {seed, 0};
    world->n_rank = 1 + (int)throw_dice(&dice, seed % 16 == 0 ? MAX_RANK : 9);
    world->n_expert = 1 + (int)throw_dice(&dice, MAX_EXPERT);
    world->top_k = 1 + (int)throw_dice(&dice, mt_min_i64(4, world->n_expert));
    const enum skew skew = (enum skew)throw_dice(&dice, 4);
    draw_placement(world, &dice, throw_dice(&dice, 2) == 0);
    draw_choices(world, &dice, skew);
    draw_quota(world, &dice);
    world->slice_rows = 1 + throw_dice(&dice, seed % 3 == 0 ? 6 : 400);
    build_routes(world);
}

static void clear_world(struct world *world)
{
    for (int r = 0; r < world->n_rank; ++r) {
        mt_memory_free(world->near[r]);
        mt_memory_free(world->far[r]);
        mt_memory_free(world->arrivals[r].wide);
        mt_memory_free(world->arrivals[r].weight);
        mt_memory_free(world->arrivals[r].narrow);
        mt_memory_free(world->arrivals[r].group_start);
        mt_memory_free(world->arrivals[r].taken);
        mt_arena_clear(&world->arena[r]);
    }
    mt_placement_clear(&world->placement);
}

/* One slice's blocks of rows of `floats` from one side to the other, as the all-to-all would move
 * them. */
static void exchange(struct world *world, int slice, bool outward, int64_t floats)
{
    const int64_t first = (int64_t)slice * world->n_rank;
    for (int to = 0; to < world->n_rank; ++to) {
        const struct mt_route *receiver = world->route[to];
        int64_t at = outward ? 0 : receiver->send_start[slice];
        for (int from = 0; from < world->n_rank; ++from) {
            const struct mt_route *sender = world->route[from];
            const int64_t *send = (outward ? sender->send_count : sender->recv_count) + first;
            const int64_t *recv = (outward ? receiver->recv_count : receiver->send_count) + first;
            const float *in = outward ? world->near[from] : world->far[from];
            float *out = outward ? world->far[to] : world->near[to];
            int64_t start = outward ? sender->send_start[slice] : 0;
            for (int r = 0; r < to; ++r) {
                start += send[r];
            }
            assert_int_equal(send[to], recv[from]);
            memcpy(out + at * floats, in + start * floats,
                   (size_t)(send[to] * floats) * sizeof(float));
            at += send[to];
        }
    }
}

/* What a row carries: who it is. */
static void write_row(float *row, int rank, int64_t choice, int32_t expert)
{
    row[0] = (float)rank;
    row[1] = (float)choice;
    row[2] = (float)expert;
}

static float row_mark(int rank, int64_t choice)
{
    return (float)rank * 1000.0F + (float)choice + 0.5F;
}

static void pack_sources(struct world *world)
{
    for (int r = 0; r < world->n_rank; ++r) {
        const struct mt_route *route = world->route[r];
        assert_int_equal(route->n_choice, world->n_token[r] * world->top_k);
        for (int64_t c = 0; c < route->n_choice; ++c) {
            write_row(world->near[r] + route->send_wide[c], r, c, world->expert[r][c]);
            world->near[r][route->send_weight[c]] = row_mark(r, c);
        }
    }
}

/* Choices that stay are those that the rows here come from. */
static void check_own(const struct world *world, int r)
{
    const struct mt_route *route = world->route[r];
    int64_t *choice = NULL;
    if (!route->keeps_own) {
        return;
    }
    MT_TEST_OK(MT_ALLOCATE(choice, route->n_row, "choices"));
    mt_route_own_choices(route, choice);
    for (int64_t i = 0; i < route->n_row; ++i) {
        assert_true((choice[i] < 0) == (world->arrivals[r].wide[i] >= 0));
        if (choice[i] >= 0) {
            assert_int_equal(route->send_wide[choice[i]], route->own_offset + i * WIDTH);
        }
    }
    mt_memory_free(choice);
}

/* Rows of a target lie resident first, by expert, then source, then token; returns how many the
 * slice has. */
static int64_t check_arrivals(struct world *world, int r, int slice)
{
    const struct mt_route *route = world->route[r];
    struct mt_arrivals *arrivals = &world->arrivals[r];
    mt_route_arrivals(route, slice, arrivals);
    assert_true(arrivals->n_row <= world->slice_rows);
    assert_int_equal(arrivals->group_start[arrivals->n_group], arrivals->n_row);
    check_own(world, r);
    for (int g = 0; g < arrivals->n_group; ++g) {
        const int expert = route->group_expert[arrivals->first_group + g];
        const int instance = mt_placement_find(&world->placement, expert, r);
        float previous = -1.0F;
        assert_true(world->placement.is_late[instance] == (g >= arrivals->n_resident));
        for (int64_t i = arrivals->group_start[g]; i < arrivals->group_start[g + 1]; ++i) {
            const bool is_own = arrivals->wide[i] < 0;
            const float *own = world->near[r] + route->own_offset + i * WIDTH;
            const float *row = is_own ? own : world->far[r] + arrivals->wide[i];
            const float mark = is_own ? world->near[r][route->own_weight_offset + i]
                                      : world->far[r][arrivals->weight[i]];
            assert_true(is_own == (route->keeps_own && (int)row[0] == r));
            assert_true((int)row[2] == expert);
            assert_true(mark == row_mark((int)row[0], (int64_t)row[1]));
            assert_true(mark > previous); /* marks grow with source, then token */
            previous = mark;
        }
    }
    return arrivals->n_row;
}

/* What a rank got in one layout leaves it in the other. */
static void turn_rows(struct world *world, int r, bool is_wide)
{
    const struct mt_arrivals *arrivals = &world->arrivals[r];
    const int64_t *in = is_wide ? arrivals->wide : arrivals->narrow;
    const int64_t *out = is_wide ? arrivals->narrow : arrivals->wide;
    float *rows = NULL;
    MT_TEST_OK(MT_ALLOCATE(rows, arrivals->n_row * WIDTH, "rows"));
    for (int64_t i = 0; i < arrivals->n_row; ++i) {
        if (in[i] >= 0) {
            memcpy(rows + i * WIDTH, world->far[r] + in[i], ROW_BYTES);
        } else if (!is_wide) {
            const float *own = world->near[r] + world->route[r]->own_offset + i * WIDTH;
            world->near[r][world->route[r]->own_weight_offset + i] =
                row_mark((int)own[0], (int64_t)own[1]);
        }
    }
    for (int64_t i = 0; i < arrivals->n_row; ++i) {
        if (out[i] >= 0) {
            memcpy(world->far[r] + out[i], rows + i * WIDTH, ROW_BYTES);
        }
        if (!is_wide && out[i] >= 0) {
            const float *row = rows + i * WIDTH;
            world->far[r][arrivals->weight[i]] = row_mark((int)row[0], (int64_t)row[1]);
        }
    }
    mt_memory_free(rows);
}

static void check_restored(const struct world *world)
{
    for (int r = 0; r < world->n_rank; ++r) {
        for (int64_t c = 0; c < world->route[r]->n_choice; ++c) {
            float want[WIDTH];
            write_row(want, r, c, world->expert[r][c]);
            assert_memory_equal(world->near[r] + world->route[r]->send_narrow[c], want,
                                sizeof(want));
        }
    }
}

/* Forward: wide rows out, narrow ones back, slices upwards. */
static void permute_then_unpermute_restores_rows(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    for (uint64_t seed = 0; seed < 3000; ++seed) {
        int64_t n_sent = 0;
        int64_t n_arrived = 0;
        make_world(world, seed);
        pack_sources(world);
        for (int slice = 0; slice < world->route[0]->n_slice; ++slice) {
            exchange(world, slice, true, WIDTH + 1);
            for (int r = 0; r < world->n_rank; ++r) {
                n_arrived += check_arrivals(world, r, slice);
                turn_rows(world, r, true);
            }
            exchange(world, slice, false, WIDTH);
        }
        for (int r = 0; r < world->n_rank; ++r) {
            n_sent += world->n_token[r] * world->top_k;
            assert_int_equal(world->route[r]->n_slice, world->route[0]->n_slice);
        }
        assert_int_equal(n_sent, n_arrived);
        check_restored(world);
        clear_world(world);
    }
    free(world);
}

/* Backward: narrow rows out, wide ones back, slices downwards. */
static void gradients_find_their_way_back(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    for (uint64_t seed = 0; seed < 1000; ++seed) {
        make_world(world, seed);
        for (int r = 0; r < world->n_rank; ++r) {
            for (int64_t c = 0; c < world->route[r]->n_choice; ++c) {
                write_row(world->near[r] + world->route[r]->send_narrow[c], r, c,
                          world->expert[r][c]);
            }
        }
        for (int slice = world->route[0]->n_slice - 1; slice >= 0; --slice) {
            exchange(world, slice, true, WIDTH);
            for (int r = 0; r < world->n_rank; ++r) {
                mt_route_arrivals(world->route[r], slice, &world->arrivals[r]);
                turn_rows(world, r, false);
            }
            exchange(world, slice, false, WIDTH + 1);
        }
        for (int r = 0; r < world->n_rank; ++r) {
            for (int64_t c = 0; c < world->route[r]->n_choice; ++c) {
                float want[WIDTH];
                write_row(want, r, c, world->expert[r][c]);
                assert_memory_equal(world->near[r] + world->route[r]->send_wide[c], want,
                                    sizeof(want));
                assert_true(world->near[r][world->route[r]->send_weight[c]] == row_mark(r, c));
            }
        }
        clear_world(world);
    }
    free(world);
}

/* Expert 0 on ranks 0 and 1, expert 1 on rank 1; source 0 has three rows for expert 0, of which the
 * quota gives one to rank 0. */
static void rows_are_dealt_to_instances_in_order(void **state)
{
    (void)state;
    struct mt_placement placement;
    struct mt_arena arena;
    MT_TEST_OK(mt_placement_init(&placement, 2, 2, 3));
    memcpy(placement.owner, (int[]){0, 1}, 2 * sizeof(int));
    memcpy(placement.instance_start, (int[]){0, 2, 3}, 3 * sizeof(int));
    memcpy(placement.rank, (int[]){0, 1, 1}, 3 * sizeof(int));
    const int64_t quota[] = {1, 2, 1, 0, 4, 0};
    const int32_t expert[] = {0, 1, 0, 0};
    MT_TEST_OK(mt_arena_init(&arena, 16384, "route"));
    const struct mt_route_input input = {.rank = 0,
                                         .width = 10,
                                         .slice_rows = 8,
                                         .own_offset = 48,
                                         .own_weight_offset = 128,
                                         .placement = &placement,
                                         .quota = quota,
                                         .expert = expert,
                                         .n_choice = 4};
    const struct mt_route *route = mt_route_build(&input, &arena);
    const int64_t wide[] = {48, 20, 0, 10}; /* one row stays; block of rank 1: 3 rows */
    const int64_t weight[] = {128, 32, 30, 31};
    const int64_t narrow[] = {48, 20, 0, 10};
    assert_memory_equal(route->send_wide, wide, sizeof(wide));
    assert_memory_equal(route->send_weight, weight, sizeof(weight));
    assert_memory_equal(route->send_narrow, narrow, sizeof(narrow));
    assert_int_equal(route->send_count[0], 0);
    assert_int_equal(route->send_count[1], 3);
    assert_int_equal(route->n_group, 1);
    assert_int_equal(route->n_row, 1);
    mt_arena_clear(&arena);
    mt_placement_clear(&placement);
}

static void sizes_beyond_32_bits_are_planned_and_overflow_is_refused(void **state)
{
    (void)state;
    int64_t n_bytes = 0;
    const int64_t n_row = (int64_t)1 << 36;
    struct mt_route_size size = {.n_rank = 1024,
                                 .n_expert = 65536,
                                 .max_instance = 65536,
                                 .n_choice = n_row,
                                 .n_row = 16 * n_row,
                                 .slice_rows = n_row};
    assert_true(mt_route_bytes_max(&size, &n_bytes));
    assert_true(n_bytes > 24 * n_row);
    size.n_choice = INT64_MAX / 8;
    assert_false(mt_route_bytes_max(&size, &n_bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permute_then_unpermute_restores_rows),
        cmocka_unit_test(gradients_find_their_way_back),
        cmocka_unit_test(rows_are_dealt_to_instances_in_order),
        cmocka_unit_test(sizes_beyond_32_bits_are_planned_and_overflow_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
