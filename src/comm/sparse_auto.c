/* Prices of the ways, and the choice.
 *
 * A round takes as long as its busiest port: of each rank, direction and level, what its messages
 * take one after another; between nodes at the rate that a rank has alone, and of each node at that
 * of all its links (mt_ps_link_kib). Direct: one round of all copies. Relays: the rounds of their
 * hops. Chains go in step: P rounds of the longest message, but no less than the busiest port's
 * pieces, and the hops that the last of them has to go. Heads of a node take turns, so of a round's
 * alpha only a head's share counts; hops take all of it.
 *
 * A chain must be a sixteenth cheaper: it has most rounds, which wait for the slowest of their
 * ranks. By the clock what is chosen takes at most 1.1 of the best for one expert, 1.3 for four.
 *
 * Pieces. Where it is not known what a rank takes alone, it may be as much as when all of its node
 * send, where each has a link of its own, or as many times less as the node has ranks, where they
 * share one. Then the piece is the mean of the best ones for either: on 8 ranks a node 1.9 of the
 * one and .7 of the other, which costs at most a fifth of what pieces cost at all.
 *
 * Reductions. By relays some node's link carries a chunk several times, along chains once. Chains
 * win where that decides: relays' busiest link has at least 1.5 of the bytes that chains bring it,
 * and a chunk has WORTH_BYTES for every node of the chain, so that a few dozen pieces are each long
 * beside any network's alpha (512 KiB are 10 us at 50 GB/s, 4 ms at 1 Gbit/s).
 *
 * Time, on one core of an EPYC for 64 ranks and 256 chunks, with the plan: 32 us for 266 copies (15
 * for relays alone), 1.1 ms where everything goes everywhere (0.3; 2026-11-22). */
#include "comm/sparse_auto.h"

#include "base/memory.h"
#include "base/ps.h"
#include "base/size.h"

#include <string.h>

enum { WORTH_BYTES = 512 << 10 };

struct port {
    int64_t out_ps[MT_N_LINK], in_ps[MT_N_LINK];
    int64_t out_bytes, in_bytes; /* between nodes */
};

struct mt_sparse_auto {
    const struct mt_topology *topology;
    struct mt_sparse_limits limits;
    struct mt_links links;
    bool has_links;
    struct mt_relay *relay;
    struct mt_chain *chain;
    struct port *port; /* [R] zeros between uses */
    int64_t *through;  /* [2,M] of each node: bytes that leave it, that enter it; scratch */
};

enum mt_status mt_sparse_auto_create(const struct mt_topology *topology, int64_t max_chunk,
                                     int64_t max_copy, const struct mt_sparse_limits *limits,
                                     struct mt_sparse_auto **out)
{
    struct mt_sparse_auto *ways = NULL;
    enum mt_status status = MT_OK;
    *out = NULL;
    MT_TRY_GOTO(MT_ALLOCATE(ways, 1, "sparse distributions"));
    ways->topology = topology;
    ways->limits = *limits;
    MT_TRY_GOTO(mt_relay_create(topology, max_chunk, max_copy, limits->worth_bytes, &ways->relay));
    MT_TRY_GOTO(mt_chain_create(topology, max_chunk, max_copy, &ways->chain));
    MT_TRY_GOTO(MT_ALLOCATE(ways->port, topology->n_rank, "sparse distributions"));
    MT_TRY_GOTO(MT_ALLOCATE(ways->through, 2 * (int64_t)topology->n_node, "sparse distributions"));
    *out = ways;
    return MT_OK;
cleanup:
    mt_sparse_auto_destroy(ways);
    return status;
}

void mt_sparse_auto_destroy(struct mt_sparse_auto *ways)
{
    if (ways == NULL) {
        return;
    }
    mt_memory_free(ways->through);
    mt_memory_free(ways->port);
    mt_chain_destroy(ways->chain);
    mt_relay_destroy(ways->relay);
    mt_memory_free(ways);
}

void mt_sparse_auto_set_links(struct mt_sparse_auto *ways, const struct mt_links *links)
{
    ways->links = *links;
    ways->has_links = links->kib_ps[MT_LINK_BETWEEN] > 0;
}

/* ---- prices ---- */

static enum mt_link link_between(const struct mt_sparse_auto *ways, int from, int to)
{
    const int *node = ways->topology->node;
    return node[from] == node[to] ? MT_LINK_INSIDE : MT_LINK_BETWEEN;
}

/* Of one rank that sends while the others of its node do not. */
static int64_t kib_ps(const struct mt_sparse_auto *ways, enum mt_link link)
{
    const struct mt_links *links = &ways->links;
    return link == MT_LINK_BETWEEN && links->alone_kib_ps > 0 ? links->alone_kib_ps
                                                              : links->kib_ps[link];
}

static int64_t message_ps(const struct mt_sparse_auto *ways, enum mt_link link, int64_t n_bytes)
{
    return mt_ps_carry(ways->links.alpha_ps[link], kib_ps(ways, link), n_bytes);
}

static void add_message(struct mt_sparse_auto *ways, int from, int to, int64_t n_bytes)
{
    const enum mt_link link = link_between(ways, from, to);
    const int64_t ps = message_ps(ways, link, n_bytes);
    int64_t *out = &ways->port[from].out_ps[link];
    int64_t *in = &ways->port[to].in_ps[link];
    *out = mt_ps_add(*out, ps);
    *in = mt_ps_add(*in, ps);
    if (link == MT_LINK_BETWEEN) {
        int64_t *out_bytes = &ways->port[from].out_bytes;
        int64_t *in_bytes = &ways->port[to].in_bytes;
        *out_bytes = mt_ps_add(*out_bytes, n_bytes);
        *in_bytes = mt_ps_add(*in_bytes, n_bytes);
    }
}

/* The busier direction of the node's links to others. */
static int64_t links_ps(const struct mt_sparse_auto *ways, int node)
{
    const struct mt_topology *topology = ways->topology;
    int64_t out_bytes = 0;
    int64_t in_bytes = 0;
    for (int i = topology->node_start[node]; i < topology->node_start[node + 1]; ++i) {
        const struct port *port = &ways->port[topology->member[i]];
        out_bytes = mt_ps_add(out_bytes, port->out_bytes);
        in_bytes = mt_ps_add(in_bytes, port->in_bytes);
    }
    const int64_t link_kib_ps = mt_ps_link_kib(
        ways->links.kib_ps[MT_LINK_BETWEEN], ways->links.alone_kib_ps,
        mt_ceil_div(topology->n_rank, topology->n_node), mt_topology_node_size(topology, node));
    return mt_ps_carry(0, link_kib_ps, mt_max_i64(out_bytes, in_bytes));
}

static int64_t busiest_ps(struct mt_sparse_auto *ways)
{
    const int n_rank = ways->topology->n_rank;
    int64_t busiest = 0;
    for (int node = 0; node < ways->topology->n_node; ++node) {
        busiest = mt_max_i64(busiest, links_ps(ways, node));
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        for (int link = 0; link < MT_N_LINK; ++link) {
            const struct port *port = &ways->port[rank];
            busiest = mt_max_i64(busiest, mt_max_i64(port->out_ps[link], port->in_ps[link]));
        }
    }
    memset(ways->port, 0, (size_t)n_rank * sizeof(*ways->port));
    return busiest;
}

static int64_t direct_ps(struct mt_sparse_auto *ways, const struct mt_sparse *sparse)
{
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            add_message(ways, sparse->owner[chunk], sparse->holder[i], sparse->chunk_bytes[chunk]);
        }
    }
    return busiest_ps(ways);
}

/* Rounds as mt_plan_sparse_allgather_relay makes them. */
static int64_t relay_ps(struct mt_sparse_auto *ways, const struct mt_sparse *sparse,
                        const struct mt_route_list *list)
{
    int64_t total_ps = 0;
    for (int round = 0; round < (list->is_deep ? 1 : 2); ++round) {
        for (int64_t i = 0; i < list->n_hop; ++i) {
            const struct mt_hop *hop = &list->hop[i];
            const bool is_own = sparse->owner[hop->chunk] == hop->from;
            if (list->is_deep && i > 0 && hop->round != list->hop[i - 1].round) {
                total_ps = mt_ps_add(total_ps, busiest_ps(ways));
            }
            if (list->is_deep || is_own == (round == 0)) {
                add_message(ways, hop->from, hop->to, sparse->chunk_bytes[hop->chunk]);
            }
        }
        total_ps = mt_ps_add(total_ps, busiest_ps(ways));
    }
    return total_ps;
}

/* Adds what the chunk's pieces take at the ports of those who have it, evenly, and returns what one
 * round of them takes. */
static int64_t add_chain(struct mt_sparse_auto *ways, const struct mt_sparse *sparse, int64_t chunk,
                         int64_t piece_bytes)
{
    const struct mt_topology *topology = ways->topology;
    const int owner = sparse->owner[chunk];
    const int home = topology->node[owner];
    const int64_t n_piece = mt_ceil_div(sparse->chunk_bytes[chunk], piece_bytes);
    const int64_t between_ps = message_ps(ways, MT_LINK_BETWEEN, piece_bytes);
    const int64_t inside_ps = message_ps(ways, MT_LINK_INSIDE, piece_bytes);
    int64_t *n_holder = ways->through;
    int64_t most = 0;
    memset(n_holder, 0, (size_t)topology->n_node * sizeof(*n_holder));
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        ++n_holder[topology->node[sparse->holder[i]]];
    }
    int64_t least_heads = 0; /* ranks of a node that pieces come to in turn; 0: it has no others */
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        const int node = topology->node[sparse->holder[i]];
        struct port *port = &ways->port[sparse->holder[i]];
        const int64_t n = n_holder[node];
        const int64_t n_inside = node == home ? n_piece : n_piece * (n - 1) / n;
        port->in_ps[MT_LINK_INSIDE] =
            mt_ps_add(port->in_ps[MT_LINK_INSIDE], mt_ps_times(n_inside, inside_ps));
        if (node != home) {
            const int64_t far_ps = mt_ps_times(n_piece, between_ps) / n;
            const int64_t near_ps = mt_ps_times(n_piece * (n - 1), inside_ps) / n;
            port->in_ps[MT_LINK_BETWEEN] = mt_ps_add(port->in_ps[MT_LINK_BETWEEN], far_ps);
            port->out_ps[MT_LINK_BETWEEN] = mt_ps_add(port->out_ps[MT_LINK_BETWEEN], far_ps);
            port->in_bytes = mt_ps_add(port->in_bytes, sparse->chunk_bytes[chunk] / n);
            port->out_bytes = mt_ps_add(port->out_bytes, sparse->chunk_bytes[chunk] / n);
            port->out_ps[MT_LINK_INSIDE] = mt_ps_add(port->out_ps[MT_LINK_INSIDE], near_ps);
            least_heads = least_heads == 0 ? n : mt_min_i64(least_heads, n);
        }
        most = mt_max_i64(most, node == home ? n : n - 1);
    }
    struct port *port = &ways->port[owner];
    const int64_t far_ps =
        least_heads > 0 ? mt_ps_carry(0, kib_ps(ways, MT_LINK_BETWEEN), n_piece * piece_bytes) : 0;
    port->out_ps[MT_LINK_BETWEEN] = mt_ps_add(port->out_ps[MT_LINK_BETWEEN], far_ps);
    port->out_bytes = mt_ps_add(port->out_bytes, least_heads > 0 ? sparse->chunk_bytes[chunk] : 0);
    port->out_ps[MT_LINK_INSIDE] =
        mt_ps_add(port->out_ps[MT_LINK_INSIDE], mt_ps_times(n_piece * n_holder[home], inside_ps));
    const int64_t round_ps = least_heads == 0
                                 ? 0
                                 : mt_ps_carry(ways->links.alpha_ps[MT_LINK_BETWEEN] / least_heads,
                                               kib_ps(ways, MT_LINK_BETWEEN), piece_bytes);
    return mt_max_i64(round_ps, mt_ps_times(most, inside_ps));
}

static int64_t chain_ps(struct mt_sparse_auto *ways, const struct mt_sparse *sparse,
                        int64_t piece_bytes)
{
    const struct mt_chain_extent extent = mt_chain_extent(ways->chain, sparse);
    const int64_t n_hop = extent.n_node > 1 ? extent.n_node - 2 : 0;
    int64_t round_ps = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->holder_start[chunk + 1] > sparse->holder_start[chunk]) {
            round_ps = mt_max_i64(round_ps, add_chain(ways, sparse, chunk, piece_bytes));
        }
    }
    const int64_t n_piece = mt_ceil_div(extent.n_bytes, piece_bytes);
    const int64_t steps_ps = mt_ps_times(n_piece, round_ps);
    const int64_t hop_ps = mt_max_i64(round_ps, message_ps(ways, MT_LINK_BETWEEN, piece_bytes));
    const int64_t way_ps = mt_ps_times(n_hop, hop_ps);
    return mt_ps_add(mt_max_i64(steps_ps, busiest_ps(ways)), mt_ps_add(way_ps, hop_ps - round_ps));
}

int64_t mt_sparse_way_ps(struct mt_sparse_auto *ways, const struct mt_sparse *sparse,
                         const struct mt_sparse_choice *choice)
{
    if (choice->way == MT_SPARSE_RELAY) {
        const struct mt_route_list list = mt_relay_route(ways->relay, sparse);
        return relay_ps(ways, sparse, &list);
    }
    return choice->way == MT_SPARSE_DIRECT ? direct_ps(ways, sparse)
                                           : chain_ps(ways, sparse, choice->piece_bytes);
}

/* ---- the choice ---- */

/* The best piece as far as links are known, larger while the plan would have too many ops; 0: there
 * is none of at most most_bytes. */
static int64_t choose_piece(struct mt_sparse_auto *ways, const struct mt_sparse *sparse,
                            const struct mt_chain_extent *extent, int64_t most_bytes)
{
    enum { KIB = 1024, PIECES = 32 };
    const struct mt_topology *topology = ways->topology;
    const int64_t alpha_ps = ways->links.alpha_ps[MT_LINK_BETWEEN];
    const int64_t alone_ps = kib_ps(ways, MT_LINK_BETWEEN);
    const int n_sharing = ways->links.alone_kib_ps > 0 ? 1 : topology->n_rank / topology->n_node;
    int64_t piece =
        (mt_chain_piece_bytes(extent->n_bytes, extent->n_node, alpha_ps, alone_ps) +
         mt_chain_piece_bytes(extent->n_bytes, extent->n_node, alpha_ps, alone_ps / n_sharing)) /
        2;
    piece = ways->has_links ? piece : extent->n_bytes / PIECES;
    piece = mt_min_i64(mt_round_up(piece, KIB), most_bytes);
    while (piece > 0 && mt_chain_needs(ways->chain, sparse, piece).n_op > ways->limits.max_op) {
        piece = piece < most_bytes ? mt_min_i64(2 * piece, most_bytes) : 0;
    }
    return piece;
}

struct mt_sparse_choice mt_sparse_choose_gather(struct mt_sparse_auto *ways,
                                                const struct mt_sparse *sparse)
{
    enum { SHARE = 16 };
    struct mt_sparse_choice best = {.way = MT_SPARSE_RELAY};
    if (!ways->has_links) {
        return best;
    }
    int64_t least_ps = mt_sparse_way_ps(ways, sparse, &best);
    if (direct_ps(ways, sparse) <= least_ps) {
        best.way = MT_SPARSE_DIRECT;
        least_ps = mt_sparse_way_ps(ways, sparse, &best);
    }
    const struct mt_chain_extent extent = mt_chain_extent(ways->chain, sparse);
    if (extent.n_node < 2) {
        return best;
    }
    struct mt_sparse_choice chain = {.way = MT_SPARSE_CHAIN};
    chain.piece_bytes = choose_piece(ways, sparse, &extent, extent.largest_bytes);
    best.piece_bytes = chain.piece_bytes;
    return chain.piece_bytes > 0 &&
                   mt_sparse_way_ps(ways, sparse, &chain) < least_ps / SHARE * (SHARE - 1)
               ? chain
               : best;
}

/* Most bytes that some node's link carries in one direction. */
static int64_t busiest_bytes(const struct mt_sparse_auto *ways)
{
    int64_t most = 0;
    for (int i = 0; i < 2 * ways->topology->n_node; ++i) {
        most = mt_max_i64(most, ways->through[i]);
    }
    return most;
}

static int64_t relay_bytes(struct mt_sparse_auto *ways, const struct mt_sparse *sparse)
{
    const struct mt_topology *topology = ways->topology;
    const struct mt_route_list list = mt_relay_route(ways->relay, sparse);
    memset(ways->through, 0, 2 * (size_t)topology->n_node * sizeof(*ways->through));
    for (int64_t i = 0; i < list.n_hop; ++i) {
        const struct mt_hop *hop = &list.hop[i];
        if (link_between(ways, hop->from, hop->to) == MT_LINK_BETWEEN) {
            const int64_t n_bytes = sparse->chunk_bytes[hop->chunk];
            ways->through[topology->node[hop->from]] += n_bytes;
            ways->through[topology->n_node + topology->node[hop->to]] += n_bytes;
        }
    }
    return busiest_bytes(ways);
}

/* Each node of a chunk's chain has it once, in and out. */
static int64_t chain_bytes(struct mt_sparse_auto *ways, const struct mt_sparse *sparse)
{
    const struct mt_topology *topology = ways->topology;
    int64_t *last = ways->through + topology->n_node; /* chunk that the node was counted for */
    memset(ways->through, 0, 2 * (size_t)topology->n_node * sizeof(*ways->through));
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        const int64_t start = sparse->holder_start[chunk];
        const int64_t end = sparse->holder_start[chunk + 1];
        for (int64_t i = start - 1; i < end && start < end; ++i) { /* the owner, then holders */
            const int rank = i < start ? sparse->owner[chunk] : sparse->holder[i];
            const int node = topology->node[rank];
            ways->through[node] += last[node] != chunk + 1 ? sparse->chunk_bytes[chunk] : 0;
            last[node] = chunk + 1;
        }
    }
    memset(last, 0, (size_t)topology->n_node * sizeof(*last));
    return busiest_bytes(ways);
}

struct mt_sparse_choice mt_sparse_choose_reduce(struct mt_sparse_auto *ways,
                                                const struct mt_sparse *sparse)
{
    enum { KIB = 1024 };
    struct mt_sparse_choice choice = {.way = MT_SPARSE_RELAY};
    const struct mt_chain_extent extent = mt_chain_extent(ways->chain, sparse);
    if (extent.n_node < 2 || extent.largest_bytes / extent.n_node < WORTH_BYTES) {
        return choice;
    }
    const struct mt_chain_needs needs = mt_chain_needs(ways->chain, sparse, extent.largest_bytes);
    const int64_t room = ways->limits.stage_bytes / needs.n_arrival / KIB * KIB;
    const int64_t most = mt_min_i64(room, extent.largest_bytes);
    choice.piece_bytes = choose_piece(ways, sparse, &extent, most);
    if (choice.piece_bytes > 0 && 2 * relay_bytes(ways, sparse) >= 3 * chain_bytes(ways, sparse)) {
        choice.way = MT_SPARSE_CHAIN;
    }
    return choice;
}

void mt_plan_sparse_allgather_auto(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                   struct mt_sparse_auto *ways, const int64_t *home_offset,
                                   const int64_t *copy_offset)
{
    const struct mt_sparse_choice choice = mt_sparse_choose_gather(ways, sparse);
    switch (choice.way) {
    case MT_SPARSE_DIRECT:
        mt_plan_sparse_allgather(plan, rank, sparse, home_offset, copy_offset);
        break;
    case MT_SPARSE_CHAIN:
        mt_plan_sparse_allgather_chain(plan, rank, sparse, ways->chain, choice.piece_bytes,
                                       home_offset, copy_offset);
        break;
    case MT_SPARSE_RELAY:
    case MT_N_SPARSE_WAY:
    default:
        mt_plan_sparse_allgather_relay(plan, rank, sparse, ways->relay, home_offset, copy_offset);
    }
}

void mt_plan_sparse_reduce_scatter_auto(struct mt_plan *plan, int rank,
                                        const struct mt_sparse *sparse, struct mt_sparse_auto *ways,
                                        const int64_t *const offset[2], enum mt_element element)
{
    const struct mt_sparse_choice choice = mt_sparse_choose_reduce(ways, sparse);
    if (choice.way == MT_SPARSE_CHAIN) {
        mt_plan_sparse_reduce_scatter_chain(plan, rank, sparse, ways->chain, choice.piece_bytes,
                                            offset, element);
        return;
    }
    mt_plan_sparse_reduce_scatter_relay(plan, rank, sparse, ways->relay, offset[0], offset[1],
                                        element);
}
