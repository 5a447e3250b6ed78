/* SparseReduceScatter in rounds of a few peers: for many small chunks spread evenly over all ranks,
 * the pieces of cut experts.
 *
 *     round k: rank r receives from r - k P - 1 .. r - (k + 1) P, and sends to r + k P + 1 ..
 *     (modulo R; P = MT_PACED_PEERS)
 *
 *     chunk c, owner 5, holders 1 4 5 of 8 ranks, P = 2
 *     round 0   5: add c5; receive c4, add it         (distances 1, 2: ranks 4, 3)
 *     round 1   5: receive c1, add it                 (distances 3, 4: ranks 2, 1)
 *
 * Rounds: (R - 1) / P, rounded up. Cost: a holder sends each copy once; alpha for every (chunk,
 * holder) that is not at home. STAGE holds the arrivals of one round: P / R of what the direct
 * algorithm's does. Wins over it where many ranks hold much, and over relays where what owners
 * receive is even already, as nothing travels twice. With R <= P + 1 it is the direct algorithm
 * but for the order of the owner's own copy, which comes first. */
#include "comm/collectives.h"

/* Peers at distances [first, end). */
struct window {
    int first, end;
};

static int n_round(int n_rank)
{
    const int n = (n_rank - 1 + MT_PACED_PEERS - 1) / MT_PACED_PEERS;
    return n > 1 ? n : 1; /* own copies need one in any case */
}

static struct window window_of(int round, int n_rank)
{
    const int first = 1 + round * MT_PACED_PEERS;
    const int end = first + MT_PACED_PEERS;
    return (struct window){first, end < n_rank ? end : n_rank};
}

static bool is_within(struct window window, int distance)
{
    return distance >= window.first && distance < window.end;
}

static int distance_to(int from, int owner, int n_rank)
{
    return (owner - from + n_rank) % n_rank;
}

static void plan_sends(struct mt_plan *plan, int rank, int round, int n_rank,
                       const struct mt_sparse *sparse, const int64_t *copy_offset)
{
    const struct window window = window_of(round, n_rank);
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        const int owner = sparse->owner[chunk];
        if (is_within(window, distance_to(rank, owner, n_rank)) &&
            mt_sparse_is_held(sparse, chunk, rank)) {
            mt_plan_send(plan, round, owner, MT_BUFFER_SEND, copy_offset[chunk],
                         sparse->chunk_bytes[chunk]);
        }
    }
}

/* What this rank's chunks get in a round: receives, or the adds that follow. */
static void plan_arrivals(struct mt_plan *plan, int rank, int round, int n_rank,
                          const struct mt_sparse *sparse, const int64_t *home_offset)
{
    const struct window window = window_of(round, n_rank);
    int64_t stage = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] != rank) {
            continue;
        }
        const int64_t n_bytes = sparse->chunk_bytes[chunk];
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            if (!is_within(window, distance_to(sparse->holder[i], rank, n_rank))) {
                continue;
            }
            if (home_offset == NULL) {
                mt_plan_recv(plan, round, sparse->holder[i], MT_BUFFER_STAGE, stage, n_bytes);
            } else {
                mt_plan_add(plan, round, (struct mt_place){MT_BUFFER_RECV, home_offset[chunk]},
                            (struct mt_place){MT_BUFFER_STAGE, stage}, n_bytes);
            }
            stage += n_bytes;
        }
    }
}

static void plan_own_adds(struct mt_plan *plan, int rank, const struct mt_sparse *sparse,
                          const int64_t *home_offset, const int64_t *copy_offset)
{
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] == rank && mt_sparse_is_held(sparse, chunk, rank)) {
            mt_plan_add(plan, 0, (struct mt_place){MT_BUFFER_RECV, home_offset[chunk]},
                        (struct mt_place){MT_BUFFER_SEND, copy_offset[chunk]},
                        sparse->chunk_bytes[chunk]);
        }
    }
}

void mt_plan_sparse_reduce_scatter_paced(struct mt_plan *plan, int rank, int n_rank,
                                         const struct mt_sparse *sparse, const int64_t *home_offset,
                                         const int64_t *copy_offset, enum mt_element element)
{
    mt_plan_reset(plan, "sparse_reduce_paced", element);
    for (int round = 0; round < n_round(n_rank); ++round) {
        plan_arrivals(plan, rank, round, n_rank, sparse, NULL);
        plan_sends(plan, rank, round, n_rank, sparse, copy_offset);
        if (round == 0) {
            plan_own_adds(plan, rank, sparse, home_offset, copy_offset);
        }
        plan_arrivals(plan, rank, round, n_rank, sparse, home_offset);
    }
}

static int64_t arrival_bytes(int rank, int round, int n_rank, const struct mt_sparse *sparse)
{
    const struct window window = window_of(round, n_rank);
    int64_t n_bytes = 0;
    for (int64_t chunk = 0; chunk < sparse->n_chunk; ++chunk) {
        if (sparse->owner[chunk] != rank) {
            continue;
        }
        for (int64_t i = sparse->holder_start[chunk]; i < sparse->holder_start[chunk + 1]; ++i) {
            const bool is_now = is_within(window, distance_to(sparse->holder[i], rank, n_rank));
            n_bytes += is_now ? sparse->chunk_bytes[chunk] : 0;
        }
    }
    return n_bytes;
}

int64_t mt_plan_sparse_paced_stage_bytes(int rank, int n_rank, const struct mt_sparse *sparse)
{
    int64_t largest = 0;
    for (int round = 0; round < n_round(n_rank); ++round) {
        const int64_t n_bytes = arrival_bytes(rank, round, n_rank, sparse);
        largest = n_bytes > largest ? n_bytes : largest;
    }
    return largest;
}
