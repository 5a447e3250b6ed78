/* Relays: who passes which chunk on to whom, in rounds. What both directions of a sparse
 * distribution that spreads its sending share; the plans are made from it in
 * sparse_allgather_relay.c and sparse_reduce_scatter_relay.c.
 *
 * Every rank routes the same distribution and gets the same list. Storage is made once. */
#ifndef MT_COMM_RELAY_H
#define MT_COMM_RELAY_H

#include "comm/topology.h"

#include <stdbool.h>

struct mt_sparse;

/* Messages that a rank sends, and receives, in a round at most. Two: the next is under way while
 * one is matched, and a reduction stages no more than two chunks. */
enum { MT_RELAY_PORTS = 2 };

/* Below this many bytes of its busiest sender a distribution is not worth several rounds. On 8
 * ranks of one machine relays took 0.22 ms instead of 0.08 where the owner alone would send 448
 * KiB, and about as long where it would send 7 MiB (2026-11-22, 2 cores). */
enum { MT_RELAY_WORTH_BYTES = 1 << 20 };

/* One copy's way: `from` has the chunk, `to` gets it. */
struct mt_hop {
    int chunk, round, from, to;
};

struct mt_relay;

/* For distributions over the ranks of `topology` (which must outlive it) of at most max_chunk
 * chunks with at most max_copy copies in all. Nobody relays where no owner alone would send
 * worth_bytes or more: MT_RELAY_WORTH_BYTES, or 0. */
enum mt_status mt_relay_create(const struct mt_topology *topology, int64_t max_chunk,
                               int64_t max_copy, int64_t worth_bytes, struct mt_relay **out);
void mt_relay_destroy(struct mt_relay *relay); /* NULL allowed */

struct mt_route_list {
    bool is_direct; /* owners send everything themselves */
    bool is_deep; /* else who does not own a chunk sends it after its one arrival from the owner */
    int n_round;
    int64_t n_hop;
    const struct mt_hop *hop; /* [n_hop] rounds ascending; valid until the next routing */
};
/* Chunks without bytes are left out. */
struct mt_route_list mt_relay_route(struct mt_relay *relay, const struct mt_sparse *sparse);

#endif
