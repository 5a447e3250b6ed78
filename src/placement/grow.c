#include "placement/grow.h"

#include "base/size.h"
#include "placement/order.h"
#include "placement/ps.h"

#include <string.h>

/* Targets that may refuse an expert (they have it, or its copy would come too late) before the next
 * expert is tried: bounds a trial. */
enum { MAX_REFUSED = 16 };

int64_t mt_grow_min_row(int64_t most, int64_t n_row, int n_rank)
{
    enum { SHARE = 64 };
    return mt_max_i64(1, mt_min_i64(most, n_row / n_rank / SHARE));
}

static void *cut(struct mt_arena *arena, int64_t count, size_t item_bytes)
{
    return mt_arena_cut(arena, count * (int64_t)item_bytes);
}

void mt_grow_init(struct mt_grow *grow, const struct mt_cluster *cluster, struct mt_flow *flow,
                  const struct mt_placement *placement, struct mt_arena *arena)
{
    const int n_rank = flow->n_rank;
    const int n_expert = flow->n_expert;
    *grow = (struct mt_grow){.cluster = cluster,
                             .flow = flow,
                             .owner = placement->owner,
                             .first_late = flow->n_instance};
    mt_grow_set_links(grow);
    grow->exchange_k = 1024;
    grow->order = cut(arena, n_rank, sizeof(int));
    grow->node_order = cut(arena, n_rank, sizeof(int));
    grow->start = cut(arena, (int64_t)n_rank + 1, sizeof(int));
    grow->list = cut(arena, flow->capacity, sizeof(int));
    grow->is_sorted = cut(arena, n_rank, sizeof(bool));
    grow->rank = cut(arena, n_rank, sizeof(*grow->rank));
    grow->rank_base = cut(arena, n_rank, sizeof(*grow->rank));
    grow->expert = cut(arena, n_expert, sizeof(*grow->expert));
    grow->expert_base = cut(arena, n_expert, sizeof(*grow->expert));
    grow->source = cut(arena, n_expert, sizeof(int64_t));
    grow->node_token = cut(arena, cluster->n_node, sizeof(int64_t));
    grow->in_node = cut(arena, cluster->n_node, sizeof(int64_t));
    memset(grow->in_node, 0, (size_t)cluster->n_node * sizeof(int64_t));
    grow->left = cut(arena, flow->capacity, sizeof(int64_t));
    grow->move = cut(arena, flow->capacity, sizeof(*grow->move));
    grow->sort = cut(arena, n_rank, sizeof(int64_t));
    memset(grow->rank_base, 0, (size_t)n_rank * sizeof(*grow->rank));
    memset(grow->expert_base, 0, (size_t)n_expert * sizeof(*grow->expert));
    for (int expert = 0; expert < n_expert; ++expert) {
        grow->expert_base[expert].first_move = -1;
    }
    for (int i = 0; i < flow->n_instance; ++i) {
        const struct mt_flow_instance *instance = &flow->instance[i];
        grow->rank_base[instance->rank].n_copy +=
            instance->rank != grow->owner[instance->expert] ? 1 : 0;
    }
}

/* Instances by rank, and what each rank has. */
static void list_instances(struct mt_grow *grow)
{
    const struct mt_flow *flow = grow->flow;
    int *at = grow->sort;
    memset(grow->start, 0, ((size_t)flow->n_rank + 1) * sizeof(int));
    for (int i = 0; i < flow->n_instance; ++i) {
        ++grow->start[flow->instance[i].rank + 1];
    }
    for (int rank = 0; rank < flow->n_rank; ++rank) {
        grow->start[rank + 1] += grow->start[rank];
        at[rank] = grow->start[rank];
        grow->is_sorted[rank] = false;
        grow->rank_base[rank].n_row = flow->load[rank];
        grow->rank_base[rank].n_instance = 0;
        grow->rank_base[rank].n_late = 0;
        grow->rank_base[rank].n_late_row = 0;
    }
    for (int i = 0; i < flow->n_instance; ++i) {
        const struct mt_flow_instance *instance = &flow->instance[i];
        const int rank = instance->rank;
        grow->list[at[rank]++] = i;
        const int n_active = instance->quota > 0 ? 1 : 0;
        const bool is_late = i >= grow->first_late;
        grow->rank_base[rank].n_instance += n_active;
        grow->rank_base[rank].n_late += is_late ? n_active : 0;
        grow->rank_base[rank].n_late_row += is_late ? instance->quota : 0;
    }
}

void mt_grow_reset(struct mt_grow *grow)
{
    const int n_rank = grow->flow->n_rank;
    const struct mt_cluster *cluster = grow->cluster;
    int *at = grow->sort;
    list_instances(grow);
    if (grow->rules.is_timed) {
        mt_grow_list_rows(grow);
    }
    mt_order_by(grow->flow->load, 1, n_rank, grow->order, at);
    memcpy(at, cluster->node_start, (size_t)cluster->n_node * sizeof(int));
    for (int i = 0; i < n_rank; ++i) {
        grow->node_order[at[cluster->node[grow->order[i]]]++] = grow->order[i];
    }
    grow->n_move = 0;
    memcpy(grow->rank, grow->rank_base, (size_t)n_rank * sizeof(*grow->rank));
    grow->dispatch_ps = grow->rules.is_timed ? mt_grow_exchange_ps(grow) : 0;
}

/* The rank's instances by quota, descending; ties to the lower instance. Lists are short: what a
 * rank owns and a few copies. */
static void sort_instances(struct mt_grow *grow, int rank)
{
    int *list = &grow->list[grow->start[rank]];
    const int n = grow->start[rank + 1] - grow->start[rank];
    for (int i = 1; i < n && !grow->is_sorted[rank]; ++i) {
        const int instance = list[i];
        const int64_t quota = grow->flow->instance[instance].quota;
        int at = i;
        for (; at > 0 && grow->flow->instance[list[at - 1]].quota < quota; --at) {
            list[at] = list[at - 1];
        }
        list[at] = instance;
    }
    grow->is_sorted[rank] = true;
}

/* Is the expert on the rank, in the flow or by a move of this trial? */
static bool is_there(const struct mt_grow *grow, int expert, int rank)
{
    if (mt_flow_find(grow->flow, expert, rank) >= 0) {
        return true;
    }
    int i = grow->expert[expert].first_move;
    while (i >= 0 && grow->move[i].rank != rank) {
        i = grow->move[i].next;
    }
    return i >= 0;
}

/* One more copy: from whom, and what the links of both would carry then. */
struct added {
    enum mt_level level;
    int sender;
    int64_t in_ps, out_ps;
    int64_t arrival_ps; /* after the rows' dispatch */
};

/* Who has the expert in the rank's node, now or by a move of this trial; -1: nobody. */
static int sender_inside(const struct mt_grow *grow, int expert, int rank)
{
    const int *node = grow->cluster->node;
    const struct mt_flow_instance *instance = grow->flow->instance;
    if (node[grow->owner[expert]] == node[rank]) {
        return grow->owner[expert];
    }
    for (int i = grow->flow->of_expert[expert]; i >= 0; i = instance[i].next_of_expert) {
        if (node[instance[i].rank] == node[rank]) {
            return instance[i].rank;
        }
    }
    for (int i = grow->expert[expert].first_move; i >= 0; i = grow->move[i].next) {
        if (node[grow->move[i].rank] == node[rank]) {
            return grow->move[i].rank;
        }
    }
    return -1;
}

static struct added price_copy(const struct mt_grow *grow, int expert, int rank)
{
    if (grow->is_liked_here && mt_placement_find(grow->liked, expert, rank) >= 0) {
        const struct mt_grow_rank *here = &grow->rank[rank];
        return (struct added){.level = MT_LEVEL_NODE,
                              .sender = rank,
                              .in_ps = here->in_ps[MT_LEVEL_NODE],
                              .out_ps = here->out_ps[MT_LEVEL_NODE]};
    }
    const struct mt_grow_expert *own = &grow->expert[expert];
    const int inside = sender_inside(grow, expert, rank);
    const int owner = grow->owner[expert];
    struct added added = {.level = inside < 0 ? MT_LEVEL_NETWORK : MT_LEVEL_NODE,
                          .sender = inside < 0 ? owner : inside};
    const int64_t copy_ps = grow->copy_ps[added.level];
    const int n = inside < 0 ? own->n_network : own->n_node;
    const int n_round = added.sender == owner ? mt_spread_rounds(n + 1) - mt_spread_rounds(n) : 1;
    added.in_ps = mt_ps_add(grow->rank[rank].in_ps[added.level], copy_ps);
    added.out_ps =
        mt_ps_add(grow->rank[added.sender].out_ps[added.level], mt_ps_times(n_round, copy_ps));
    added.arrival_ps = mt_max_i64(added.in_ps, added.out_ps);
    if (inside >= 0) { /* not behind the rows; behind the copy that it is made from */
        added.arrival_ps = mt_ps_add(mt_max_i64(0, added.arrival_ps - grow->dispatch_ps),
                                     grow->rank[added.sender].arrival_ps);
    }
    return added;
}

/* Rows that the rank may take through that copy. */
static int64_t room_for(const struct mt_grow *grow, int rank, const struct added *added)
{
    const struct mt_grow_rank *to = &grow->rank[rank];
    const int64_t row_ps = grow->cluster->costs.row_ps;
    const int64_t room = grow->limit - to->n_row;
    if (!grow->rules.is_late) {
        const bool is_hidden = mt_max_i64(added->in_ps, added->out_ps) <= grow->rules.port_ps;
        return is_hidden ? room : 0;
    }
    if (grow->rules.is_patient) {
        return room;
    }
    const int64_t arrival_ps = mt_max_i64(to->arrival_ps, added->arrival_ps);
    if (row_ps == 0) {
        return arrival_ps > 0 ? 0 : room;
    }
    const int64_t n_missed = mt_ceil_div(arrival_ps, row_ps); /* rows that the wait would do */
    return grow->rules.is_resident_first ? mt_min_i64(room, grow->limit - n_missed - to->n_late_row)
                                         : room - n_missed;
}

/* Rows of instance i to the new copy. Of other instances in their nodes only each other is known
 * here; for one more, half is a guess. */
static void move_rows(struct mt_grow *grow, int i, int rank, int64_t n_row, enum mt_level level)
{
    const int expert = grow->flow->instance[i].expert;
    const int from = grow->flow->instance[i].rank;
    struct mt_grow_rank *source = &grow->rank[from];
    const bool is_same_node = grow->cluster->node[from] == grow->cluster->node[rank];
    const int64_t n_before = grow->left[i];
    grow->left[i] -= n_row;
    source->n_row -= n_row;
    if (!grow->rules.is_timed) {
        return;
    }
    const int64_t n_other = level == MT_LEVEL_NODE ? n_row : 0;
    mt_grow_add_rows(grow, expert, from, n_before, 0, -1, source);
    mt_grow_add_rows(grow, expert, from, grow->left[i], is_same_node ? n_row : 0, 1, source);
    mt_grow_add_rows(grow, expert, rank, n_row, is_same_node ? grow->left[i] : n_other, 1,
                     &grow->rank[rank]);
}

static void take(struct mt_grow *grow, int i, int rank, int64_t n_row, const struct added *added)
{
    const int expert = grow->flow->instance[i].expert;
    struct mt_grow_rank *to = &grow->rank[rank];
    struct mt_grow_expert *own = &grow->expert[expert];
    const bool is_owner = added->sender == grow->owner[expert];
    MT_ASSERT(grow->flow->n_instance + grow->n_move < grow->flow->capacity);
    grow->move[grow->n_move] = (struct mt_grow_move){.expert = expert,
                                                     .rank = rank,
                                                     .sender = added->sender,
                                                     .from = i,
                                                     .next = own->first_move,
                                                     .level = added->level,
                                                     .n_row = n_row};
    own->first_move = grow->n_move++;
    own->n_network += added->level == MT_LEVEL_NETWORK ? 1 : 0;
    own->n_node += added->level == MT_LEVEL_NODE && is_owner ? 1 : 0;
    to->in_ps[added->level] = added->in_ps;
    grow->rank[added->sender].out_ps[added->level] = added->out_ps;
    to->arrival_ps = mt_max_i64(to->arrival_ps, added->arrival_ps);
    to->n_row += n_row;
    to->n_late_row += n_row;
    ++to->n_copy;
    ++to->n_instance;
    ++to->n_late;
    move_rows(grow, i, rank, n_row, added->level);
}

/* Can the rank hold another copy that is worth it? */
static bool is_open(const struct mt_grow *grow, int rank)
{
    return grow->rank[rank].n_copy < grow->rules.slots &&
           grow->limit - grow->rank[rank].n_row >= grow->rules.min_row;
}

/* Moves rows of instance i to a new copy on the rank, if that is possible and worth it. */
static bool give(struct mt_grow *grow, int i, int rank)
{
    const int source = grow->flow->instance[i].rank;
    const int expert = grow->flow->instance[i].expert;
    const int64_t excess = grow->rank[source].n_row - grow->limit;
    const int64_t wanted = mt_min_i64(grow->left[i], mt_max_i64(excess, grow->rules.min_row));
    if (excess <= 0 || wanted < grow->rules.min_row || !is_open(grow, rank) ||
        is_there(grow, expert, rank)) {
        return false;
    }
    const struct added added = price_copy(grow, expert, rank);
    const int64_t n_row = mt_min_i64(wanted, room_for(grow, rank, &added));
    if (n_row < grow->rules.min_row) {
        return false;
    }
    take(grow, i, rank, n_row, &added);
    return true;
}

/* To copies of the expert that are there already, or were a moment ago. */
static void use_liked(struct mt_grow *grow, int i)
{
    const struct mt_placement *liked = grow->liked;
    const int expert = grow->flow->instance[i].expert;
    const int end = liked->instance_start[expert + 1];
    for (int at = liked->instance_start[expert]; at < end; ++at) {
        (void)give(grow, i, liked->rank[at]);
    }
}

/* Moves rows of instance i to the ranks order [low, high), until enough has gone. */
static void spread(struct mt_grow *grow, int i, const int *order, int low, int high)
{
    const int source = grow->flow->instance[i].rank;
    int n_refused = 0;
    for (int to = low; to < high && n_refused < MAX_REFUSED; ++to) {
        if (grow->rank[source].n_row <= grow->limit || grow->left[i] < grow->rules.min_row) {
            return;
        }
        n_refused += give(grow, i, order[to]) ? 0 : 1;
    }
}

/* Down from the fullest of the ranks order [n] (ascending load) and up from the emptiest. */
static void pour(struct mt_grow *grow, const int *order, int n)
{
    int low = 0;
    for (int high = n - 1; high > low && grow->flow->load[order[high]] > grow->limit; --high) {
        const int source = order[high];
        sort_instances(grow, source);
        for (int at = grow->start[source];
             at < grow->start[source + 1] && grow->rank[source].n_row > grow->limit; ++at) {
            const int i = grow->list[at];
            if (grow->left[i] < grow->rules.min_row) {
                continue;
            }
            if (grow->liked != NULL) {
                use_liked(grow, i);
            }
            while (low < high && !is_open(grow, order[low])) {
                ++low;
            }
            spread(grow, i, order, low, high);
        }
    }
}

bool mt_grow_try(struct mt_grow *grow, int64_t limit)
{
    const struct mt_flow *flow = grow->flow;
    const struct mt_cluster *cluster = grow->cluster;
    grow->limit = limit;
    grow->n_move = 0;
    memcpy(grow->rank, grow->rank_base, (size_t)flow->n_rank * sizeof(*grow->rank));
    memcpy(grow->expert, grow->expert_base, (size_t)flow->n_expert * sizeof(*grow->expert));
    for (int i = 0; i < flow->n_instance; ++i) {
        grow->left[i] = flow->instance[i].quota;
    }
    for (int node = 0; node < cluster->n_node; ++node) {
        const int start = cluster->node_start[node];
        pour(grow, &grow->node_order[start], cluster->node_start[node + 1] - start);
    }
    if (cluster->n_node > 1 && !grow->rules.is_node_only) {
        pour(grow, grow->order, flow->n_rank);
    }
    grow->largest_row = 0;
    for (int rank = 0; rank < flow->n_rank; ++rank) {
        grow->largest_row = mt_max_i64(grow->largest_row, grow->rank[rank].n_row);
    }
    return grow->largest_row <= limit;
}

void mt_grow_apply(struct mt_grow *grow)
{
    struct mt_flow *flow = grow->flow;
    for (int i = 0; i < flow->n_instance; ++i) {
        flow->instance[i].quota = grow->left[i];
    }
    for (int at = 0; at < grow->n_move; ++at) {
        const struct mt_grow_move *move = &grow->move[at];
        const int i = mt_flow_add(flow, move->expert, move->rank);
        flow->instance[i].quota = move->n_row;
        flow->instance[i].is_late = grow->rules.is_late;
        grow->expert[move->expert].first_move = -1;
    }
    for (int rank = 0; rank < flow->n_rank; ++rank) {
        flow->load[rank] = grow->rank[rank].n_row;
    }
    memcpy(grow->rank_base, grow->rank, (size_t)flow->n_rank * sizeof(*grow->rank));
    memcpy(grow->expert_base, grow->expert, (size_t)flow->n_expert * sizeof(*grow->expert));
    grow->n_move = 0;
}

void mt_grow_write(const struct mt_flow *flow, int first_late, struct mt_placement *placement)
{
    int n = 0;
    MT_ASSERT(flow->n_instance <= placement->max_instance);
    for (int expert = 0; expert < flow->n_expert; ++expert) {
        const int start = n;
        placement->instance_start[expert] = n;
        for (int i = flow->of_expert[expert]; i >= 0; i = flow->instance[i].next_of_expert) {
            const int rank = flow->instance[i].rank;
            int at = n++;
            for (; at > start && placement->rank[at - 1] > rank; --at) {
                placement->rank[at] = placement->rank[at - 1];
                placement->is_late[at] = placement->is_late[at - 1];
            }
            placement->rank[at] = rank;
            placement->is_late[at] = i >= first_late;
        }
    }
    placement->instance_start[flow->n_expert] = n;
}
