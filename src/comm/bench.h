/* Times the collectives on the ranks of this job: what `moetrain bench collectives` prints. */
#ifndef MT_COMM_BENCH_H
#define MT_COMM_BENCH_H

#include "comm/comm.h"
#include "comm/sparse_auto.h"

/* The all-to-alls side by side; the first four in the order of mt_exchange_kind. */
enum mt_bench_way {
    MT_BENCH_DIRECT,
    MT_BENCH_TWO_LEVEL,
    MT_BENCH_LEADER,
    MT_BENCH_DEDUPLICATED,
    MT_BENCH_MPI,
    MT_N_BENCH_WAY
};

struct mt_bench_options {
    int64_t most_bytes; /* of a block or vector; 0: as the tables have them */
    const char *only;   /* collectives with this in their name, and all ways of the all-to-all where
                           one of them has it; NULL: all */
    /* Of links inside a node and between nodes, as all ranks together measured them; zeros: no
     * ratios to what they allow. */
    struct mt_links links;
    /* What `auto` carries rows by, n_row [R,R] by source and target, top_k rows a token. NULL:
     * nothing is said of it. */
    enum mt_bench_way (*choose)(void *context, const int64_t *n_row, int64_t row_bytes,
                                int64_t top_k, bool sums_may_differ);
    void *context;
};

/* Collective; transport mpi on the job's world (base/job.h). Rank 0 prints two tables to `out`
 * (others: unused, may be NULL). Times are lower quartiles, of the slowest rank; payloads are
 * verified first: MT_ERR_INTERNAL on every rank where any result is wrong.
 *
 * All-to-alls, there and back as rows travel (a time is the mean of both), twice in a row for
 * blocks up to 4 KiB, for equal blocks (even), blocks of four times the size for rank 0 (hot), and
 * rows of tokens for 8 of 64 experts (rows): bytes of a block, time,
 * processor time of all ranks together, algorithm bandwidth = bytes that a rank sends / time, bytes
 * between nodes on all ranks together, time over the least that the links allow for blocks sent
 * straight, and what `auto` chooses, over the best.
 *
 * All collectives: bytes, both times, algorithm bandwidth, bytes that the busiest rank sends or
 * receives, time over the bound. Bytes are what a rank receives in all (allgatherv;
 * sparse_allgather of every chunk to every rank; hot_* of four chunks of rank 0, one_* of one,
 * directly, with relays, along chains, and as training chooses, with the plan's name), or has
 * before (reduce_scatter, allreduce, hot_reduce_*). */
enum mt_status mt_bench_collectives(struct mt_comm *comm, const struct mt_bench_options *options,
                                    FILE *out);

#endif
