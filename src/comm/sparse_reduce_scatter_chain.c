/* SparseReduceScatter by chains: the gather's rounds backwards. Pieces of the copies come together
 * in each node's head, which adds what the nodes behind it have and sends one sum on.
 *
 *     chunk of rank 0, nodes {0 1} {2 3} {4 5}, pieces a b c        (round: who sends what to whom)
 *
 *     0:                                             5 -c-> 4
 *     1:                       3 -c-> 2   4 -c-> 2   5 -b-> 4           2: c2 + c3 + (c4 + c5)
 *     2: 1 -c-> 0   2 -c-> 0   3 -b-> 2   4 -b-> 2   5 -a-> 4           0: c0 + c1 + c of 2
 *     3: 1 -b-> 0   2 -b-> 0   3 -a-> 2   4 -a-> 2
 *     4: 1 -a-> 0   2 -a-> 0
 *
 * Rounds and cost: the gather's, plus the additions, which are spread over nodes. A node has one
 * head for all pieces, so that a sum has one order, given by the holders and the topology, whatever
 * the pieces: the head's copy, those of its node's others by rank, then what comes from the node
 * behind. STAGE holds the arrivals of one round: mt_chain_needs. Wins where the gather's does. */
#include "comm/chain.h"

#include "base/size.h"
#include "comm/collectives.h"

/* What the rounds of one rank share. */
struct reduction {
    struct mt_plan *plan;
    const struct mt_sparse *sparse;
    const int64_t *home_offset, *copy_offset;
    int64_t piece_bytes;
    int rank;
    int64_t staged_bytes; /* of the round under way */
};

static int64_t bytes_of(const struct reduction *r, const struct mt_chain_part *part, int64_t piece)
{
    return mt_min_i64(r->piece_bytes, r->sparse->chunk_bytes[part->chunk] - piece * r->piece_bytes);
}

/* Where the rank has its own piece, which becomes the sum. */
static struct mt_place own_place(const struct reduction *r, const struct mt_chain_part *part,
                                 int64_t piece)
{
    const int64_t chunk = part->chunk;
    const int64_t at = piece * r->piece_bytes;
    return part->is_owner ? (struct mt_place){MT_BUFFER_RECV, r->home_offset[chunk] + at}
                          : (struct mt_place){MT_BUFFER_SEND, r->copy_offset[chunk] + at};
}

static void plan_send(const struct reduction *r, int round, int peer,
                      const struct mt_chain_part *part, int64_t piece)
{
    const struct mt_place own = own_place(r, part, piece);
    mt_plan_send(r->plan, round, peer, own.buffer, own.offset_bytes, bytes_of(r, part, piece));
}

static void plan_arrival(struct reduction *r, int round, int peer, int64_t n_bytes)
{
    mt_plan_recv(r->plan, round, peer, MT_BUFFER_STAGE, r->staged_bytes, n_bytes);
    r->staged_bytes += n_bytes;
}

/* The head's receives, one behind the other in STAGE. */
static void plan_arrivals(struct reduction *r, int round, const struct mt_chain_part *part,
                          int64_t piece)
{
    const int64_t n_bytes = bytes_of(r, part, piece);
    for (int i = 0; i < part->n_holder; ++i) {
        if (part->holder[i] != r->rank) {
            plan_arrival(r, round, part->holder[i], n_bytes);
        }
    }
    if (part->next.n_head > 0) {
        plan_arrival(r, round, mt_chain_head(part, &part->next, 0), n_bytes);
    }
}

/* Of those, in the same order. */
static void plan_adds(struct reduction *r, int round, const struct mt_chain_part *part,
                      int64_t piece)
{
    const int64_t n_bytes = bytes_of(r, part, piece);
    const int n_other = part->is_owner ? part->n_holder : part->n_holder - 1;
    const int n_arrival = n_other + (part->next.n_head > 0 ? 1 : 0);
    for (int i = 0; i < n_arrival; ++i) {
        mt_plan_add(r->plan, round, own_place(r, part, piece),
                    (struct mt_place){MT_BUFFER_STAGE, r->staged_bytes}, n_bytes);
        r->staged_bytes += n_bytes;
    }
}

/* Messages of one chunk's share of the gather's round `gathered`, as round `round` of this plan;
 * adds come after the messages of all chunks. */
static void plan_part(struct reduction *r, int round, int64_t gathered,
                      const struct mt_chain_part *part, bool is_adding)
{
    const int64_t out = gathered - part->first_round - part->hop;
    const int64_t in = out + 1;
    const bool is_out = out >= 0 && out < part->n_piece;
    const int head = mt_chain_head(part, &part->own, 0);
    if (is_adding) {
        if (is_out && head == r->rank) {
            plan_adds(r, round, part, out);
        }
        return;
    }
    if (is_out && head == r->rank) {
        plan_arrivals(r, round, part, out);
    } else if (is_out) {
        plan_send(r, round, head, part, out);
    }
    if (part->hop > 0 && in >= 0 && in < part->n_piece && head == r->rank) {
        plan_send(r, round, mt_chain_head(part, &part->previous, 0), part, in);
    }
}

void mt_plan_sparse_reduce_scatter_chain(struct mt_plan *plan, int rank,
                                         const struct mt_sparse *sparse, struct mt_chain *chain,
                                         int64_t piece_bytes, const int64_t *const offset[2],
                                         enum mt_element element)
{
    const struct mt_chain_list list = mt_chain_parts(chain, rank, sparse, piece_bytes);
    struct reduction reduction = {.plan = plan,
                                  .sparse = sparse,
                                  .home_offset = offset[0],
                                  .copy_offset = offset[1],
                                  .piece_bytes = piece_bytes,
                                  .rank = rank};
    MT_ASSERT(piece_bytes % mt_element_bytes(element) == 0);
    mt_plan_reset(plan, "sparse_reduce_chain", element);
    for (int round = 0; round < list.n_round; ++round) {
        for (int adding = 0; adding < 2; ++adding) {
            reduction.staged_bytes = 0;
            for (int64_t i = 0; i < list.n_part; ++i) {
                plan_part(&reduction, round, list.n_round - 1 - round, &list.part[i], adding == 1);
            }
        }
    }
}
