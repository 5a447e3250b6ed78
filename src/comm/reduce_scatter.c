/* Reduce-scatter: the sum of a block arises at the one rank it belongs to, in rank order.
 *
 *     rank 0:  [a0|b0|c0]          [a0+a1+a2]
 *     rank 1:  [a1|b1|c1]   ---->  [b0+b1+b2]         block letter = target, digit = source
 *     rank 2:  [a2|b2|c2]          [c0+c1+c2]
 *
 *     STAGE of rank r: the blocks of ranks 1 .. R-1 without r; rank 0's lands in RECV, where the
 *     others are added to it once all have come.
 *
 * Rounds: 1. Cost of a rank: alpha + (all blocks but its own) beta to send, (R-1) additions
 * of its block. The volume is the least possible; a ring has the same volume, needs no STAGE, but
 * adds in an order that differs from block to block and waits for R-1 polls. Wins here because sums
 * must have one order whoever owns the block, and because one round overlaps with computation. */
#include "comm/blocks.h"
#include "comm/collectives.h"

/* How many blocks before source s (1 <= s, s != rank) lie in STAGE. */
static int stage_slot(int rank, int source)
{
    return source - 1 - (rank != 0 && source > rank ? 1 : 0);
}

void mt_plan_reduce_scatter(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                            const int64_t *block_bytes, enum mt_element element)
{
    const int n_rank = topology->n_rank;
    const int64_t mine = block_bytes[rank];
    const struct mt_place sum = {MT_BUFFER_RECV, 0};
    const struct mt_place own = {MT_BUFFER_SEND, mt_blocks_before(block_bytes, rank)};
    mt_plan_reset(plan, "reduce_scatter", element);
    for (int i = 1; i < n_rank; ++i) {
        const int source = (rank - i + n_rank) % n_rank;
        if (source == 0) {
            mt_plan_recv(plan, 0, 0, MT_BUFFER_RECV, 0, mine);
        } else {
            mt_plan_recv(plan, 0, source, MT_BUFFER_STAGE, stage_slot(rank, source) * mine, mine);
        }
    }
    mt_plan_send_blocks(plan, n_rank, rank, block_bytes);
    if (rank == 0) {
        mt_plan_copy(plan, 0, sum, own, mine);
    }
    for (int source = 1; source < n_rank; ++source) {
        const struct mt_place staged = {MT_BUFFER_STAGE, stage_slot(rank, source) * mine};
        mt_plan_add(plan, 0, sum, source == rank ? own : staged, mine);
    }
}

int64_t mt_plan_reduce_scatter_max_op(int n_rank)
{
    return 3 * (int64_t)(n_rank - 1) + 1;
}

int64_t mt_plan_reduce_scatter_stage_bytes(int n_rank, int rank, const int64_t *block_bytes)
{
    return (n_rank - 1 - (rank != 0 ? 1 : 0)) * block_bytes[rank];
}
