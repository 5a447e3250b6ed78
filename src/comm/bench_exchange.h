/* What the two files of the all-to-all benchmark share: bench_exchange.c runs,
 * bench_exchange_report.c says what came out. */
#ifndef MT_COMM_BENCH_EXCHANGE_H
#define MT_COMM_BENCH_EXCHANGE_H

#include "comm/bench_internal.h"

enum mt_bench_load { MT_BENCH_EVEN, MT_BENCH_HOT, MT_BENCH_ROWS, MT_N_BENCH_LOAD };

enum { MT_BENCH_TOP_K = 8, MT_BENCH_ROW_BYTES = 1 << 10 };

struct mt_bench_exchange {
    struct mt_comm *comm;
    const struct mt_bench_options *options;
    int n_rank, rank;
    enum mt_bench_load workload;
    int64_t pair_bytes; /* of a block, on average */
    int64_t *bytes;     /* [R,R] by source and target */
    int64_t *n_row;     /* [R,R] of MT_BENCH_ROWS */
    int64_t n_token;    /* of each rank, in MT_BENCH_ROWS */
    int32_t *token;     /* [R, n_token * MT_BENCH_TOP_K] of the rows of every rank, by target */
    int32_t *sent, *relayed;
    int64_t *seen;         /* [n_token] */
    int *mpi;              /* [4,R] sizes and offsets for MPI_Alltoallv */
    double *time_s;        /* [R] */
    struct mt_trial trial; /* the ways that bring the same bytes, and everybody's buffers */
    struct mt_plan deduplicated[2], numbers; /* there, back */
    char *stage;
    struct mt_exec *exec;
    enum mt_bench_way way; /* under way */
};

/* The deduplicated one carries rows of tokens alone. */
bool mt_bench_is_way(const struct mt_bench_exchange *bench, int way);
const char *mt_bench_way_name(int way);
/* Collective: rank 0 prints a line a way, and one of what `auto` takes. */
enum mt_status mt_bench_exchange_report(struct mt_bench_exchange *bench,
                                        struct mt_trial_sample (*sample)[MT_BENCH_MOST_REPEAT],
                                        int n_sample, FILE *out);

#endif
