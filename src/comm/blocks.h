/* Blocks that lie one after another in rank order: what most collectives send and receive.
 *
 * Peers are visited in turn from the own rank on, so that in every instant of a round each rank is
 * the target of about one other:
 *
 *     sends of rank 1 of 4:  2 3 0        receives of rank 1 of 4:  0 3 2
 *     sends of rank 2 of 4:  3 0 1        receives of rank 2 of 4:  1 0 3
 */
#ifndef MT_COMM_BLOCKS_H
#define MT_COMM_BLOCKS_H

#include "comm/plan.h"

/* Offset of block `index` when blocks of block_bytes [>= index] lie one after another. */
int64_t mt_blocks_before(const int64_t *block_bytes, int index);

/* One send per other rank from SEND, one receive per other rank into RECV; block_bytes [R], the
 * own block is left out. */
void mt_plan_send_blocks(struct mt_plan *plan, int n_rank, int rank, const int64_t *block_bytes);
void mt_plan_recv_blocks(struct mt_plan *plan, int n_rank, int rank, const int64_t *block_bytes);

#endif
