/* SparseAllGather with relays: holders that have received pass on, so that the owner of a hot chunk
 * need not send every copy, and a chunk crosses the network once per node.
 *
 *     chunk a (owner 0, holders 1..5), nodes {0 1 2} {3 4 5}
 *
 *     direct:   0 sends a five times, three of them over the network
 *     relayed:  round 0   0 --a--> 3 (network)   0 --a--> 1
 *               round 1   0 --a--> 2             3 --a--> 4    3 --a--> 5
 *
 * Rounds: about log2(holders) more than the largest number of copies a rank receives, by
 * MT_RELAY_PORTS (relay_greedy.c). Cost: alpha + bytes beta a round, whoever owns what; the busiest
 * sender sends little more than the busiest receiver receives. Wins with hot owners (few
 * chunks on many ranks) where links are the limit, and with several nodes. A rank that passes on
 * must poll in between. Where owners' sends are even it is the direct algorithm, in one round:
 * relay.c decides.
 *
 * Four chunks of rank 0 on 8 ranks of one machine, 16 MiB to each: rank 0 sends 25 MB instead of
 * 117, in the same 22 ms, since 2 cores copy all there is to copy (2026-11-22).
 *
 * Chunks of one pair are not merged into one message. It would save time where they have 32 KiB
 * (allgatherv beside sparse_allgather of `moetrain bench collectives`: 0.69 and 1.18 ms
 * for 1 MiB in 32 chunks) and nothing at 512 KiB (20.4 and 20.8 ms for 16 MiB); chunks are experts,
 * which lie in different slots on either side, so that merging means copying. */
#include "comm/collectives.h"

static void plan_hop(struct mt_plan *plan, int rank, int round, const struct mt_sparse *sparse,
                     const struct mt_hop *hop, const int64_t *home_offset,
                     const int64_t *copy_offset)
{
    const int64_t n_bytes = sparse->chunk_bytes[hop->chunk];
    if (hop->to == rank) {
        mt_plan_recv(plan, round, hop->from, MT_BUFFER_RECV, copy_offset[hop->chunk], n_bytes);
    } else if (hop->from == rank && sparse->owner[hop->chunk] == rank) {
        mt_plan_send(plan, round, hop->to, MT_BUFFER_SEND, home_offset[hop->chunk], n_bytes);
    } else if (hop->from == rank) {
        mt_plan_send(plan, round, hop->to, MT_BUFFER_RECV, copy_offset[hop->chunk], n_bytes);
    }
}

void mt_plan_sparse_allgather_relay(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                    struct mt_relay *relay, const int64_t *home_offset,
                                    const int64_t *copy_offset)
{
    const struct mt_route_list list = mt_relay_route(relay, sparse);
    mt_plan_reset(plan, "sparse_allgather_relay", MT_ELEMENT_BYTE);
    for (int64_t i = 0; i < list.n_hop && list.is_deep; ++i) {
        plan_hop(plan, rank, list.hop[i].round, sparse, &list.hop[i], home_offset, copy_offset);
    }
    /* what owners send waits for nothing, what others send only for that */
    for (int round = 0; round < 2 && !list.is_deep; ++round) {
        for (int64_t i = 0; i < list.n_hop; ++i) {
            const struct mt_hop *hop = &list.hop[i];
            if ((sparse->owner[hop->chunk] == hop->from) == (round == 0)) {
                plan_hop(plan, rank, round, sparse, hop, home_offset, copy_offset);
            }
        }
    }
}

int64_t mt_plan_sparse_relay_max_op(int n_rank, int64_t max_held)
{
    /* a receive and an add for each copy of any other rank, and its own copies */
    return (2 * ((int64_t)n_rank - 1) + 1) * max_held;
}
