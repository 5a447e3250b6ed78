/* What relay.c, relay_greedy.c and relay_fixed.c share. */
#ifndef MT_COMM_RELAY_INTERNAL_H
#define MT_COMM_RELAY_INTERNAL_H

#include "comm/collectives.h"

/* Holders of one chunk in one node that still want it (direct: all of them, whatever the node). */
struct group {
    int node;
    bool is_reached;        /* some rank of the node has it or is getting it */
    int64_t start, n_wants; /* in relay->wanting */
    int head, ready;        /* fixed order: who passes it on there, from which round */
};

/* What a rank can pass on: a chunk, and the group of its own node. */
struct stock {
    int chunk;
    int64_t group, next; /* next of the rank's list; -1: last */
};

struct mt_relay {
    const struct mt_topology *topology;
    int64_t max_chunk, max_copy, worth_bytes;
    bool is_direct; /* owners send everything themselves */
    int64_t n_hop, n_stock;
    struct mt_hop *hop, *sorted;     /* [max_copy] */
    int64_t *round_start;            /* [max_copy + 1] of the fixed order */
    int *wanting;                    /* [max_copy] ranks, by group */
    struct group *group;             /* [max_copy + max_chunk] */
    int64_t *group_start;            /* [max_chunk + 1] */
    int64_t *n_unreached, *n_having; /* [max_chunk] groups, ranks */
    struct stock *stock;             /* [max_copy + max_chunk] */
    int64_t *first_stock;            /* [R] -1: none */
    int *n_sent, *n_received;        /* [R] of the round; of all for the decision; in fixed order
                                        the next free slot, MT_RELAY_PORTS a round */
    int *n_got;                      /* [R] received so far */
    int64_t *node_count;             /* [M] scratch of one chunk: wanting ranks, then groups */
};

void mt_relay_zero_ports(struct mt_relay *relay);
/* `rank` can pass the chunk on from the next round. */
void mt_relay_add_stock(struct mt_relay *relay, int rank, int chunk, int64_t group);

/* Hops of all n_copy copies from the groups and stocks that relay.c has prepared; the number of
 * rounds. */
int mt_relay_route_greedy(struct mt_relay *relay, int64_t n_copy);
int mt_relay_route_fixed(struct mt_relay *relay, const struct mt_sparse *sparse);

#endif
