/* The least largest load of given instances, without a linear program.
 *
 * A bound tau that is known to be necessary is raised until it suffices (a discrete Newton
 * iteration; the same cut argument as in parametric maximum flow). At a bound tau:
 *
 *   - rows move along shortest chains  overloaded rank -> expert -> rank -> ... -> rank with room,
 *     each chain as much as the excess, the room and the quotas on the way allow;
 *   - where no chain is left while ranks are overloaded, the ranks S that chains reach are closed:
 *     every expert that computes a row in S has all its instances in S. So the rows on S can be
 *     nowhere else, and no split has a largest load below ceil(rows on S / |S|) > tau.
 *
 * Every bound used is therefore a certificate, and the last one is reached. */
#include "placement/flow.h"

#include "base/size.h"

#include <string.h>

static void link_to_rank(struct mt_flow *flow, int i)
{
    struct mt_flow_instance *instance = &flow->instance[i];
    instance->next_of_rank = flow->of_rank[instance->rank];
    flow->of_rank[instance->rank] = i;
}

static void *cut(struct mt_arena *arena, int64_t count, size_t item_bytes)
{
    return mt_arena_cut(arena, count * (int64_t)item_bytes);
}

void mt_flow_init(struct mt_flow *flow, const struct mt_placement *placement, int capacity,
                  const int64_t *total, struct mt_arena *arena)
{
    const int n_rank = placement->n_rank;
    const int n_expert = placement->n_expert;
    const int n_instance = mt_placement_n_instance(placement);
    MT_ASSERT(capacity >= n_instance);
    *flow = (struct mt_flow){
        .n_rank = n_rank, .n_expert = n_expert, .n_instance = n_instance, .capacity = capacity};
    flow->load = cut(arena, n_rank, sizeof(*flow->load));
    flow->of_expert = cut(arena, n_expert, sizeof(int));
    flow->of_rank = cut(arena, n_rank, sizeof(int));
    flow->instance = cut(arena, capacity, sizeof(*flow->instance));
    flow->seen_rank = cut(arena, n_rank, sizeof(int));
    flow->seen_expert = cut(arena, n_expert, sizeof(int));
    flow->queue = cut(arena, n_rank, sizeof(int));
    flow->from = cut(arena, n_rank, sizeof(int));
    flow->to = cut(arena, n_rank, sizeof(int));
    memset(flow->seen_rank, 0, (size_t)n_rank * sizeof(int));
    memset(flow->seen_expert, 0, (size_t)n_expert * sizeof(int));
    memset(flow->of_rank, 0xff, (size_t)n_rank * sizeof(int));
    for (int expert = n_expert - 1; expert >= 0; --expert) { /* downwards: lists ascend */
        const int start = placement->instance_start[expert];
        const int end = placement->instance_start[expert + 1];
        flow->of_expert[expert] = start;
        for (int i = end - 1; i >= start; --i) {
            flow->instance[i] =
                (struct mt_flow_instance){.expert = expert,
                                          .rank = placement->rank[i],
                                          .is_late = placement->is_late[i],
                                          .next_of_expert = i + 1 < end ? i + 1 : -1};
            if (end - start > 1) {
                link_to_rank(flow, i);
            }
        }
    }
    mt_flow_set_total(flow, total);
}

void mt_flow_set_total(struct mt_flow *flow, const int64_t *total)
{
    flow->total = total;
    flow->n_row = 0;
    for (int expert = 0; expert < flow->n_expert; ++expert) {
        flow->n_row += total[expert];
    }
}

int mt_flow_find(const struct mt_flow *flow, int expert, int rank)
{
    int i = flow->of_expert[expert];
    while (i >= 0 && flow->instance[i].rank != rank) {
        i = flow->instance[i].next_of_expert;
    }
    return i;
}

int mt_flow_add(struct mt_flow *flow, int expert, int rank)
{
    const int first = flow->of_expert[expert];
    const int i = flow->n_instance;
    MT_ASSERT(flow->n_instance < flow->capacity);
    flow->instance[i] = (struct mt_flow_instance){
        .expert = expert, .rank = rank, .next_of_expert = flow->instance[first].next_of_expert};
    if (flow->instance[first].next_of_expert < 0) {
        link_to_rank(flow, first); /* now it has a choice */
    }
    flow->instance[first].next_of_expert = i;
    link_to_rank(flow, i);
    ++flow->n_instance;
    return i;
}

/* Pours the expert's rows onto the ranks that hold it, lowest first, until they stand level; what
 * is left over goes to the lower ids. */
static void level(struct mt_flow *flow, int expert)
{
    struct mt_flow_instance *const all = flow->instance;
    const int64_t n_row = flow->total[expert];
    int64_t height = INT64_MAX; /* ranks that stand higher get nothing */
    int64_t left = 0;
    for (int64_t last = -1; last != height;) {
        int64_t sum = n_row;
        int64_t n = 0;
        for (int i = flow->of_expert[expert]; i >= 0; i = all[i].next_of_expert) {
            const int64_t load = flow->load[all[i].rank];
            const bool is_in = load <= height && !all[i].is_late;
            sum += is_in ? load : 0;
            n += is_in ? 1 : 0;
        }
        MT_ASSERT(n > 0); /* the height is not below the lowest rank */
        last = height;
        height = sum / n;
        left = sum % n;
    }
    for (int i = flow->of_expert[expert]; i >= 0; i = all[i].next_of_expert) {
        int64_t *load = &flow->load[all[i].rank];
        all[i].quota = 0;
        if (*load <= height && !all[i].is_late) {
            all[i].quota = height - *load + (left > 0 ? 1 : 0);
            left -= left > 0 ? 1 : 0;
            *load += all[i].quota;
        }
    }
}

/* Takes the expert's rows off again. */
static void lift(struct mt_flow *flow, int expert)
{
    for (int i = flow->of_expert[expert]; i >= 0; i = flow->instance[i].next_of_expert) {
        flow->load[flow->instance[i].rank] -= flow->instance[i].quota;
    }
}

/* Each expert that has a choice, once. */
static void level_all(struct mt_flow *flow, bool is_first_round)
{
    for (int expert = 0; expert < flow->n_expert; ++expert) {
        if (flow->instance[flow->of_expert[expert]].next_of_expert < 0) {
            continue;
        }
        if (!is_first_round) {
            lift(flow, expert);
        }
        level(flow, expert);
    }
}

void mt_flow_start(struct mt_flow *flow)
{
    memset(flow->load, 0, (size_t)flow->n_rank * sizeof(*flow->load));
    for (int expert = 0; expert < flow->n_expert; ++expert) {
        struct mt_flow_instance *first = &flow->instance[flow->of_expert[expert]];
        if (first->next_of_expert < 0) {
            first->quota = flow->total[expert];
            flow->load[first->rank] += first->quota;
        }
    }
    /* The second round sees the loads that the first one made; a third moved little. */
    level_all(flow, true);
    level_all(flow, false);
}

/* Along the chain that ends at `rank`: as many rows as its root has too many, its end has room for,
 * and every quota on the way holds. */
static bool move_along(struct mt_flow *flow, int rank, int64_t limit)
{
    struct mt_flow_instance *const all = flow->instance;
    int64_t n = limit - flow->load[rank];
    int root = rank;
    while (flow->to[root] >= 0) {
        const int from = flow->from[root];
        n = mt_min_i64(n, all[from].quota);
        root = all[from].rank;
    }
    n = mt_min_i64(n, flow->load[root] - limit);
    if (n <= 0) {
        return false;
    }
    flow->load[root] -= n;
    flow->load[rank] += n;
    for (int at = rank; flow->to[at] >= 0;) {
        all[flow->to[at]].quota += n;
        all[flow->from[at]].quota -= n;
        at = all[flow->from[at]].rank;
    }
    return true;
}

/* Rows of instance `from` may go to the other instances of its expert. */
static bool reach_through(struct mt_flow *flow, int from, int64_t limit)
{
    struct mt_flow_instance *const all = flow->instance;
    const int expert = all[from].expert;
    bool is_moved = false;
    if (all[from].quota <= 0 || flow->seen_expert[expert] == flow->stamp) {
        return false;
    }
    flow->seen_expert[expert] = flow->stamp;
    for (int to = flow->of_expert[expert]; to >= 0; to = all[to].next_of_expert) {
        const int rank = all[to].rank;
        if (flow->seen_rank[rank] != flow->stamp) {
            flow->seen_rank[rank] = flow->stamp;
            flow->from[rank] = from;
            flow->to[rank] = to;
            flow->queue[flow->n_queue++] = rank;
            is_moved = (flow->load[rank] < limit && move_along(flow, rank, limit)) || is_moved;
        }
    }
    return is_moved;
}

/* Moves rows of instance `from` straight to instances with room of one kind. */
static void spill_to(struct mt_flow *flow, int from, int64_t limit, bool is_late)
{
    struct mt_flow_instance *const all = flow->instance;
    int64_t *source = &flow->load[all[from].rank];
    for (int to = flow->of_expert[all[from].expert]; to >= 0; to = all[to].next_of_expert) {
        int64_t *target = &flow->load[all[to].rank];
        const int64_t n = mt_min_i64(mt_min_i64(*source - limit, all[from].quota), limit - *target);
        if (n > 0 && all[to].is_late == is_late) {
            *source -= n;
            *target += n;
            all[from].quota -= n;
            all[to].quota += n;
        }
    }
}

/* Chains of one link, which are most: without a search. */
static void spill(struct mt_flow *flow, int64_t limit)
{
    for (int rank = 0; rank < flow->n_rank; ++rank) {
        for (int i = flow->of_rank[rank]; i >= 0 && flow->load[rank] > limit;
             i = flow->instance[i].next_of_rank) {
            spill_to(flow, i, limit, false);
            spill_to(flow, i, limit, true);
        }
    }
}

bool mt_flow_drain(struct mt_flow *flow, int64_t limit)
{
    spill(flow, limit);
    for (;;) {
        bool is_moved = false;
        ++flow->stamp;
        flow->n_queue = 0;
        for (int rank = 0; rank < flow->n_rank; ++rank) {
            if (flow->load[rank] > limit) {
                flow->seen_rank[rank] = flow->stamp;
                flow->to[rank] = -1;
                flow->queue[flow->n_queue++] = rank;
            }
        }
        if (flow->n_queue == 0) {
            return true;
        }
        for (int head = 0; head < flow->n_queue; ++head) {
            for (int i = flow->of_rank[flow->queue[head]]; i >= 0;
                 i = flow->instance[i].next_of_rank) {
                is_moved = reach_through(flow, i, limit) || is_moved;
            }
        }
        if (!is_moved) { /* the shortest chain always moves something: there is none */
            return false;
        }
    }
}

int64_t mt_flow_settle(struct mt_flow *flow)
{
    int64_t limit = mt_ceil_div(flow->n_row, flow->n_rank);
    while (!mt_flow_drain(flow, limit)) {
        int64_t n_row = 0; /* on the ranks that cannot pass any on */
        for (int at = 0; at < flow->n_queue; ++at) {
            n_row += flow->load[flow->queue[at]];
        }
        MT_ASSERT(n_row > flow->n_queue * limit);
        limit = mt_ceil_div(n_row, flow->n_queue);
    }
    return limit;
}
