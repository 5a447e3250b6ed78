/* SparseReduceScatter with relays: the gather's hops backwards. A holder that passed a chunk on
 * first adds what comes back to its own copy, then sends the sum.
 *
 *     chunk a (owner 0, holders 1..5), nodes {0 1 2} {3 4 5}
 *
 *     round 0   2 --a--> 0            4 --a--> 3   5 --a--> 3        3: a3 + a4 + a5
 *     round 1   1 --a--> 0            3 --a--> 0 (network)           0: a0 + a2 + a3' + a1
 *
 * Rounds and cost: the gather's, plus the additions, which are spread as the sends are. STAGE holds
 * the arrivals of one round, at most MT_RELAY_PORTS chunks, however many copies there are; the
 * direct algorithm's holds all of the rank's own chunks' copies. On 2 shared cores time showed
 * nothing: 8 ranks, four chunks of one owner, 16 MiB took 29 ms instead of 39 in one run and 108
 * instead of 83 in another (2026-11-22). Sums have one order, given by the distribution and the
 * topology: rounds, and within a round the order of the hops. Where owners'
 * receives are even nobody relays, but they come in rounds all the same, for STAGE. */
#include "comm/collectives.h"

/* Hops [first, end) of one round of the gather, as round `round` of this plan. */
static void plan_round(struct mt_plan *plan, int rank, const struct mt_sparse *sparse, int round,
                       const struct mt_hop *hop, int64_t n_hop, int64_t slot_bytes,
                       const int64_t *copy_offset)
{
    int n_arrival = 0;
    for (int64_t i = 0; i < n_hop; ++i) {
        const int64_t n_bytes = sparse->chunk_bytes[hop[i].chunk];
        if (hop[i].to == rank) {
            mt_plan_send(plan, round, hop[i].from, MT_BUFFER_SEND, copy_offset[hop[i].chunk],
                         n_bytes);
        } else if (hop[i].from == rank) {
            mt_plan_recv(plan, round, hop[i].to, MT_BUFFER_STAGE, n_arrival * slot_bytes, n_bytes);
            ++n_arrival;
        }
    }
}

static void plan_round_adds(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                            int round, const struct mt_hop *hop, int64_t n_hop, int64_t slot_bytes,
                            const int64_t *const offset[2])
{
    int n_arrival = 0;
    for (int64_t i = 0; i < n_hop; ++i) {
        if (hop[i].from != rank) {
            continue;
        }
        const int chunk = hop[i].chunk;
        const bool is_home = sparse->owner[chunk] == rank;
        const int buffer = is_home ? MT_BUFFER_RECV : MT_BUFFER_SEND;
        const struct mt_place to = {buffer, offset[is_home ? 0 : 1][chunk]};
        const struct mt_place from = {MT_BUFFER_STAGE, n_arrival * slot_bytes};
        mt_plan_add(plan, round, to, from, sparse->chunk_bytes[chunk]);
        ++n_arrival;
    }
}

void mt_plan_sparse_reduce_scatter_relay(struct mt_plan *plan, int rank,
                                         const struct mt_sparse *sparse, struct mt_relay *relay,
                                         const int64_t *home_offset, const int64_t *copy_offset,
                                         enum mt_element element)
{
    const struct mt_route_list list = mt_relay_route(relay, sparse);
    const int64_t *const offset[2] = {home_offset, copy_offset};
    const int64_t slot_bytes = mt_plan_sparse_relay_stage_bytes(sparse) / MT_RELAY_PORTS;
    mt_plan_reset(plan, "sparse_reduce_relay", element);
    int64_t end = list.n_hop;
    for (int round = 0; round < list.n_round; ++round) {
        int64_t first = end;
        while (first > 0 && list.hop[first - 1].round == list.hop[end - 1].round) {
            --first;
        }
        const struct mt_hop *hop = list.hop + first;
        plan_round(plan, rank, sparse, round, hop, end - first, slot_bytes, copy_offset);
        plan_round_adds(plan, rank, sparse, round, hop, end - first, slot_bytes, offset);
        end = first;
    }
}

int64_t mt_plan_sparse_relay_stage_bytes(const struct mt_sparse *sparse)
{
    int64_t largest = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        largest = sparse->chunk_bytes[chunk] > largest ? sparse->chunk_bytes[chunk] : largest;
    }
    return MT_RELAY_PORTS * largest;
}
