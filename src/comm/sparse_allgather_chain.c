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
 * Rounds: P + M - 1, P pieces in all of the owner that has most, M nodes that hold them. Cost of n
 * bytes in pieces of p: (n / p + M - 2) (alpha + p beta), against log2(M) (alpha + n beta) of a
 * tree, and n beta that any way takes. Best piece: sqrt(n alpha / (beta (M - 2))),
 * mt_chain_piece_bytes. Wins where chunks are large beside alpha / beta, and hot: 4 MiB to all of 8
 * nodes of 8 on links of 1 Gbit/s take 1.10 of the bound, by the relays of
 * sparse_allgather_relay.c 4.1 (tests/comm/clockwork.h). */
#include "comm/chain.h"

#include "base/size.h"
#include "comm/collectives.h"

/* Where this rank has its part of the chunk. */
struct place {
    int buffer;
    int64_t offset_bytes, piece_bytes, chunk_bytes;
};

static int64_t offset_of(const struct place *place, int64_t piece)
{
    return place->offset_bytes + piece * place->piece_bytes;
}

static int64_t bytes_of(const struct place *place, int64_t piece)
{
    return mt_min_i64(place->piece_bytes, place->chunk_bytes - piece * place->piece_bytes);
}

static void plan_send(struct mt_plan *plan, int round, int peer, const struct place *place,
                      int64_t piece)
{
    mt_plan_send(plan, round, peer, place->buffer, offset_of(place, piece), bytes_of(place, piece));
}

static void plan_recv(struct mt_plan *plan, int round, int peer, const struct place *place,
                      int64_t piece)
{
    mt_plan_recv(plan, round, peer, place->buffer, offset_of(place, piece), bytes_of(place, piece));
}

/* One chunk's share of a round: the piece that is handed on in this node, and the one that comes
 * into it. */
static void plan_part(struct mt_plan *plan, int round, const struct mt_chain_part *part, int rank,
                      const struct place *place)
{
    const int64_t out = round - part->first_round - part->hop;
    const int64_t in = out + 1;
    if (out >= 0 && out < part->n_piece) {
        const int head = mt_chain_head(part, &part->own, out);
        if (head == rank && part->next.n_head > 0) {
            plan_send(plan, round, mt_chain_head(part, &part->next, out), place, out);
        }
        for (int i = 0; i < part->n_holder && head == rank; ++i) {
            if (part->holder[i] != rank) {
                plan_send(plan, round, part->holder[i], place, out);
            }
        }
        if (head != rank) {
            plan_recv(plan, round, head, place, out);
        }
    }
    if (part->hop > 0 && in >= 0 && in < part->n_piece &&
        mt_chain_head(part, &part->own, in) == rank) {
        plan_recv(plan, round, mt_chain_head(part, &part->previous, in), place, in);
    }
}

void mt_plan_sparse_allgather_chain(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                    struct mt_chain *chain, int64_t piece_bytes,
                                    const int64_t *home_offset, const int64_t *copy_offset)
{
    const struct mt_chain_list list = mt_chain_parts(chain, rank, sparse, piece_bytes);
    mt_plan_reset(plan, "sparse_allgather_chain", MT_ELEMENT_BYTE);
    for (int round = 0; round < list.n_round; ++round) {
        for (int64_t i = 0; i < list.n_part; ++i) {
            const struct mt_chain_part *part = &list.part[i];
            const int64_t chunk = part->chunk;
            const struct place place = {.buffer = part->is_owner ? MT_BUFFER_SEND : MT_BUFFER_RECV,
                                        .offset_bytes = part->is_owner ? home_offset[chunk]
                                                                       : copy_offset[chunk],
                                        .piece_bytes = piece_bytes,
                                        .chunk_bytes = sparse->chunk_bytes[chunk]};
            plan_part(plan, round, part, rank, &place);
        }
    }
}
