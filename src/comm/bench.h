/* Times the collectives on the ranks of this job: what `moetrain bench collectives` prints. */
#ifndef MT_COMM_BENCH_H
#define MT_COMM_BENCH_H

#include "comm/comm.h"

/* Collective; transport mpi on the job's world (base/job.h). Rank 0 prints a table to `out`
 * (others: unused, may be NULL): collective, bytes, median time of the slowest rank, algorithm
 * bandwidth = bytes / time, bytes that the busiest rank sends or receives. Bytes are what a rank
 * sends in all (alltoallv), receives in all (allgatherv; sparse_allgather of every chunk to every
 * rank, and hot_* of four chunks of rank 0, directly or with relays), or has before
 * (reduce_scatter, allreduce, hot_reduce_*). Payloads are verified first: MT_ERR_INTERNAL on every
 * rank where any result is wrong. */
enum mt_status mt_bench_collectives(struct mt_comm *comm, FILE *out);

#endif
