#include "placement/ports.h"

#include "base/size.h"
#include "placement/ps.h"

#include <string.h>

void mt_spread_init(struct mt_spread *spread, const struct mt_cluster *cluster,
                    struct mt_arena *arena)
{
    const int64_t n_node_bytes = cluster->n_node * (int64_t)sizeof(int);
    *spread = (struct mt_spread){.cluster = cluster};
    spread->source = mt_arena_cut(arena, n_node_bytes);
    spread->n_child = mt_arena_cut(arena, n_node_bytes);
    for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
        spread->copy_ps[level] =
            mt_ps_message(&cluster->costs, (enum mt_level)level, cluster->expert_bytes);
    }
    spread->ready_ps = mt_arena_cut(arena, cluster->n_node * (int64_t)sizeof(int64_t));
    memset(spread->ready_ps, 0xff, (size_t)cluster->n_node * sizeof(int64_t));
    memset(spread->source, 0xff, (size_t)n_node_bytes);
    memset(spread->n_child, 0, (size_t)n_node_bytes);
}

static bool is_there(const struct mt_placement *there, int expert, int rank)
{
    const int i = there == NULL ? -1 : mt_placement_find(there, expert, rank);
    return i >= 0 && !there->is_late[i];
}

/* Is instance i a copy that travels with this set, or is it there already? */
static bool is_travelling(const struct mt_spread *spread, const struct mt_placement *placement,
                          int expert, int i, enum mt_spread_set set)
{
    return placement->rank[i] != placement->owner[expert] &&
           (set == MT_SPREAD_ALL || placement->is_late[i] == (set == MT_SPREAD_LATE)) &&
           !is_there(spread->there, expert, placement->rank[i]);
}

/* Who has the expert in each node before the set travels: the owner, and for late copies the lowest
 * early one. */
static void find_sources(struct mt_spread *spread, const struct mt_placement *placement, int expert,
                         enum mt_spread_set set)
{
    const int *node = spread->cluster->node;
    if (set == MT_SPREAD_LATE) {
        for (int i = placement->instance_start[expert + 1] - 1;
             i >= placement->instance_start[expert]; --i) {
            if (!placement->is_late[i]) {
                spread->source[node[placement->rank[i]]] = placement->rank[i];
            }
        }
    }
    spread->source[node[placement->owner[expert]]] = placement->owner[expert];
}

/* Adds what each node's source sends, and forgets the expert. */
static void finish_expert(struct mt_spread *spread, const struct mt_placement *placement,
                          int expert, struct mt_port *port)
{
    const int *node = spread->cluster->node;
    for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
         ++i) {
        const int at = node[placement->rank[i]];
        if (spread->n_child[at] > 0) {
            int64_t *out = &port[spread->source[at]].out_ps[MT_LEVEL_NODE];
            *out = mt_ps_add(*out, mt_ps_times(spread->copy_ps[MT_LEVEL_NODE],
                                               mt_spread_rounds(spread->n_child[at])));
        }
        spread->n_child[at] = 0;
        spread->source[at] = -1;
    }
}

int64_t mt_spread_copies(struct mt_spread *spread, const struct mt_placement *placement,
                         enum mt_spread_set set, struct mt_port *port)
{
    const int *node = spread->cluster->node;
    int64_t n_copy = 0;
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        const int start = placement->instance_start[expert];
        const int end = placement->instance_start[expert + 1];
        int n_node = 0; /* that receive it over the network */
        if (end - start == 1) {
            continue;
        }
        find_sources(spread, placement, expert, set);
        for (int i = start; i < end; ++i) {
            const int rank = placement->rank[i];
            if (!is_travelling(spread, placement, expert, i, set)) {
                continue;
            }
            ++n_copy;
            const bool is_first = spread->source[node[rank]] < 0;
            const enum mt_level level = is_first ? MT_LEVEL_NETWORK : MT_LEVEL_NODE;
            int64_t *in = &port[rank].in_ps[level];
            *in = mt_ps_add(*in, spread->copy_ps[level]);
            spread->n_child[node[rank]] += is_first ? 0 : 1;
            spread->source[node[rank]] = is_first ? rank : spread->source[node[rank]];
            n_node += is_first ? 1 : 0;
        }
        int64_t *out = &port[placement->owner[expert]].out_ps[MT_LEVEL_NETWORK];
        *out = mt_ps_add(*out,
                         mt_ps_times(spread->copy_ps[MT_LEVEL_NETWORK], mt_spread_rounds(n_node)));
        finish_expert(spread, placement, expert, port);
    }
    return n_copy;
}

void mt_spread_arrivals(struct mt_spread *spread, const struct mt_placement *placement,
                        const struct mt_port *port, int64_t dispatch_ps, int64_t *arrival_ps)
{
    const int *node = spread->cluster->node;
    memset(arrival_ps, 0, (size_t)placement->n_rank * sizeof(arrival_ps[0]));
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        const int start = placement->instance_start[expert];
        const int end = placement->instance_start[expert + 1];
        const struct mt_port *owner = &port[placement->owner[expert]];
        if (end - start == 1) {
            continue;
        }
        find_sources(spread, placement, expert, MT_SPREAD_LATE);
        for (int i = start; i < end; ++i) {
            const int rank = placement->rank[i];
            const int source = spread->source[node[rank]];
            int64_t *ready = &spread->ready_ps[node[rank]]; /* < 0: there before the gate */
            int64_t at = 0;
            if (!is_travelling(spread, placement, expert, i, MT_SPREAD_LATE)) {
                continue;
            }
            if (source < 0) {
                at =
                    mt_max_i64(port[rank].in_ps[MT_LEVEL_NETWORK], owner->out_ps[MT_LEVEL_NETWORK]);
                spread->source[node[rank]] = rank;
                *ready = at;
            } else {
                const int64_t inside =
                    mt_max_i64(port[rank].in_ps[MT_LEVEL_NODE], port[source].out_ps[MT_LEVEL_NODE]);
                at = *ready < 0 ? inside - dispatch_ps : mt_ps_add(*ready, inside);
            }
            arrival_ps[rank] = mt_max_i64(arrival_ps[rank], at);
        }
        for (int i = start; i < end; ++i) {
            spread->source[node[placement->rank[i]]] = -1;
            spread->ready_ps[node[placement->rank[i]]] = -1;
        }
    }
}

int64_t mt_port_busiest(const struct mt_port *port, int n)
{
    int64_t busiest = 0;
    for (int i = 0; i < n; ++i) {
        for (int level = 0; level < MT_N_LEVEL; ++level) {
            busiest = mt_max_i64(busiest, mt_max_i64(port[i].in_ps[level], port[i].out_ps[level]));
        }
    }
    return busiest;
}
