/* SparseAllGather by chains: an owner's chunks go from node to node in pieces, one behind the
 * other, so that every link carries them once, all at the same time.
 *
 *     chunk of rank 0, nodes {0 1} {2 3} {4 5}, pieces a b c        (round: who sends what to whom)
 *
 *     0: 0 -a-> 2   0 -a-> 1
 *     1: 0 -b-> 3   0 -b-> 1   2 -a-> 4   2 -a-> 3
 *     2: 0 -c-> 2   0 -c-> 1   3 -b-> 5   3 -b-> 2   4 -a-> 5
 *     3:                       2 -c-> 4   2 -c-> 3   5 -b-> 4
 *     4:                                             4 -c-> 5
 *
 * Members of a node take turns in receiving pieces from the node before; who has received one hands
 * it on and to the others in its node, a round later. Chunks whose owners share a node follow each
 * other on their chain; chains of different nodes run at the same time.
 * Rounds: P + M - 1, P pieces in all of the fullest chain, M nodes that hold them. Cost of n bytes
 * in pieces of p: (n / p + M - 2) (alpha + p beta), against log2(M) (alpha + n beta) of a tree, and
 * n beta that any way takes. Best piece: sqrt(n alpha / (beta (M - 2))), mt_chain_piece_bytes.
 * Wins where chunks are large beside alpha / beta, and hot: 4 MiB to all of 8 nodes of 8 on links
 * of 1 Gbit/s take 1.07 of the bound, by the relays of sparse_allgather_relay.c 4.1
 * (tests/comm/clockwork.h). */
#include "comm/collectives.h"

#include "base/size.h"

/* A rank's part in one chunk. */
struct part {
    const struct mt_chain_link *link;
    const struct mt_sparse *sparse;
    const struct mt_topology *topology;
    int64_t chunk, offset_bytes; /* in the rank's buffer */
    int buffer;
};

int64_t mt_chain_piece_bytes(int64_t chunk_bytes, int n_node, int64_t alpha_ps, int64_t kib_ps)
{
    enum { KIB = 1024, LEAST = 4 * KIB };
    /* The number of hops that pieces wait for; the piece grows until p p beta hops >= n alpha. */
    const int64_t n_hop = mt_max_i64(1, n_node - 2);
    int64_t piece = LEAST;
    while (piece < chunk_bytes && piece / KIB * (kib_ps * n_hop) < chunk_bytes / piece * alpha_ps) {
        piece += piece / 4 / KIB * KIB;
    }
    return mt_max_i64(LEAST, mt_min_i64(piece, chunk_bytes));
}

static int64_t n_piece(const struct mt_sparse *sparse, int64_t chunk, int64_t piece_bytes)
{
    return mt_ceil_div(sparse->chunk_bytes[chunk], piece_bytes);
}

/* Holders of the chunk in that node. */
static int64_t n_holder(const struct part *part, int node)
{
    int64_t n = 0;
    for (int64_t i = part->sparse->holder_start[part->chunk];
         i < part->sparse->holder_start[part->chunk + 1]; ++i) {
        n += part->topology->node[part->sparse->holder[i]] == node ? 1 : 0;
    }
    return n;
}

/* Who has piece `piece` first in that node: the owner in its own. */
static int head_of(const struct part *part, int node, int64_t piece)
{
    const int owner = part->sparse->owner[part->chunk];
    if (node == part->topology->node[owner]) {
        return owner;
    }
    int64_t turn = piece % n_holder(part, node);
    int64_t i = part->sparse->holder_start[part->chunk];
    while (part->topology->node[part->sparse->holder[i]] != node || turn-- > 0) {
        ++i;
    }
    return part->sparse->holder[i];
}

/* The next node on the chunk's chain after `node`, or -1. */
static int node_after(const struct part *part, int node)
{
    const int n_node = part->topology->n_node;
    const int first = part->topology->node[part->sparse->owner[part->chunk]];
    for (int next = (node + 1) % n_node; next != first; next = (next + 1) % n_node) {
        if (n_holder(part, next) > 0) {
            return next;
        }
    }
    return -1;
}

/* Fills what the rounds need to know of each chunk; returns how many rounds there are. */
static int64_t fill_links(const struct mt_topology *topology, int rank,
                          const struct mt_sparse *sparse, int64_t piece_bytes,
                          struct mt_chain_link *link)
{
    int64_t n_round = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        const struct part part = {.sparse = sparse, .topology = topology, .chunk = chunk};
        const int first = topology->node[sparse->owner[chunk]];
        struct mt_chain_link *own = &link[chunk];
        *own = (struct mt_chain_link){.hop = -1, .previous_node = -1, .next_node = -1};
        for (int64_t i = chunk - 1; i >= 0 && own->first_round == 0; --i) {
            own->first_round = topology->node[sparse->owner[i]] == first ? link[i].end_round : 0;
        }
        own->n_piece = sparse->holder_start[chunk + 1] > sparse->holder_start[chunk]
                           ? n_piece(sparse, chunk, piece_bytes)
                           : 0;
        own->end_round = own->first_round + own->n_piece;
        int previous = -1;
        int64_t hop = 0;
        for (int node = first; node >= 0 && own->n_piece > 0; node = node_after(&part, node)) {
            if (node == topology->node[rank]) {
                own->hop = hop;
                own->previous_node = previous;
                own->next_node = node_after(&part, node);
            }
            previous = node;
            ++hop;
        }
        n_round = mt_max_i64(n_round, own->end_round + hop);
    }
    return n_round;
}

static int64_t bytes_of(const struct part *part, int64_t piece, int64_t piece_bytes)
{
    return mt_min_i64(piece_bytes, part->sparse->chunk_bytes[part->chunk] - piece * piece_bytes);
}

/* The piece goes on: to the next node and to the others in this one. */
static void plan_sends(struct mt_plan *plan, int round, const struct part *part, int rank,
                       int64_t piece, int64_t piece_bytes)
{
    const int node = part->topology->node[rank];
    const int64_t offset = part->offset_bytes + piece * piece_bytes;
    const int64_t n_bytes = bytes_of(part, piece, piece_bytes);
    if (part->link->next_node >= 0) {
        mt_plan_send(plan, round, head_of(part, part->link->next_node, piece), part->buffer, offset,
                     n_bytes);
    }
    for (int64_t i = part->sparse->holder_start[part->chunk];
         i < part->sparse->holder_start[part->chunk + 1]; ++i) {
        const int holder = part->sparse->holder[i];
        if (part->topology->node[holder] == node && holder != rank) {
            mt_plan_send(plan, round, holder, part->buffer, offset, n_bytes);
        }
    }
}

/* One chunk's share of a round: the piece that is handed on in this node, and the one that comes
 * into it. */
static void plan_part(struct mt_plan *plan, int round, const struct part *part, int rank,
                      int64_t piece_bytes)
{
    const int64_t out = round - part->link->first_round - part->link->hop;
    const int64_t in = out + 1;
    const int node = part->topology->node[rank];
    if (out >= 0 && out < part->link->n_piece) {
        const int head = head_of(part, node, out);
        if (head == rank) {
            plan_sends(plan, round, part, rank, out, piece_bytes);
        } else {
            mt_plan_recv(plan, round, head, MT_BUFFER_RECV, part->offset_bytes + out * piece_bytes,
                         bytes_of(part, out, piece_bytes));
        }
    }
    if (part->link->hop > 0 && in >= 0 && in < part->link->n_piece &&
        head_of(part, node, in) == rank) {
        mt_plan_recv(plan, round, head_of(part, part->link->previous_node, in), MT_BUFFER_RECV,
                     part->offset_bytes + in * piece_bytes, bytes_of(part, in, piece_bytes));
    }
}

void mt_plan_sparse_allgather_chain(struct mt_plan *plan, const struct mt_topology *topology,
                                    int rank, const struct mt_sparse *sparse, int64_t piece_bytes,
                                    struct mt_chain_link *link, const int64_t *home_offset,
                                    const int64_t *copy_offset)
{
    const int64_t n_round = fill_links(topology, rank, sparse, piece_bytes, link);
    mt_plan_reset(plan, "sparse_allgather_chain", MT_ELEMENT_BYTE);
    for (int round = 0; round < n_round; ++round) {
        for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
            const bool is_owner = sparse->owner[chunk] == rank;
            if (link[chunk].hop < 0 || round + 1 < link[chunk].first_round ||
                round > link[chunk].end_round + link[chunk].hop ||
                !(is_owner || mt_sparse_is_held(sparse, chunk, rank))) {
                continue;
            }
            const struct part part = {.link = &link[chunk],
                                      .sparse = sparse,
                                      .topology = topology,
                                      .chunk = chunk,
                                      .offset_bytes =
                                          is_owner ? home_offset[chunk] : copy_offset[chunk],
                                      .buffer = is_owner ? MT_BUFFER_SEND : MT_BUFFER_RECV};
            plan_part(plan, round, &part, rank, piece_bytes);
        }
    }
}

int64_t mt_plan_sparse_chain_max_op(const struct mt_topology *topology, int rank,
                                    const struct mt_sparse *sparse, int64_t piece_bytes)
{
    const int64_t n_member = mt_topology_node_size(topology, topology->node[rank]);
    int64_t n_op = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] == rank || mt_sparse_is_held(sparse, chunk, rank)) {
            /* received, handed on, given to the others */
            n_op += n_piece(sparse, chunk, piece_bytes) * (n_member + 1);
        }
    }
    return n_op;
}
