/* SparseReduceScatter: gradients flow back along the placement, the mirror of SparseAllGather.
 *
 *     chunk c, owner 1, holders 0 2 3
 *
 *     0 --c--> 1           STAGE of 1: [c0|c2|c3]
 *     2 --c--> 1           home  of 1:  c1 + c0 + c2 + c3      in this order, always
 *     3 --c--> 1
 *
 * Rounds: 1. Cost: a holder sends each copy once, alpha + bytes beta; an owner receives and adds
 * (holders) times the chunk. STAGE holds every arrival of the rank's own chunks, so that all may
 * come in any order while additions keep theirs. Wins where holders are few; a chunk held by
 * everybody and owned evenly makes this the direct reduce-scatter. */
#include "comm/collectives.h"

static int64_t n_holder(const struct mt_sparse *sparse, int64_t chunk)
{
    return sparse->holder_start[chunk + 1] - sparse->holder_start[chunk];
}

static void plan_messages(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                          const int64_t *copy_offset)
{
    int64_t stage = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        const int64_t n_bytes = sparse->chunk_bytes[chunk];
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            if (sparse->owner[chunk] == rank) {
                mt_plan_recv(plan, 0, sparse->holder[i], MT_BUFFER_STAGE, stage, n_bytes);
                stage += n_bytes;
            } else if (sparse->holder[i] == rank) {
                mt_plan_send(plan, 0, sparse->owner[chunk], MT_BUFFER_SEND, copy_offset[chunk],
                             n_bytes);
            }
        }
    }
}

void mt_plan_sparse_reduce_scatter(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                                   const int64_t *home_offset, const int64_t *copy_offset,
                                   enum mt_element element)
{
    mt_plan_reset(plan, "sparse_reduce_scatter", element);
    plan_messages(plan, rank, sparse, copy_offset);
    int64_t stage = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] != rank) {
            continue;
        }
        const int64_t n_bytes = sparse->chunk_bytes[chunk];
        const struct mt_place home = {MT_BUFFER_RECV, home_offset[chunk]};
        for (int64_t i = 0; i < n_holder(sparse, chunk); ++i) {
            mt_plan_add(plan, 0, home, (struct mt_place){MT_BUFFER_STAGE, stage}, n_bytes);
            stage += n_bytes;
        }
    }
}

int64_t mt_plan_sparse_reduce_stage_bytes(int rank, const struct mt_sparse *sparse)
{
    int64_t stage_bytes = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] == rank) {
            stage_bytes += n_holder(sparse, chunk) * sparse->chunk_bytes[chunk];
        }
    }
    return stage_bytes;
}
