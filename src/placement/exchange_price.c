/* What one exchange takes by alpha and beta of links: rounds of messages that gather at ports. */
#include "placement/exchange.h"

#include "base/ps.h"
#include "base/size.h"

#include <string.h>

/* What a rank sends, and receives, in a round. */
enum direction { OUT, IN, N_DIRECTION };
struct port {
    int64_t n_message[N_DIRECTION][MT_N_LEVEL], n_bytes[N_DIRECTION][MT_N_LEVEL];
};

/* A round's messages gather at ports; then the round's time is added up. */
struct pricing {
    const struct mt_cluster *cluster;
    const struct mt_exchange_rows *rows;
    bool is_back;
    bool begins_together; /* the round under way, every rank */
    int *local;           /* [R] index within the node */
    struct port *port;    /* [R] of the round under way */
    int64_t *sum;         /* [R] zeros between uses */
    int64_t total_ps;
};

static int node_size(const struct mt_cluster *cluster, int node)
{
    return cluster->node_start[node + 1] - cluster->node_start[node];
}

/* Rows that go from `source` to `target` in the direction at hand. */
static int64_t n_row(const struct pricing *pricing, int source, int target)
{
    const int n_rank = pricing->cluster->n_rank;
    return pricing->rows->n_row[pricing->is_back ? (int64_t)target * n_rank + source
                                                 : (int64_t)source * n_rank + target];
}

static void add_message(struct pricing *pricing, int from, int to, int64_t n)
{
    if (n == 0 || from == to) {
        return;
    }
    const enum mt_level level = mt_cluster_level(pricing->cluster, from, to);
    const int64_t n_bytes = mt_ps_times(n, pricing->rows->row_bytes);
    const int end[N_DIRECTION] = {[OUT] = from, [IN] = to};
    for (int direction = OUT; direction <= IN; ++direction) {
        struct port *port = &pricing->port[end[direction]];
        int64_t *sum = &port->n_bytes[direction][level];
        *sum = mt_ps_add(*sum, n_bytes);
        ++port->n_message[direction][level];
    }
}

/* Bytes between nodes, of all ranks of the node together. */
static int64_t crossing_bytes(const struct pricing *pricing, int node, enum direction direction)
{
    const struct mt_cluster *cluster = pricing->cluster;
    int64_t n_bytes = 0;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        const struct port *port = &pricing->port[cluster->member[i]];
        n_bytes = mt_ps_add(n_bytes, port->n_bytes[direction][MT_LEVEL_NETWORK]);
    }
    return n_bytes;
}

/* Bytes one after another, and the last one's message. */
static int64_t sending_ps(int64_t n_bytes, int64_t alpha_ps, int64_t kib_ps)
{
    return n_bytes == 0 ? 0 : mt_ps_carry(alpha_ps, kib_ps, n_bytes);
}

/* What `rank` receives from other nodes takes. A message takes alpha where it arrives. Where ranks
 * of a node share a link and all began together, messages come in turn: the first waits for one of
 * each other. If not, some come behind all of the others: those of who has most to pass on, so
 * others' bytes count up to its own. */
static int64_t arrival_ps(const struct pricing *pricing, int rank)
{
    const struct mt_cluster *cluster = pricing->cluster;
    const int node = cluster->node[rank];
    const int64_t n_other = node_size(cluster, node) - 1;
    const int64_t n_message = pricing->port[rank].n_message[IN][MT_LEVEL_NETWORK];
    const int64_t n_own = pricing->port[rank].n_bytes[IN][MT_LEVEL_NETWORK];
    int64_t n_bytes = 0;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        const int64_t n = pricing->port[cluster->member[i]].n_bytes[IN][MT_LEVEL_NETWORK];
        n_bytes = mt_ps_add(n_bytes, mt_min_i64(n, n_own));
    }
    if (n_message == 0) {
        return 0;
    }
    const int64_t own_ps = mt_ps_port(n_message, cluster->costs.alpha_ps[MT_LEVEL_NETWORK],
                                      mt_cluster_alone_kib_ps(cluster), n_own);
    /* beyond the rank's own share of the links: nothing where each has its own */
    const int64_t all_ps = mt_ps_times(n_other + 1, mt_cluster_link_kib_ps(cluster, node));
    const int64_t beyond_ps = mt_max_i64(0, all_ps - mt_cluster_alone_kib_ps(cluster));
    const int64_t waiting_ps =
        n_other > 0 ? mt_ps_carry(0, beyond_ps / n_other, n_bytes - n_own) : 0;
    return mt_ps_add(own_ps, waiting_ps / (pricing->begins_together ? n_message : 1));
}

/* What the rank's own ports take. */
static int64_t rank_ps(const struct pricing *pricing, int rank)
{
    const int64_t *alpha_ps = pricing->cluster->costs.alpha_ps;
    const int64_t near_ps = pricing->cluster->costs.kib_ps[MT_LEVEL_NODE];
    const int64_t far_ps = mt_cluster_alone_kib_ps(pricing->cluster);
    const struct port *port = &pricing->port[rank];
    const int64_t *n_in = port->n_bytes[IN];
    const int64_t *n_out = port->n_bytes[OUT];
    const int64_t near_in = mt_ps_port(port->n_message[IN][MT_LEVEL_NODE], alpha_ps[MT_LEVEL_NODE],
                                       near_ps, n_in[MT_LEVEL_NODE]);
    const int64_t near_out = sending_ps(n_out[MT_LEVEL_NODE], alpha_ps[MT_LEVEL_NODE], near_ps);
    const int64_t far_out = sending_ps(n_out[MT_LEVEL_NETWORK], alpha_ps[MT_LEVEL_NETWORK], far_ps);
    return mt_max_i64(mt_max_i64(near_in, near_out),
                      mt_max_i64(arrival_ps(pricing, rank), far_out));
}

/* The node's links to others. */
static int64_t links_ps(const struct pricing *pricing, int node, enum direction direction)
{
    return sending_ps(crossing_bytes(pricing, node, direction),
                      pricing->cluster->costs.alpha_ps[MT_LEVEL_NETWORK],
                      mt_cluster_link_kib_ps(pricing->cluster, node));
}

static void end_round(struct pricing *pricing)
{
    const struct mt_cluster *cluster = pricing->cluster;
    const int64_t first_ps = rank_ps(pricing, 0);
    int64_t busiest = first_ps;
    bool ends_together = true;
    for (int rank = 1; rank < cluster->n_rank; ++rank) {
        const int64_t ps = rank_ps(pricing, rank);
        ends_together = ends_together && ps == first_ps;
        busiest = mt_max_i64(busiest, ps);
    }
    for (int node = 0; node < cluster->n_node; ++node) {
        busiest = mt_max_i64(busiest, links_ps(pricing, node, OUT));
        busiest = mt_max_i64(busiest, links_ps(pricing, node, IN));
    }
    pricing->begins_together = pricing->begins_together && ends_together;
    pricing->total_ps = mt_ps_add(pricing->total_ps, busiest);
    memset(pricing->port, 0, (size_t)cluster->n_rank * sizeof(pricing->port[0]));
}

/* Who works for `rank` in another node, as in comm/exchange.h. */
static int worker_of(const struct pricing *pricing, int rank, int node)
{
    const struct mt_cluster *cluster = pricing->cluster;
    return cluster
        ->member[cluster->node_start[node] + pricing->local[rank] % node_size(cluster, node)];
}

/* Messages from rank to rank: all of them, or those that stay in a node. */
static void price_pairs(struct pricing *pricing, bool is_inside)
{
    const struct mt_cluster *cluster = pricing->cluster;
    for (int source = 0; source < cluster->n_rank; ++source) {
        for (int target = 0; target < cluster->n_rank; ++target) {
            if (!is_inside || cluster->node[source] == cluster->node[target]) {
                add_message(pricing, source, target, n_row(pricing, source, target));
            }
        }
    }
}

/* Rows of the ranks of `node` for one target. */
static int64_t n_from_node(const struct pricing *pricing, int node, int target)
{
    const struct mt_cluster *cluster = pricing->cluster;
    int64_t n = 0;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        n += n_row(pricing, cluster->member[i], target);
    }
    return n;
}

/* Rows of one source for the ranks of `node`. */
static int64_t n_to_node(const struct pricing *pricing, int source, int node)
{
    const struct mt_cluster *cluster = pricing->cluster;
    int64_t n = 0;
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        n += n_row(pricing, source, cluster->member[i]);
    }
    return n;
}

/* Messages between `rank` and the members of its node: their sums, which become zeros. */
static void add_sums(struct pricing *pricing, int rank, bool is_from_rank)
{
    const struct mt_cluster *cluster = pricing->cluster;
    const int node = cluster->node[rank];
    for (int i = cluster->node_start[node]; i < cluster->node_start[node + 1]; ++i) {
        const int member = cluster->member[i];
        add_message(pricing, is_from_rank ? rank : member, is_from_rank ? member : rank,
                    pricing->sum[member]);
        pricing->sum[member] = 0;
    }
}

static void price_two_level(struct pricing *pricing)
{
    const struct mt_cluster *cluster = pricing->cluster;
    for (int source = 0; source < cluster->n_rank; ++source) {
        const int node = cluster->node[source];
        for (int target = 0; target < cluster->n_rank; ++target) {
            if (cluster->node[target] != node) {
                pricing->sum[worker_of(pricing, target, node)] += n_row(pricing, source, target);
            }
        }
        add_sums(pricing, source, true);
    }
    end_round(pricing);
    for (int node = 0; node < cluster->n_node; ++node) {
        for (int target = 0; target < cluster->n_rank; ++target) {
            if (cluster->node[target] != node) {
                add_message(pricing, worker_of(pricing, target, node), target,
                            n_from_node(pricing, node, target));
            }
        }
    }
    price_pairs(pricing, true);
    end_round(pricing);
}

/* Between leaders and their members; is_out: what leaves the nodes, else what enters them. */
static void price_members(struct pricing *pricing, bool is_out)
{
    const struct mt_cluster *cluster = pricing->cluster;
    for (int rank = 0; rank < cluster->n_rank; ++rank) {
        const int leader = cluster->member[cluster->node_start[cluster->node[rank]]];
        int64_t n = 0;
        for (int node = 0; node < cluster->n_node; ++node) {
            if (node != cluster->node[rank]) {
                n += is_out ? n_to_node(pricing, rank, node) : n_from_node(pricing, node, rank);
            }
        }
        add_message(pricing, is_out ? rank : leader, is_out ? leader : rank, n);
    }
    end_round(pricing);
}

static void price_leader(struct pricing *pricing)
{
    const struct mt_cluster *cluster = pricing->cluster;
    price_pairs(pricing, true); /* members send all they have at once */
    price_members(pricing, true);
    for (int from = 0; from < cluster->n_node; ++from) {
        for (int to = 0; to < cluster->n_node; ++to) {
            int64_t n = 0;
            for (int i = cluster->node_start[to]; i < cluster->node_start[to + 1] && from != to;
                 ++i) {
                n += n_from_node(pricing, from, cluster->member[i]);
            }
            add_message(pricing, cluster->member[cluster->node_start[from]],
                        cluster->member[cluster->node_start[to]], n);
        }
    }
    end_round(pricing);
    price_members(pricing, false);
}

/* Rounds of the way there; back they are the same in the other order. `there` names blocks by
 * (tokens, experts) in either direction. */
static void price_deduplicated(struct pricing *pricing)
{
    const struct mt_cluster *cluster = pricing->cluster;
    const struct pricing there = {
        .cluster = cluster, .rows = pricing->rows, .local = pricing->local};
    for (int source = 0; source < cluster->n_rank; ++source) {
        int64_t n_all = 0;
        for (int node = 0; node < cluster->n_node; ++node) {
            n_all += n_to_node(&there, source, node);
        }
        for (int node = 0; node < cluster->n_node; ++node) {
            if (node != cluster->node[source]) {
                const int worker = worker_of(pricing, source, node);
                const int64_t n = mt_exchange_n_token(n_to_node(&there, source, node), n_all,
                                                      pricing->rows->top_k);
                add_message(pricing, pricing->is_back ? worker : source,
                            pricing->is_back ? source : worker, n);
            }
        }
    }
    end_round(pricing);
    for (int target = 0; target < cluster->n_rank; ++target) {
        const int node = cluster->node[target];
        for (int source = 0; source < cluster->n_rank; ++source) {
            if (cluster->node[source] != node) {
                pricing->sum[worker_of(pricing, source, node)] += n_row(&there, source, target);
            }
        }
        add_sums(pricing, target, pricing->is_back);
    }
    price_pairs(pricing, true);
    end_round(pricing);
}

static bool has_even_nodes(const struct mt_cluster *cluster)
{
    bool is_even = true;
    for (int node = 1; node < cluster->n_node; ++node) {
        is_even = is_even && node_size(cluster, node) == node_size(cluster, 0);
    }
    return is_even;
}

int64_t mt_exchange_ps(const struct mt_cluster *cluster, enum mt_exchange_kind kind,
                       const struct mt_exchange_rows *rows, bool is_back, struct mt_arena *scratch)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int64_t port_bytes = cluster->n_rank * (int64_t)sizeof(struct port);
    const int64_t sum_bytes = cluster->n_rank * (int64_t)sizeof(int64_t);
    struct pricing pricing = {.cluster = cluster,
                              .rows = rows,
                              .is_back = is_back,
                              .begins_together = has_even_nodes(cluster),
                              .local =
                                  mt_arena_cut(scratch, cluster->n_rank * (int64_t)sizeof(int)),
                              .port = mt_arena_cut(scratch, port_bytes),
                              .sum = mt_arena_cut(scratch, sum_bytes)};
    memset(pricing.port, 0, (size_t)port_bytes);
    memset(pricing.sum, 0, (size_t)sum_bytes);
    for (int i = 0; i < cluster->n_rank; ++i) {
        const int rank = cluster->member[i];
        pricing.local[rank] = i - cluster->node_start[cluster->node[rank]];
    }
    switch (kind) {
    case MT_EXCHANGE_TWO_LEVEL:
        price_two_level(&pricing);
        break;
    case MT_EXCHANGE_LEADER:
        price_leader(&pricing);
        break;
    case MT_EXCHANGE_DEDUPLICATED:
        price_deduplicated(&pricing);
        break;
    case MT_EXCHANGE_DIRECT:
    case MT_N_EXCHANGE:
    default:
        price_pairs(&pricing, false);
        end_round(&pricing);
    }
    mt_arena_release(scratch, mark);
    return pricing.total_ps;
}

int64_t mt_exchange_scratch_bytes(int n_rank)
{
    enum { CUTS = 3, ALIGNMENT_BYTES = 64 };
    const int64_t per_rank = (int64_t)(sizeof(int) + sizeof(struct port) + sizeof(int64_t));
    return n_rank * per_rank + (int64_t)CUTS * ALIGNMENT_BYTES;
}

int64_t mt_exchange_n_token(int64_t n, int64_t n_all, int64_t top_k)
{
    /* Shares in units of 2^-20: a millionth of a source's tokens is less than one of them, and
     * counts below 2^43 rows do not overflow. */
    enum { ONE = 1 << 20 };
    if (n == 0) {
        return 0;
    }
    const int64_t missed = (n_all - n) * ONE / n_all;
    int64_t none = ONE;
    for (int64_t k = 0; k < top_k; ++k) {
        none = none * missed / ONE;
    }
    const int64_t n_token = mt_ceil_div(n_all, top_k);
    const int64_t expected = mt_ceil_div(n_token * (ONE - none), ONE);
    return mt_max_i64(mt_ceil_div(n, top_k), mt_min_i64(expected, n));
}
