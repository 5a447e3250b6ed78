#include "comm/blocks.h"

int64_t mt_blocks_before(const int64_t *block_bytes, int index)
{
    int64_t before = 0;
    for (int i = 0; i < index; ++i) {
        before += block_bytes[i];
    }
    return before;
}

void mt_plan_send_blocks(struct mt_plan *plan, int n_rank, int rank, const int64_t *block_bytes)
{
    int64_t offset = mt_blocks_before(block_bytes, rank + 1);
    for (int i = 1; i < n_rank; ++i) {
        const int peer = (rank + i) % n_rank;
        if (peer == 0) {
            offset = 0;
        }
        mt_plan_send(plan, 0, peer, MT_BUFFER_SEND, offset, block_bytes[peer]);
        offset += block_bytes[peer];
    }
}

void mt_plan_recv_blocks(struct mt_plan *plan, int n_rank, int rank, const int64_t *block_bytes)
{
    int64_t offset = mt_blocks_before(block_bytes, rank);
    for (int i = 1; i < n_rank; ++i) {
        const int source = (rank - i + n_rank) % n_rank;
        if (source == n_rank - 1) {
            offset = mt_blocks_before(block_bytes, n_rank);
        }
        offset -= block_bytes[source];
        mt_plan_recv(plan, 0, source, MT_BUFFER_RECV, offset, block_bytes[source]);
    }
}
