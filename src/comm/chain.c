/* Who hands which piece to whom, from a rank's own point of view: it lists only the chunks that it
 * owns or holds, so that a plan's time grows with what the rank does, not with the cluster. */
#include "comm/chain.h"

#include "base/memory.h"
#include "base/size.h"
#include "comm/collectives.h"

#include <string.h>

struct mt_chain {
    const struct mt_topology *topology;
    int64_t max_chunk, max_copy;
    struct mt_chain_part *part; /* [max_chunk] */
    int *member;                /* [3 max_copy] holders in a node, its neighbours on the chain */
    int64_t n_member;
    int *count;          /* [M] of the chunk at hand: holders in each node */
    int64_t *owner_end;  /* [R] round after the last piece that each owner has sent */
    int64_t *rank_op;    /* [R] */
    int64_t *n_arrival;  /* [R] */
    int64_t *sent_bytes; /* [R] of the owner's chunks */
};

enum mt_status mt_chain_create(const struct mt_topology *topology, int64_t max_chunk,
                               int64_t max_copy, struct mt_chain **out)
{
    enum { LISTS = 3 };
    struct mt_chain *chain = NULL;
    enum mt_status status = MT_OK;
    *out = NULL;
    MT_TRY_GOTO(MT_ALLOCATE(chain, 1, "chains"));
    chain->topology = topology;
    chain->max_chunk = max_chunk;
    chain->max_copy = max_copy;
    MT_TRY_GOTO(MT_ALLOCATE(chain->part, max_chunk, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->member, LISTS * max_copy, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->count, topology->n_node, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->owner_end, topology->n_rank, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->rank_op, topology->n_rank, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->n_arrival, topology->n_rank, "chains"));
    MT_TRY_GOTO(MT_ALLOCATE(chain->sent_bytes, topology->n_rank, "chains"));
    *out = chain;
    return MT_OK;
cleanup:
    mt_chain_destroy(chain);
    return status;
}

void mt_chain_destroy(struct mt_chain *chain)
{
    if (chain == NULL) {
        return;
    }
    mt_memory_free(chain->part);
    mt_memory_free(chain->member);
    mt_memory_free(chain->count);
    mt_memory_free(chain->owner_end);
    mt_memory_free(chain->rank_op);
    mt_memory_free(chain->n_arrival);
    mt_memory_free(chain->sent_bytes);
    mt_memory_free(chain);
}

static bool is_carried(const struct mt_sparse *sparse, int64_t chunk)
{
    return sparse->chunk_bytes[chunk] > 0 &&
           sparse->holder_start[chunk + 1] > sparse->holder_start[chunk];
}

/* count [M] = holders of the chunk in each node; returns how many nodes its chain has. */
static int count_holders(struct mt_chain *chain, const struct mt_sparse *sparse, int64_t chunk)
{
    const int *node = chain->topology->node;
    const int home = node[sparse->owner[chunk]];
    int n_node = 1;
    memset(chain->count, 0, (size_t)chain->topology->n_node * sizeof(*chain->count));
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        const int at = node[sparse->holder[i]];
        n_node += chain->count[at] == 0 && at != home ? 1 : 0;
        ++chain->count[at];
    }
    return n_node;
}

/* ---- parts ---- */

static int list_holders(struct mt_chain *chain, const struct mt_sparse *sparse, int64_t chunk,
                        int node, const int **holder)
{
    const int64_t first = chain->n_member;
    for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
        if (chain->topology->node[sparse->holder[i]] == node) {
            chain->member[chain->n_member++] = sparse->holder[i];
        }
    }
    *holder = chain->member + first;
    return (int)(chain->n_member - first);
}

/* Heads of the chain's next node after `node`, or before it; of none beyond its ends. */
static struct mt_chain_node neighbour(struct mt_chain *chain, const struct mt_sparse *sparse,
                                      int64_t chunk, int node, bool is_back)
{
    const int n_node = chain->topology->n_node;
    const int step = is_back ? n_node - 1 : 1;
    const int home = chain->topology->node[sparse->owner[chunk]];
    struct mt_chain_node heads = {NULL, 0};
    int at = (node + step) % n_node;
    while (at != home && at != node && chain->count[at] == 0) {
        at = (at + step) % n_node;
    }
    if (at != home) {
        heads.n_head = list_holders(chain, sparse, chunk, at, &heads.head);
    } else if (is_back && node != home) {
        heads = (struct mt_chain_node){&sparse->owner[chunk], 1};
    }
    return heads;
}

/* Nodes of the chain before `node`. */
static int64_t hop_of(const struct mt_chain *chain, int home, int node)
{
    int64_t hop = node == home ? 0 : 1;
    for (int at = (home + 1) % chain->topology->n_node; at != node && node != home;
         at = (at + 1) % chain->topology->n_node) {
        hop += chain->count[at] > 0 ? 1 : 0;
    }
    return hop;
}

static void add_part(struct mt_chain *chain, struct mt_chain_list *list, int rank,
                     const struct mt_sparse *sparse, struct mt_chain_part part)
{
    const struct mt_topology *topology = chain->topology;
    const int node = topology->node[rank];
    const int owner = sparse->owner[part.chunk];
    const int home = topology->node[owner];
    MT_ASSERT(list->n_part < chain->max_chunk);
    part.is_owner = owner == rank;
    part.turn = topology->local[owner];
    part.hop = hop_of(chain, home, node);
    part.n_holder = list_holders(chain, sparse, part.chunk, node, &part.holder);
    part.own = node == home ? (struct mt_chain_node){&sparse->owner[part.chunk], 1}
                            : (struct mt_chain_node){part.holder, part.n_holder};
    part.next = neighbour(chain, sparse, part.chunk, node, false);
    if (node != home) {
        part.previous = neighbour(chain, sparse, part.chunk, node, true);
    }
    chain->part[list->n_part++] = part;
}

struct mt_chain_list mt_chain_parts(struct mt_chain *chain, int rank,
                                    const struct mt_sparse *sparse, int64_t piece_bytes)
{
    struct mt_chain_list list = {.part = chain->part};
    MT_ASSERT(sparse->holder_start[sparse->n_chunk] <= chain->max_copy && piece_bytes > 0);
    chain->n_member = 0;
    memset(chain->owner_end, 0, (size_t)chain->topology->n_rank * sizeof(*chain->owner_end));
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (!is_carried(sparse, chunk)) {
            continue;
        }
        const int n_node = count_holders(chain, sparse, chunk);
        int64_t *end = &chain->owner_end[sparse->owner[chunk]];
        const struct mt_chain_part part = {
            .chunk = chunk,
            .first_round = *end,
            .n_piece = mt_ceil_div(sparse->chunk_bytes[chunk], piece_bytes)};
        *end += part.n_piece;
        list.n_round = mt_max_i64(list.n_round, *end + n_node - 1);
        if (sparse->owner[chunk] == rank || mt_sparse_is_held(sparse, chunk, rank)) {
            add_part(chain, &list, rank, sparse, part);
        }
    }
    return list;
}

/* ---- what chains need ---- */

struct mt_chain_extent mt_chain_extent(struct mt_chain *chain, const struct mt_sparse *sparse)
{
    struct mt_chain_extent extent = {0};
    memset(chain->sent_bytes, 0, (size_t)chain->topology->n_rank * sizeof(*chain->sent_bytes));
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (is_carried(sparse, chunk)) {
            const int n_node = count_holders(chain, sparse, chunk);
            int64_t *sent_bytes = &chain->sent_bytes[sparse->owner[chunk]];
            *sent_bytes += sparse->chunk_bytes[chunk];
            extent.n_node = n_node > extent.n_node ? n_node : extent.n_node;
            extent.n_bytes = mt_max_i64(extent.n_bytes, *sent_bytes);
            extent.largest_bytes = mt_max_i64(extent.largest_bytes, sparse->chunk_bytes[chunk]);
        }
    }
    return extent;
}

int64_t mt_chain_piece_bytes(int64_t n_bytes, int n_node, int64_t alpha_ps, int64_t kib_ps)
{
    /* A round costs every host on the way tens of microseconds beside what links take: 3 MiB in
     * pieces of 4 KiB, by links said to be free of alpha, took 3 ranks on 2 busy cores seconds. */
    enum { KIB = 1024, LEAST = 64 * KIB };
    /* The number of hops that pieces wait for; the piece grows until p p beta hops >= n alpha. */
    const int64_t n_hop = mt_max_i64(1, n_node - 2);
    int64_t piece = LEAST;
    while (piece < n_bytes && piece / KIB * (kib_ps * n_hop) < n_bytes / piece * alpha_ps) {
        piece += piece / 4 / KIB * KIB;
    }
    return mt_max_i64(LEAST, mt_min_i64(piece, n_bytes));
}

/* Of one rank in one chunk, as the head of all its pieces. The reduction's ops are counted: a
 * receive and an add where the gather has a send, and a send where that has a receive. */
static void add_needs(struct mt_chain *chain, int rank, bool is_owner, int64_t n_holder,
                      int64_t n_piece)
{
    const int64_t n_arrival = is_owner ? n_holder + 1 : n_holder;
    chain->rank_op[rank] += n_piece * (2 * n_arrival + 1);
    chain->n_arrival[rank] += n_arrival;
}

struct mt_chain_needs mt_chain_needs(struct mt_chain *chain, const struct mt_sparse *sparse,
                                     int64_t piece_bytes)
{
    const struct mt_topology *topology = chain->topology;
    struct mt_chain_needs needs = {0};
    memset(chain->rank_op, 0, (size_t)topology->n_rank * sizeof(*chain->rank_op));
    memset(chain->n_arrival, 0, (size_t)topology->n_rank * sizeof(*chain->n_arrival));
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (!is_carried(sparse, chunk)) {
            continue;
        }
        const int owner = sparse->owner[chunk];
        const int64_t n_piece = mt_ceil_div(sparse->chunk_bytes[chunk], piece_bytes);
        (void)count_holders(chain, sparse, chunk);
        add_needs(chain, owner, true, chain->count[topology->node[owner]], n_piece);
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            const int holder = sparse->holder[i];
            add_needs(chain, holder, false, chain->count[topology->node[holder]], n_piece);
        }
    }
    for (int rank = 0; rank < topology->n_rank; ++rank) {
        needs.n_op = mt_max_i64(needs.n_op, chain->rank_op[rank]);
        needs.n_arrival = mt_max_i64(needs.n_arrival, chain->n_arrival[rank]);
    }
    return needs;
}
