/* What a trial costs, and the search for the cheapest. */
#include "placement/grow.h"

#include "base/size.h"
#include "placement/exchange.h"
#include "placement/ps.h"

#include <string.h>

void mt_grow_set_links(struct mt_grow *grow)
{
    const struct mt_cluster *cluster = grow->cluster;
    const int n_inside = (int)mt_ceil_div(cluster->n_rank, cluster->n_node) - 1;
    grow->n_peer[MT_LEVEL_NODE] = n_inside;
    grow->n_peer[MT_LEVEL_NETWORK] = cluster->n_rank - 1 - n_inside;
    for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
        grow->copy_ps[level] =
            mt_ps_message(&cluster->costs, (enum mt_level)level, cluster->expert_bytes);
        grow->kirow_ps[level] = mt_ps_times(cluster->row_bytes, cluster->costs.kib_ps[level]);
    }
}

void mt_grow_set_exchange(struct mt_grow *grow, struct mt_arena *arena)
{
    enum { ONE = 1024 };
    const struct mt_cluster *cluster = grow->cluster;
    const int64_t n_rank = cluster->n_rank;
    const int64_t mark = mt_arena_mark(arena);
    if (mt_exchange_is_direct(cluster)) {
        return;
    }
    int64_t *n_row = mt_arena_cut(arena, n_rank * n_rank * (int64_t)sizeof(*n_row));
    const struct mt_exchange_rows rows = {.n_row = n_row, .row_bytes = cluster->row_bytes};
    memset(n_row, 0, (size_t)(n_rank * n_rank) * sizeof(*n_row));
    for (int64_t source = 0; source < n_rank; ++source) {
        const int64_t *count = &grow->sources.counts[source * grow->flow->n_expert];
        for (int expert = 0; expert < grow->flow->n_expert; ++expert) {
            n_row[source * n_rank + grow->owner[expert]] += count[expert];
        }
    }
    const int64_t straight_ps =
        mt_exchange_ps(cluster, MT_EXCHANGE_DIRECT, &rows, false, arena) / ONE;
    grow->exchange_k = mt_exchange_way_ps(cluster, n_row, arena) / mt_max_i64(straight_ps, 1);
    mt_arena_release(arena, mark);
}

/* What of four exchanges is exposed, of which a straight one takes way_ps. */
static int64_t exposed_ps(const struct mt_grow *grow, int64_t way_ps, int64_t experts_ps)
{
    enum { ONE = 1024 };
    return mt_exchange_exposed_ps(grow->cluster, mt_ps_times(way_ps, grow->exchange_k) / ONE,
                                  experts_ps);
}

/* n_row rows from at most n_source ranks, or to them. */
static int64_t port_ps(const struct mt_grow *grow, int level, int64_t n_row, int64_t n_source)
{
    enum { KIB = 1024 };
    if (n_row <= 0) {
        return 0;
    }
    const int64_t n_message = mt_min_i64(mt_min_i64(n_row, n_source), grow->n_peer[level]);
    return mt_ps_add(mt_ps_times(n_message, grow->cluster->costs.alpha_ps[level]),
                     mt_ps_times(n_row, grow->kirow_ps[level]) / KIB);
}

/* What the sources of a node send by levels, each, were they alike. */
static void count_out(const struct mt_grow *grow, int node, int64_t *n_out)
{
    const struct mt_cluster *cluster = grow->cluster;
    const int start = cluster->node_start[node];
    const int n = cluster->node_start[node + 1] - start;
    int64_t n_near = 0; /* that stay in the node */
    int64_t n_beside = 0;
    for (int at = start; at < start + n; ++at) {
        const struct mt_grow_rank *own = &grow->rank[cluster->member[at]];
        n_near += own->n_row - own->n_in[MT_LEVEL_NETWORK];
        n_beside += own->n_in[MT_LEVEL_NODE];
    }
    n_out[MT_LEVEL_NODE] = mt_max_i64(n_beside, 0) / n;
    n_out[MT_LEVEL_NETWORK] = mt_max_i64(grow->node_token[node] - n_near, 0) / n;
}

/* Messages that every rank has to send on a level, whatever the plan: with rows to spare some to
 * every other, unless some ranks own nothing. */
static int64_t sure_messages(const struct mt_grow *grow)
{
    enum { DENSE_ROWS = 16 };
    const int n_rank = grow->flow->n_rank;
    const bool is_dense = grow->flow->n_row / n_rank / n_rank >= DENSE_ROWS;
    return is_dense && grow->flow->n_expert >= n_rank ? n_rank : 0;
}

/* The busiest port: in, of every rank; out, of a rank with most tokens in every node. *even: were
 * all ranks alike, and messages only those that must be. */
static int64_t exchange_ps(const struct mt_grow *grow, int64_t *even)
{
    enum { KIB = 1024 };
    const struct mt_cluster *cluster = grow->cluster;
    const int64_t n_sure = sure_messages(grow);
    int64_t busiest = 0;
    int64_t sum[MT_N_LEVEL] = {0};
    int64_t most_in[MT_N_LEVEL] = {0};
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        const struct mt_grow_rank *own = &grow->rank[rank];
        const int64_t n_source = mt_ceil_div(mt_max_i64(own->n_source, 0), MT_GROW_SOURCE);
        for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
            const int64_t n_in = mt_max_i64(own->n_in[level], 0);
            most_in[level] = mt_max_i64(most_in[level], n_in);
            sum[level] += n_in;
            if (n_sure == 0) { /* else the one with most rows is the busiest */
                busiest = mt_max_i64(busiest, port_ps(grow, level, n_in, n_source));
            }
        }
    }
    for (int node = 0; node < cluster->n_node; ++node) {
        int64_t n_out[MT_N_LEVEL] = {0};
        count_out(grow, node, n_out);
        for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
            const int64_t most = mt_ps_times(n_out[level], grow->ragged_k) / KIB;
            busiest = mt_max_i64(busiest, port_ps(grow, level, most, INT64_MAX));
        }
    }
    *even = 0;
    for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
        const int64_t mean = sum[level] / cluster->n_rank;
        busiest = mt_max_i64(busiest, port_ps(grow, level, most_in[level], n_sure));
        *even = mt_max_i64(*even, port_ps(grow, level, mean, n_sure));
    }
    return busiest;
}

int64_t mt_grow_exchange_ps(const struct mt_grow *grow)
{
    int64_t even = 0;
    return exchange_ps(grow, &even);
}

/* At an eighth `adaptive` was beaten by more than 2 % in 10 of 1200 first layers on random machines
 * and in 1.8 % of all, at a twelfth in 4 and 1.4 %; but then more plans at 64 x 256 search on, and
 * their 99th percentile grows by a half. */
bool mt_grow_is_even(const struct mt_grow *grow, int64_t price)
{
    enum { PASSES = 3, SHARE = 8 };
    const struct mt_costs *costs = &grow->cluster->costs;
    const int64_t n_row = grow->flow->n_row / grow->flow->n_rank;
    int64_t even = 0;
    (void)exchange_ps(grow, &even);
    const int64_t pass_ps = mt_ps_times(costs->row_ps, n_row);
    even = mt_ps_add(mt_ps_times(PASSES, pass_ps), exposed_ps(grow, even, pass_ps));
    return price - even <= price / SHARE;
}

void mt_grow_hold(struct mt_grow *grow, const struct mt_placement *placement,
                  struct mt_arena *arena)
{
    const int64_t mark = mt_arena_mark(arena);
    const int n_rank = grow->flow->n_rank;
    const int64_t n_byte = n_rank * (int64_t)sizeof(struct mt_port);
    struct mt_port *port = mt_arena_cut(arena, n_byte);
    struct mt_spread spread;
    memset(port, 0, (size_t)n_byte);
    mt_spread_init(&spread, grow->cluster, arena);
    (void)mt_spread_copies(&spread, placement, MT_SPREAD_EARLY, port);
    for (int rank = 0; rank < n_rank; ++rank) {
        for (int level = 0; level < MT_N_LEVEL; ++level) {
            grow->rank_base[rank].held_ps[level] =
                mt_ps_add(port[rank].in_ps[level], port[rank].out_ps[level]);
        }
    }
    mt_arena_release(arena, mark);
}

/* Gradients of late copies and the copies that come again, as far as the attention backward, twice
 * the forward one, does not cover them. */
int64_t mt_grow_excess_ps(const struct mt_grow *grow)
{
    int64_t busiest = 0;
    for (int rank = 0; rank < grow->flow->n_rank && grow->rules.is_late; ++rank) {
        const struct mt_grow_rank *own = &grow->rank[rank];
        for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
            const int64_t late = mt_ps_add(own->in_ps[level], own->out_ps[level]);
            busiest = mt_max_i64(busiest, mt_ps_add(own->held_ps[level], late));
        }
    }
    return mt_max_i64(0, busiest - mt_ps_times(2, grow->cluster->costs.attention_ps));
}

/* Forward with its late copies, backward without, and the rows' four ways. */
static int64_t layer_ps(const struct mt_grow *grow)
{
    enum { BACKWARD = 2 };
    const struct mt_costs *costs = &grow->cluster->costs;
    int64_t forward = 0;
    int64_t resident = 0;
    for (int rank = 0; rank < grow->flow->n_rank; ++rank) {
        const struct mt_grow_rank *own = &grow->rank[rank];
        const int64_t all = mt_ps_add(mt_ps_times(costs->row_ps, own->n_row),
                                      mt_ps_times(costs->instance_ps, own->n_instance));
        const int64_t late = mt_ps_add(mt_ps_times(costs->row_ps, own->n_late_row),
                                       mt_ps_times(costs->instance_ps, own->n_late));
        const int64_t after = grow->rules.is_resident_first ? late : all;
        const int64_t wait = grow->rules.is_late && own->n_late > 0 ? own->arrival_ps : 0;
        forward = mt_max_i64(forward, mt_max_i64(all, mt_ps_add(wait, after)));
        resident = mt_max_i64(resident, all);
    }
    const int64_t experts = mt_ps_add(forward, mt_ps_times(BACKWARD, resident));
    const int64_t exchange = exposed_ps(grow, mt_grow_exchange_ps(grow), resident);
    return mt_ps_add(mt_ps_add(experts, exchange), mt_grow_excess_ps(grow));
}

/* Senders relay more copies after the first ones were priced: arrivals from all that they sent. */
static void finish_arrivals(struct mt_grow *grow)
{
    for (int at = 0; at < grow->n_move; ++at) {
        const struct mt_grow_move *move = &grow->move[at];
        const int64_t sent = grow->rank[move->sender].out_ps[move->level];
        int64_t *arrival_ps = &grow->rank[move->rank].arrival_ps;
        *arrival_ps = mt_max_i64(*arrival_ps,
                                 move->level == MT_LEVEL_NETWORK ? sent : sent - grow->dispatch_ps);
    }
}

int64_t mt_grow_price(struct mt_grow *grow)
{
    if (!grow->rules.is_timed) {
        return grow->largest_row;
    }
    if (grow->rules.is_late) {
        finish_arrivals(grow);
    }
    return layer_ps(grow);
}

/* The cheapest trial so far. */
struct best {
    int64_t limit, price, min_row;
    bool is_patient;
    bool is_reached; /* the least limit was */
};

/* One trial; true: no rank is above the limit. */
static bool try_limit(struct mt_grow *grow, int64_t limit, struct best *best)
{
    const bool is_reached = mt_grow_try(grow, limit);
    const int64_t price = mt_grow_price(grow);
    if (price < best->price) {
        best->price = price;
        best->limit = limit;
        best->min_row = grow->rules.min_row;
        best->is_patient = grow->rules.is_patient;
    }
    return is_reached;
}

/* Upwards from the least limit in growing steps, since most often that or little more suffices.
 * Returns the first limit that is reached, at least *low: none below that is. */
static int64_t climb(struct mt_grow *grow, int64_t least, int64_t most, struct best *best,
                     int64_t *low)
{
    int64_t high = least;
    int64_t step = grow->rules.tolerance_row;
    *low = least;
    while (high < most && !try_limit(grow, high, best)) {
        *low = high + 1;
        high = mt_min_i64(high + step, most);
        step *= 2;
    }
    best->is_reached = best->is_reached || high == least;
    return high;
}

/* Then bisection of the last step. */
static void find_limit(struct mt_grow *grow, int64_t least, int64_t most, struct best *best)
{
    int64_t low = least;
    int64_t high = climb(grow, least, most, best, &low);
    while (high - low >= grow->rules.tolerance_row) {
        const int64_t middle = low + (high - low) / 2;
        if (try_limit(grow, middle, best)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
}

/* Copies that come late but relieve the exchange, or twice the backward pass: the lower the limit
 * the more of them, so nothing orders the limits by price. Beside those on the way up three more,
 * where there is time for them. */
static void try_patiently(struct mt_grow *grow, int64_t least, int64_t most, struct best *best)
{
    enum { QUARTERS = 4 };
    int64_t low = least;
    grow->rules.is_patient = true;
    (void)climb(grow, least, most, best, &low);
    for (int at = 1; at < QUARTERS && grow->flow->n_rank <= MT_PLANNER_RANKS; ++at) {
        (void)try_limit(grow, least + (most - least) / QUARTERS * at, best);
    }
}

/* Where slots are short, small copies waste them: then larger ones only are tried as well. */
static void try_larger(struct mt_grow *grow, int64_t least, int64_t most, struct best *best)
{
    enum { SHARE = 16 }; /* of the mean: 6 % */
    const int64_t mean = grow->flow->n_row / grow->flow->n_rank;
    if (best->limit - least > mean / SHARE && mean / SHARE > grow->rules.min_row) {
        grow->rules.min_row = mean / SHARE;
        find_limit(grow, least, most, best);
    }
}

int64_t mt_grow_search(struct mt_grow *grow, int64_t least, int64_t most)
{
    const struct mt_grow_rules *rules = &grow->rules;
    struct best best = {.limit = most, .min_row = rules->min_row, .is_patient = rules->is_patient};
    grow->largest_row = most; /* no moves: as mt_grow_reset left it */
    best.price = mt_grow_price(grow);
    grow->limit = -1;
    find_limit(grow, least, most, &best);
    const bool is_close = rules->is_timed && mt_grow_is_even(grow, best.price);
    if (!best.is_reached && !is_close && rules->is_late && rules->is_timed) {
        try_patiently(grow, least, most, &best);
    }
    if (!best.is_reached && !is_close && rules->is_thorough) {
        try_larger(grow, least, most, &best);
    }
    if (grow->limit != best.limit || rules->min_row != best.min_row ||
        rules->is_patient != best.is_patient) {
        grow->rules.min_row = best.min_row;
        grow->rules.is_patient = best.is_patient;
        (void)mt_grow_try(grow, best.limit);
    }
    return best.price;
}
