/* All-gather: every rank's block straight to every other rank.
 *
 *     rank 0:  [a]          [a|b|c]
 *     rank 1:  [b]   ---->  [a|b|c]
 *     rank 2:  [c]          [a|b|c]
 *
 * Rounds: 1. Cost of a rank: alpha + (R-1) (own block) beta to send, (all other blocks) beta
 * to receive, which no algorithm undercuts. Wins wherever computation should go on meanwhile: one
 * round needs nobody to take part between begin and end. A ring carries the same bytes in R-1
 * rounds that each wait for a poll, but crosses from node to node once for the whole node. */
#include "comm/blocks.h"
#include "comm/collectives.h"

void mt_plan_allgatherv(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                        const int64_t *block_bytes)
{
    const int n_rank = topology->n_rank;
    mt_plan_reset(plan, "allgatherv", MT_ELEMENT_BYTE);
    mt_plan_recv_blocks(plan, n_rank, rank, block_bytes);
    for (int i = 1; i < n_rank; ++i) {
        mt_plan_send(plan, 0, (rank + i) % n_rank, MT_BUFFER_SEND, 0, block_bytes[rank]);
    }
    const struct mt_place to = {MT_BUFFER_RECV, mt_blocks_before(block_bytes, rank)};
    const struct mt_place from = {MT_BUFFER_SEND, 0};
    mt_plan_copy(plan, 0, to, from, block_bytes[rank]);
}

int64_t mt_plan_allgatherv_max_op(int n_rank)
{
    return 2 * (int64_t)(n_rank - 1) + 1;
}
