#include "moe/route.h"

#include "base/size.h"

#include <string.h>

enum { CUT_ALIGNMENT_BYTES = 64, N_ROUTE_CUT = 20 };

/* Scratch of one build. */
struct cursors {
    int64_t *at;    /* [n_instance] row at the target of this source's next row for it */
    int64_t *left;  /* [n_instance] rows still to be dealt to it */
    int64_t *place; /* [n_instance] the same row in the send order */
    int64_t *block; /* [n_slice, R] first row of a block in the send order */
    int64_t *next;  /* [E] the instance that gets the expert's next row */
    int64_t *rows;  /* [R] rows of each target so far */
};

static int64_t *cut_i64(struct mt_arena *arena, int64_t n)
{
    return mt_arena_cut(arena, n * (int64_t)sizeof(int64_t));
}

static int64_t rows_of_instance(const struct mt_route_input *input, int64_t instance)
{
    const int64_t n_instance = mt_placement_n_instance(input->placement);
    int64_t n = 0;
    for (int source = 0; source < input->placement->n_rank; ++source) {
        n += input->quota[source * n_instance + instance];
    }
    return n;
}

/* Where each instance's rows from this rank begin at its target, resident instances first. */
static void place_at_targets(struct cursors *cursors, struct mt_route *route,
                             const struct mt_route_input *input)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    int64_t most = 0;
    memset(cursors->rows, 0, (size_t)route->n_rank * sizeof(int64_t));
    for (int late = 0; late <= 1; ++late) {
        for (int64_t i = 0; i < n_instance; ++i) {
            if ((int)placement->is_late[i] != late) {
                continue;
            }
            int64_t *rows = &cursors->rows[placement->rank[i]];
            cursors->at[i] = *rows;
            for (int source = 0; source < input->rank; ++source) {
                cursors->at[i] += input->quota[source * n_instance + i];
            }
            cursors->left[i] = input->quota[input->rank * n_instance + i];
            *rows += rows_of_instance(input, i);
            most = mt_max_i64(most, *rows);
        }
    }
    route->n_row = cursors->rows[input->rank];
    route->n_slice = (int)mt_max_i64(1, mt_ceil_div(most, route->slice_rows));
    route->keeps_own = route->n_slice == 1;
}

/* Whether rows between this rank and `peer` travel. */
static bool is_travelling(const struct mt_route *route, int peer)
{
    return !route->keeps_own || peer != route->rank;
}

/* A run of rows at a target, cut at the borders of slices: adds to count [n_slice, R]. */
static void count_run(const struct mt_route *route, int64_t *count, int peer, int64_t first,
                      int64_t n)
{
    while (n > 0 && is_travelling(route, peer)) {
        const int64_t slice = first / route->slice_rows;
        const int64_t part = mt_min_i64(n, (slice + 1) * route->slice_rows - first);
        count[slice * route->n_rank + peer] += part;
        first += part;
        n -= part;
    }
}

static void count_sends(struct mt_route *route, const struct mt_route_input *input,
                        struct cursors *cursors)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    const int64_t n_block = (int64_t)route->n_slice * route->n_rank;
    memset(route->send_count, 0, (size_t)n_block * sizeof(int64_t));
    for (int64_t i = 0; i < n_instance; ++i) {
        count_run(route, route->send_count, placement->rank[i], cursors->at[i], cursors->left[i]);
    }
    int64_t row = 0;
    for (int slice = 0; slice < route->n_slice; ++slice) {
        route->send_start[slice] = row;
        for (int r = 0; r < route->n_rank; ++r) {
            const int64_t at = (int64_t)slice * route->n_rank + r;
            cursors->block[at] = row;
            row += route->send_count[at];
        }
    }
    route->send_start[route->n_slice] = row;
}

/* Where the rows of each instance begin in this rank's send order: behind those of the instances
 * before it, which a block holds in the target's order. Blocks' starts serve as counters and are
 * set back afterwards. */
static void place_instances(struct cursors *cursors, const struct mt_route *route,
                            const struct mt_placement *placement)
{
    const int64_t n_instance = mt_placement_n_instance(placement);
    const int64_t n_block = (int64_t)route->n_slice * route->n_rank;
    for (int late = 0; late <= 1; ++late) {
        for (int64_t i = 0; i < n_instance; ++i) {
            if ((int)placement->is_late[i] != late || cursors->left[i] == 0) {
                continue;
            }
            const int64_t slice = cursors->at[i] / route->slice_rows;
            cursors->place[i] = cursors->block[slice * route->n_rank + placement->rank[i]];
            count_run(route, cursors->block, placement->rank[i], cursors->at[i], cursors->left[i]);
        }
    }
    for (int64_t b = 0; b < n_block; ++b) {
        cursors->block[b] -= route->send_count[b];
    }
}

/* The send offsets of one choice that goes to instance i. */
static void route_choice(struct mt_route *route, struct cursors *cursors, int64_t choice, int64_t i,
                         int target)
{
    const int64_t width = route->width;
    if (!is_travelling(route, target)) {
        const int64_t row = cursors->at[i]++;
        route->send_wide[choice] = route->own_offset + row * width;
        route->send_weight[choice] = route->own_weight_offset + row;
        route->send_narrow[choice] = route->own_offset + row * width;
        --cursors->left[i];
        return;
    }
    const int64_t block = cursors->at[i] / route->slice_rows * route->n_rank + target;
    const int64_t start = cursors->block[block];
    const int64_t row = cursors->place[i]++;
    const int64_t within = row - start;
    const int64_t wide = start * (width + 1);
    route->send_wide[choice] = wide + within * width;
    route->send_weight[choice] = wide + route->send_count[block] * width + within;
    route->send_narrow[choice] = row * width;
    ++cursors->at[i];
    --cursors->left[i];
    if (cursors->left[i] > 0 && cursors->at[i] % route->slice_rows == 0) {
        /* The instance fills the border, so nothing stands before it in the next block. */
        cursors->place[i] = cursors->block[block + route->n_rank];
    }
}

static void route_choices(struct mt_route *route, const struct mt_route_input *input,
                          struct cursors *cursors)
{
    const struct mt_placement *placement = input->placement;
    for (int e = 0; e < placement->n_expert; ++e) {
        cursors->next[e] = placement->instance_start[e];
    }
    for (int64_t choice = 0; choice < route->n_choice; ++choice) {
        const int32_t e = input->expert[choice];
        int64_t i = cursors->next[e];
        while (i < placement->instance_start[e + 1] && cursors->left[i] == 0) {
            ++i;
        }
        MT_ASSERT(i < placement->instance_start[e + 1]);
        cursors->next[e] = i;
        route_choice(route, cursors, choice, i, placement->rank[i]);
    }
}

static void count_groups(struct mt_route *route, const struct mt_route_input *input)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_instance = mt_placement_n_instance(placement);
    for (int64_t i = 0; i < n_instance; ++i) {
        if (placement->rank[i] == input->rank) {
            ++route->n_group;
            route->n_resident += placement->is_late[i] ? 0 : 1;
        }
    }
}

/* One group: an instance here. Its rows by source are counted into slices. */
static void fill_group(struct mt_route *route, const struct mt_route_input *input, int group,
                       int64_t instance)
{
    const int64_t n_instance = mt_placement_n_instance(input->placement);
    int64_t row = route->group_offset[group];
    for (int source = 0; source < route->n_rank; ++source) {
        const int64_t n = input->quota[source * n_instance + instance];
        route->group_from[(int64_t)group * route->n_rank + source] = n;
        count_run(route, route->recv_count, source, row, n);
        row += n;
    }
    route->group_offset[group + 1] = row;
}

static void fill_groups(struct mt_route *route, const struct mt_route_input *input)
{
    const struct mt_placement *placement = input->placement;
    const int64_t n_block = (int64_t)route->n_slice * route->n_rank;
    int group = 0;
    memset(route->recv_count, 0, (size_t)n_block * sizeof(int64_t));
    route->group_offset[0] = 0;
    for (int late = 0; late <= 1; ++late) {
        for (int e = 0; e < placement->n_expert; ++e) {
            const int i = mt_placement_find(placement, e, input->rank);
            if (i >= 0 && (int)placement->is_late[i] == late) {
                route->group_expert[group] = e;
                fill_group(route, input, group, i);
                ++group;
            }
        }
    }
    MT_ASSERT(group == route->n_group && route->group_offset[group] == route->n_row);
}

struct mt_route *mt_route_build(const struct mt_route_input *input, struct mt_arena *arena)
{
    const int n_rank = input->placement->n_rank;
    const int64_t n_instance = mt_placement_n_instance(input->placement);
    struct mt_route *route = mt_arena_cut(arena, (int64_t)sizeof(*route));
    *route = (struct mt_route){.width = input->width,
                               .n_choice = input->n_choice,
                               .slice_rows = input->slice_rows,
                               .own_offset = input->own_offset,
                               .own_weight_offset = input->own_weight_offset,
                               .n_rank = n_rank,
                               .rank = input->rank};
    MT_ASSERT(route->slice_rows >= 1);
    count_groups(route, input);
    route->send_wide = cut_i64(arena, route->n_choice);
    route->send_weight = cut_i64(arena, route->n_choice);
    route->send_narrow = cut_i64(arena, route->n_choice);
    route->group_expert = mt_arena_cut(arena, route->n_group * (int64_t)sizeof(int));
    route->group_offset = cut_i64(arena, route->n_group + 1);
    route->group_from = cut_i64(arena, (int64_t)route->n_group * n_rank);

    struct cursors cursors = {.at = cut_i64(arena, n_instance),
                              .left = cut_i64(arena, n_instance),
                              .place = cut_i64(arena, n_instance),
                              .next = cut_i64(arena, input->placement->n_expert),
                              .rows = cut_i64(arena, n_rank)};
    place_at_targets(&cursors, route, input);
    const int64_t n_block = (int64_t)route->n_slice * n_rank;
    route->send_start = cut_i64(arena, route->n_slice + 1);
    route->send_count = cut_i64(arena, n_block);
    route->recv_count = cut_i64(arena, n_block);
    const int64_t mark = mt_arena_mark(arena);
    cursors.block = cut_i64(arena, n_block);
    count_sends(route, input, &cursors);
    place_instances(&cursors, route, input->placement);
    route_choices(route, input, &cursors);
    fill_groups(route, input);
    mt_arena_release(arena, mark);
    return route;
}

/* Rows of group g that lie in the slice, source after source. Returns the row after the last. */
static int64_t arrive_group(const struct mt_route *route, int slice, int group,
                            struct mt_arrivals *arrivals, int64_t row)
{
    const int64_t width = route->width;
    const int64_t low = slice * route->slice_rows;
    const int64_t high = low + route->slice_rows;
    const int64_t *from = route->group_from + (int64_t)group * route->n_rank;
    const int64_t *count = route->recv_count + (int64_t)slice * route->n_rank;
    int64_t first = route->group_offset[group];
    int64_t block = 0;
    for (int source = 0; source < route->n_rank; ++source) {
        const int64_t start = mt_max_i64(first, low);
        const int64_t end = mt_min_i64(first + from[source], high);
        if (!is_travelling(route, source)) {
            for (int64_t r = start; r < end; ++r) {
                arrivals->wide[row] = arrivals->weight[row] = arrivals->narrow[row] = -1;
                ++row;
            }
            first += from[source];
            continue;
        }
        for (int64_t r = start; r < end; ++r) {
            const int64_t within = arrivals->taken[source]++;
            arrivals->wide[row] = block * (width + 1) + within * width;
            arrivals->weight[row] = block * (width + 1) + count[source] * width + within;
            arrivals->narrow[row] = (block + within) * width;
            ++row;
        }
        block += count[source];
        first += from[source];
    }
    return row;
}

void mt_route_arrivals(const struct mt_route *route, int slice, struct mt_arrivals *arrivals)
{
    const int64_t low = slice * route->slice_rows;
    const int64_t high = low + route->slice_rows;
    int group = 0;
    int64_t row = 0;
    memset(arrivals->taken, 0, (size_t)route->n_rank * sizeof(int64_t));
    while (group < route->n_group && route->group_offset[group + 1] <= low && slice > 0) {
        ++group;
    }
    arrivals->first_group = group;
    arrivals->group_start[0] = 0;
    int n = 0;
    for (; group < route->n_group && (route->group_offset[group] < high); ++group) {
        row = arrive_group(route, slice, group, arrivals, row);
        arrivals->group_start[++n] = row;
    }
    arrivals->n_group = n;
    arrivals->n_resident =
        (int)mt_min_i64(n, mt_max_i64(0, route->n_resident - arrivals->first_group));
    arrivals->n_row = row;
}

void mt_route_own_choices(const struct mt_route *route, int64_t *choice)
{
    MT_ASSERT(route->keeps_own);
    for (int64_t row = 0; row < route->n_row; ++row) {
        choice[row] = -1;
    }
    for (int64_t c = 0; c < route->n_choice; ++c) {
        if (route->send_narrow[c] >= route->own_offset) {
            choice[(route->send_narrow[c] - route->own_offset) / route->width] = c;
        }
    }
}

bool mt_route_bytes_max(const struct mt_route_size *size, int64_t *n_bytes)
{
    const int64_t word = (int64_t)sizeof(int64_t);
    const int64_t n_slice = 1 + size->n_row / size->slice_rows;
    /* Groups by source; per rank, expert and instance at most five words of counts and cursors. */
    int64_t from = 0;
    int64_t blocks = 0;
    int64_t choices = 0;
    int64_t fixed = (int64_t)sizeof(struct mt_route) + (int64_t)N_ROUTE_CUT * CUT_ALIGNMENT_BYTES +
                    5 * word * (size->n_rank + size->n_expert + size->max_instance + 2);
    return mt_size_multiply(size->n_expert, word * size->n_rank, &from) &&
           mt_size_multiply(n_slice + 1, 3 * word * size->n_rank + word, &blocks) &&
           mt_size_multiply(size->n_choice, 3 * word, &choices) &&
           mt_size_add(fixed, from, &fixed) && mt_size_add(fixed, blocks, &fixed) &&
           mt_size_add(fixed, choices, n_bytes);
}
