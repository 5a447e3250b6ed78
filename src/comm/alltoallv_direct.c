/* All-to-all, every block straight to its target.
 *
 *     rank 0:  [00|01|02]          [00|10|20]
 *     rank 1:  [10|11|12]   ---->  [01|11|21]       block st: from source s to target t
 *     rank 2:  [20|21|22]          [02|12|22]
 *
 * Rounds: 1. Cost of a rank: alpha + (sent bytes) beta; every byte crosses one link once.
 * Wins where messages are large, or where R is small: with blocks of S/R bytes the alphas dominate
 * when S/R < alpha/beta, and a two-level exchange then sends fewer, larger messages between
 * nodes. */
#include "comm/blocks.h"
#include "comm/collectives.h"

void mt_plan_alltoallv_direct(struct mt_plan *plan, const struct mt_topology *topology, int rank,
                              const int64_t *send_bytes, const int64_t *recv_bytes)
{
    const int n_rank = topology->n_rank;
    MT_ASSERT(send_bytes[rank] == recv_bytes[rank]);
    mt_plan_reset(plan, "alltoallv", MT_ELEMENT_BYTE);
    mt_plan_recv_blocks(plan, n_rank, rank, recv_bytes);
    mt_plan_send_blocks(plan, n_rank, rank, send_bytes);
    const struct mt_place to = {MT_BUFFER_RECV, mt_blocks_before(recv_bytes, rank)};
    const struct mt_place from = {MT_BUFFER_SEND, mt_blocks_before(send_bytes, rank)};
    mt_plan_copy(plan, 0, to, from, send_bytes[rank]);
}

int64_t mt_plan_alltoallv_direct_max_op(int n_rank)
{
    return 2 * (int64_t)(n_rank - 1) + 1;
}
