/* Chains: chunks go from node to node in pieces, one behind the other. What both directions of a
 * sparse distribution along chains share; the plans are made from it in sparse_allgather_chain.c
 * and sparse_reduce_scatter_chain.c, and when they win stands there.
 *
 *     owner's node      the next that has holders      ...      the last
 *     {0 1}        ->   {2 3}                          ->       {4 5}
 *
 * A chunk's chain goes through the nodes of its holders in ascending order from the owner's node
 * on, around. In each some holder is a piece's head: it has the piece first, and hands it on to the
 * next node's head and to the others of its own. In its own node the owner is the head of all.
 * Chunks of one owner follow each other; those of different owners go at the same time.
 * Piece p of a chunk is handed on at hop h in round first_round + h + p. Storage is made once. */
#ifndef MT_COMM_CHAIN_H
#define MT_COMM_CHAIN_H

#include "comm/topology.h"

#include <stdbool.h>

struct mt_sparse;

/* Ranks of a node that can have a piece first. n_head = 0: there is no such node. */
struct mt_chain_node {
    const int *head;
    int n_head;
};

/* This rank's part in one chunk that it owns or holds. */
struct mt_chain_part {
    int64_t chunk, first_round, n_piece, hop;
    bool is_owner;
    int turn; /* of the heads, at piece 0: chains of one node's owners do not meet at one rank */
    struct mt_chain_node previous, own, next;
    const int *holder; /* [n_holder] of the chunk in this rank's node, ascending */
    int n_holder;
};

struct mt_chain_list {
    int64_t n_part, n_round;          /* rounds of all ranks */
    const struct mt_chain_part *part; /* [n_part] by chunk; valid until the next listing */
};

struct mt_chain;

/* As mt_relay_create. */
enum mt_status mt_chain_create(const struct mt_topology *topology, int64_t max_chunk,
                               int64_t max_copy, struct mt_chain **out);
void mt_chain_destroy(struct mt_chain *chain); /* NULL allowed */

/* Holders are without the owner, and every rank has the same distribution. Chunks without bytes are
 * left out. */
struct mt_chain_list mt_chain_parts(struct mt_chain *chain, int rank,
                                    const struct mt_sparse *sparse, int64_t piece_bytes);

/* Heads take turns: of piece `piece`. Who wants the same for all asks for 0. */
static inline int mt_chain_head(const struct mt_chain_part *part, const struct mt_chain_node *node,
                                int64_t piece)
{
    return node->head[(piece + part->turn) % node->n_head];
}

/* The longest chain's nodes, and the most bytes of one owner's chunks that are held at all. */
struct mt_chain_extent {
    int n_node;
    int64_t n_bytes, largest_bytes; /* of all such chunks, of one */
};
struct mt_chain_extent mt_chain_extent(struct mt_chain *chain, const struct mt_sparse *sparse);

/* The piece by which n_bytes are soonest on n_node nodes, about; at least 64 KiB, or all. */
int64_t mt_chain_piece_bytes(int64_t n_bytes, int n_node, int64_t alpha_ps, int64_t kib_ps);

/* Over all ranks: the most ops of a plan in either direction, and the most pieces that come to one
 * in a round of the reduction. */
struct mt_chain_needs {
    int64_t n_op, n_arrival;
};
struct mt_chain_needs mt_chain_needs(struct mt_chain *chain, const struct mt_sparse *sparse,
                                     int64_t piece_bytes);

#endif
