#include "moe/route.h"

#include "base/size.h"

#include <string.h>

enum { CUT_ALIGNMENT_BYTES = 64, N_ROUTE_CUT = 16 };

/* Scratch of one build. */
struct cursors {
    int64_t *place; /* [n_instance] next row of the send order for this instance */
    int64_t *left;  /* [n_instance] rows still to be dealt to it */
    int64_t *next;  /* [E] the instance that gets the expert's next row */
    int64_t *start; /* [R+1] first row of a rank's block */
    int64_t *taken; /* [R] rows of a rank's block that have found their group */
};

static int64_t *cut_i64(struct mt_arena *arena, int64_t n)
{
    return mt_arena_cut(arena, n * (int64_t)sizeof(int64_t));
}

static void prefix_sums(int64_t *start, const int64_t *count, int n)
{
    start[0] = 0;
    for (int i = 0; i < n; ++i) {
        start[i + 1] = start[i] + count[i];
    }
}

/* Rows to each target and from each source, and the instances that are here. */
static void count_rows(struct mt_route *route, const struct mt_route_input *input)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    memset(route->send_count, 0, (size_t)route->n_rank * sizeof(int64_t));
    memset(route->recv_count, 0, (size_t)route->n_rank * sizeof(int64_t));
    for (int64_t i = 0; i < n_instance; ++i) {
        const int target = placement->rank[i];
        route->send_count[target] += input->quota[input->rank * n_instance + i];
        if (target != input->rank) {
            continue;
        }
        for (int source = 0; source < route->n_rank; ++source) {
            route->recv_count[source] += input->quota[source * n_instance + i];
        }
        ++route->n_group;
    }
    for (int source = 0; source < route->n_rank; ++source) {
        route->n_row += route->recv_count[source];
    }
}

/* Where the rows of each instance begin in this rank's send order. */
static void place_instances(struct cursors *cursors, const struct mt_route *route,
                            const struct mt_route_input *input)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    const int64_t *quota = input->quota + input->rank * n_instance;
    prefix_sums(cursors->start, route->send_count, route->n_rank);
    memset(cursors->taken, 0, (size_t)route->n_rank * sizeof(int64_t));
    for (int64_t i = 0; i < n_instance; ++i) {
        const int target = placement->rank[i];
        cursors->place[i] = cursors->start[target] + cursors->taken[target];
        cursors->left[i] = quota[i];
        cursors->taken[target] += quota[i];
    }
    for (int e = 0; e < placement->n_expert; ++e) {
        cursors->next[e] = placement->instance_start[e];
    }
}

static void route_choices(struct mt_route *route, const struct mt_route_input *input,
                          struct cursors *cursors)
{
    const struct mt_placement *placement = input->placement;
    const int64_t width = route->width;
    place_instances(cursors, route, input);
    for (int64_t choice = 0; choice < route->n_choice; ++choice) {
        const int32_t e = input->expert[choice];
        int64_t i = cursors->next[e];
        while (i < placement->instance_start[e + 1] && cursors->left[i] == 0) {
            ++i;
        }
        MT_ASSERT(i < placement->instance_start[e + 1]);
        cursors->next[e] = i;
        --cursors->left[i];
        const int target = placement->rank[i];
        const int64_t row = cursors->place[i]++;
        const int64_t block = cursors->start[target];
        const int64_t within = row - block;
        const int64_t block_offset = block * (width + 1);
        route->send_wide[choice] = block_offset + within * width;
        route->send_weight[choice] = block_offset + route->send_count[target] * width + within;
        route->send_narrow[choice] = row * width;
    }
}

/* The rows of one instance here, source after source. Returns the row after the last. */
static int64_t route_instance(struct mt_route *route, const struct mt_route_input *input,
                              struct cursors *cursors, int64_t instance, int64_t row)
{
    const int64_t n_instance = mt_placement_n_instance(input->placement);
    const int64_t width = route->width;
    for (int source = 0; source < route->n_rank; ++source) {
        const int64_t n = input->quota[source * n_instance + instance];
        const int64_t block = cursors->start[source];
        const int64_t block_offset = block * (width + 1);
        const int64_t weight_offset = block_offset + route->recv_count[source] * width;
        for (int64_t i = 0; i < n; ++i) {
            const int64_t within = cursors->taken[source] + i;
            route->recv_wide[row] = block_offset + within * width;
            route->recv_weight[row] = weight_offset + within;
            route->recv_narrow[row] = (block + within) * width;
            ++row;
        }
        cursors->taken[source] += n;
    }
    return row;
}

static void route_arrivals(struct mt_route *route, const struct mt_route_input *input,
                           struct cursors *cursors)
{
    const struct mt_placement *placement = input->placement;
    int group = 0;
    int64_t row = 0;
    prefix_sums(cursors->start, route->recv_count, route->n_rank);
    memset(cursors->taken, 0, (size_t)route->n_rank * sizeof(int64_t));
    route->group_offset[0] = 0;
    for (int e = 0; e < placement->n_expert; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            if (placement->rank[i] == input->rank) {
                row = route_instance(route, input, cursors, i, row);
                route->group_expert[group] = e;
                route->group_offset[++group] = row;
            }
        }
    }
    MT_ASSERT(group == route->n_group && row == route->n_row);
}

struct mt_route *mt_route_build(const struct mt_route_input *input, struct mt_arena *arena)
{
    const int n_rank = input->placement->n_rank;
    const int64_t n_instance = mt_placement_n_instance(input->placement);
    struct mt_route *route = mt_arena_cut(arena, (int64_t)sizeof(*route));
    *route =
        (struct mt_route){.width = input->width, .n_choice = input->n_choice, .n_rank = n_rank};
    route->send_count = cut_i64(arena, n_rank);
    route->recv_count = cut_i64(arena, n_rank);
    count_rows(route, input);
    route->send_wide = cut_i64(arena, route->n_choice);
    route->send_weight = cut_i64(arena, route->n_choice);
    route->send_narrow = cut_i64(arena, route->n_choice);
    route->recv_wide = cut_i64(arena, route->n_row);
    route->recv_weight = cut_i64(arena, route->n_row);
    route->recv_narrow = cut_i64(arena, route->n_row);
    route->group_expert = mt_arena_cut(arena, route->n_group * (int64_t)sizeof(int));
    route->group_offset = cut_i64(arena, route->n_group + 1);

    const int64_t mark = mt_arena_mark(arena);
    struct cursors cursors = {.place = cut_i64(arena, n_instance),
                              .left = cut_i64(arena, n_instance),
                              .next = cut_i64(arena, input->placement->n_expert),
                              .start = cut_i64(arena, n_rank + 1),
                              .taken = cut_i64(arena, n_rank)};
    route_choices(route, input, &cursors);
    route_arrivals(route, input, &cursors);
    mt_arena_release(arena, mark);
    return route;
}

bool mt_route_bytes_max(int n_rank, int64_t n_expert, int64_t max_instance, int64_t n_choice,
                        int64_t n_row, int64_t *n_bytes)
{
    /* Per rank, expert and instance: at most five words of counts, cursors and groups. */
    const int64_t fixed = (int64_t)sizeof(struct mt_route) +
                          (int64_t)N_ROUTE_CUT * CUT_ALIGNMENT_BYTES +
                          5 * (int64_t)sizeof(int64_t) * (n_rank + n_expert + max_instance + 2);
    int64_t rows = 0;
    int64_t row_bytes = 0;
    return mt_size_add(n_choice, n_row, &rows) &&
           mt_size_multiply(rows, 3 * (int64_t)sizeof(int64_t), &row_bytes) &&
           mt_size_add(row_bytes, fixed, n_bytes);
}
