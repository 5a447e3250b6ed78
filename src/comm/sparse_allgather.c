/* SparseAllGather: owners' values travel along the placement (Hecate, arXiv 2502.02581).
 *
 *     chunk:    0   1   2   3          rank 0 owns 0,1; rank 1 owns 2; rank 2 owns 3
 *     owner:    0   0   1   2
 *     holders:  2   -  0,2  0,1
 *
 *     rank 0 home [0 1]   copies [2 3]       0 --0--> 2     1 --2--> 0
 *     rank 1 home [2]     copies [3]                        1 --2--> 2     2 --3--> 0
 *     rank 2 home [3]     copies [0 2]                                     2 --3--> 1
 *
 * Rounds: 1. Cost: a holder receives the chunks it lacks, alpha + bytes beta each; an owner sends
 * every chunk once per holder, so the owner of a hot chunk is the busiest: (holders) (alpha + bytes
 * beta). Wins where holders are few (experts) or everybody owns an equal share (dense tensors on
 * all ranks: then it is the direct all-gather). Both ends of a pair go through the chunks in
 * ascending order, which is what matches their messages. */
#include "comm/collectives.h"

/* To the holders above the owner first, then to those below: owners do not all start with rank
 * 0. */
static void plan_chunk_sends(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                             int64_t chunk, int64_t offset)
{
    const int64_t start = sparse->holder_start[chunk];
    const int64_t n_holder = sparse->holder_start[chunk + 1] - start;
    const int64_t turn = mt_sparse_holder_from(sparse, chunk, rank) - start;
    for (int64_t i = 0; i < n_holder; ++i) {
        const int holder = sparse->holder[start + (turn + i) % n_holder];
        if (holder != rank) {
            mt_plan_send(plan, 0, holder, MT_BUFFER_SEND, offset, sparse->chunk_bytes[chunk]);
        }
    }
}

void mt_plan_sparse_allgather(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                              const int64_t *home_offset, const int64_t *copy_offset)
{
    mt_plan_reset(plan, "sparse_allgather", MT_ELEMENT_BYTE);
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        const bool is_held = mt_sparse_is_held(sparse, chunk, rank);
        if (sparse->owner[chunk] == rank) {
            plan_chunk_sends(plan, rank, sparse, chunk, home_offset[chunk]);
        } else if (is_held) {
            mt_plan_recv(plan, 0, sparse->owner[chunk], MT_BUFFER_RECV, copy_offset[chunk],
                         sparse->chunk_bytes[chunk]);
        }
        if (sparse->owner[chunk] == rank && is_held) {
            mt_plan_copy(plan, 0, (struct mt_place){MT_BUFFER_RECV, copy_offset[chunk]},
                         (struct mt_place){MT_BUFFER_SEND, home_offset[chunk]},
                         sparse->chunk_bytes[chunk]);
        }
    }
}

int64_t mt_sparse_holder_from(const struct mt_sparse *sparse, int64_t chunk, int rank)
{
    int64_t low = sparse->holder_start[chunk];
    int64_t high = sparse->holder_start[chunk + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (sparse->holder[middle] < rank) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool mt_sparse_is_held(const struct mt_sparse *sparse, int64_t chunk, int rank)
{
    const int64_t at = mt_sparse_holder_from(sparse, chunk, rank);
    return at < sparse->holder_start[chunk + 1] && sparse->holder[at] == rank;
}

int64_t mt_plan_sparse_max_op(int rank, const struct mt_sparse *sparse)
{
    int64_t n_op = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] == rank) {
            /* a receive and an add per holder is the more of the two */
            n_op += 2 * (sparse->holder_start[chunk + 1] - sparse->holder_start[chunk]);
        } else if (mt_sparse_is_held(sparse, chunk, rank)) {
            n_op += 1;
        }
    }
    return n_op;
}
