/* What a trial costs, and the search for the cheapest. */
#include "placement/grow.h"

#include "base/size.h"
#include "placement/ps.h"

#include <string.h>

/* Share of the mean that a search may leave above the least limit: 6 %. Settling all copies
 * together then brings the largest load nearer: to 1 % above at 64 ranks x 256 experts. */
enum { GOOD_ENOUGH = 16 };

/* A rank's rows come from all others alike, as far as is known: that much of a row's way is on each
 * level, and the busier level counts. */
void mt_grow_set_links(struct mt_grow *grow)
{
    enum { KIB = 1024 };
    const struct mt_cluster *cluster = grow->cluster;
    const int64_t n_other = cluster->n_rank - 1;
    const int64_t n_inside = cluster->n_rank / cluster->n_node - 1; /* of a usual node */
    const int64_t n_peer[MT_N_LEVEL] = {0, n_inside, n_other - n_inside};
    grow->message_ps = 0;
    grow->kirow_ps = 0;
    for (int level = MT_LEVEL_NODE; level < MT_N_LEVEL; ++level) {
        grow->copy_ps[level] =
            mt_ps_message(&cluster->costs, (enum mt_level)level, cluster->expert_bytes);
        if (n_peer[level] > 0) {
            const int64_t kirow_ps = mt_ps_times(cluster->row_bytes, cluster->costs.kib_ps[level]);
            grow->kirow_ps =
                mt_max_i64(grow->kirow_ps, kirow_ps / n_other * n_peer[level] +
                                               kirow_ps % n_other * n_peer[level] / n_other);
            grow->message_ps = mt_max_i64(
                grow->message_ps, mt_ps_times(n_peer[level], cluster->costs.alpha_ps[level]));
        }
    }
}

int64_t mt_grow_exchange_ps(const struct mt_grow *grow)
{
    enum { KIB = 1024 };
    const int64_t even = grow->flow->n_row / grow->flow->n_rank;
    int64_t most = 0; /* rows that come to a rank, or leave it */
    for (int rank = 0; rank < grow->flow->n_rank; ++rank) {
        const struct mt_grow_rank *own = &grow->rank[rank];
        const int64_t n_token = grow->token == NULL ? even : grow->token[rank];
        most = mt_max_i64(most, mt_max_i64(own->n_row, n_token) - own->n_local_row);
    }
    return mt_ps_add(grow->message_ps, mt_ps_times(most, grow->kirow_ps) / KIB);
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
    enum { BACKWARD = 2, EXCHANGES = 4 };
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
    const int64_t exchange = mt_ps_times(EXCHANGES, mt_grow_exchange_ps(grow));
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
    }
    return is_reached;
}

/* Upwards from the least limit in growing steps, since most often that or little more suffices;
 * then bisection of the last step. */
static void find_limit(struct mt_grow *grow, int64_t least, int64_t most, struct best *best)
{
    int64_t low = least; /* no limit below it is reached */
    int64_t high = least;
    int64_t step = grow->rules.tolerance_row;
    while (high < most && !try_limit(grow, high, best)) {
        low = high + 1;
        high = mt_min_i64(high + step, most);
        step *= 2;
    }
    best->is_reached = best->is_reached || high == least;
    while (high - low >= grow->rules.tolerance_row) {
        const int64_t middle = low + (high - low) / 2;
        if (try_limit(grow, middle, best)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
}

/* Where slots are short, small copies waste them: then larger ones only are tried as well. */
int64_t mt_grow_search(struct mt_grow *grow, int64_t least, int64_t most)
{
    enum { SHARE = 16 }; /* of the mean: 6 % */
    const int64_t min_row = grow->rules.min_row;
    const int64_t mean = grow->flow->n_row / grow->flow->n_rank;
    struct best best = {.limit = most, .min_row = min_row};
    grow->largest_row = most; /* no moves: as mt_grow_reset left it */
    best.price = mt_grow_price(grow);
    grow->limit = -1;
    find_limit(grow, least, most, &best);
    if (grow->rules.is_thorough && !best.is_reached && best.limit - least > mean / GOOD_ENOUGH &&
        mean / SHARE > min_row) {
        grow->rules.min_row = mean / SHARE;
        find_limit(grow, least, most, &best);
    }
    if (grow->limit != best.limit || grow->rules.min_row != best.min_row) {
        grow->rules.min_row = best.min_row;
        (void)mt_grow_try(grow, best.limit);
    }
    return best.price;
}
