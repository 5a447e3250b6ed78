/* What the parts of the benchmark share: times, and what links allow. */
#ifndef MT_COMM_BENCH_INTERNAL_H
#define MT_COMM_BENCH_INTERNAL_H

#include "comm/bench.h"
#include "comm/trial.h"

/* Times of a case; of exchanges, which are compared, up to so many while they take little time: two
 * of .2 ms on 2 cores differ by a seventh from one lower quartile of 11 to the next. */
enum { MT_BENCH_REPEAT = 11, MT_BENCH_MOST_REPEAT = 33 };

/* bench_exchange.c: the all-to-alls, side by side. */
enum mt_status mt_bench_exchanges(struct mt_comm *comm, const struct mt_bench_options *options,
                                  FILE *out);

/* Lower quartiles of sample [n <= MT_BENCH_MOST_REPEAT]. */
struct mt_trial_sample mt_bench_typical(const struct mt_trial_sample *sample, int n);
/* Largest, and sum, over ranks of a number below 2^53. scratch [R] */
enum mt_status mt_bench_most(struct mt_comm *comm, int64_t mine, double *scratch, int64_t *most,
                             int64_t *sum);

/* What the links allow at best for bytes that must enter (or leave) some node of k ranks, and that
 * some rank must get from (or give to) others of its node. Seconds: a message, then bytes at the
 * rate that all ranks of the node have together, or one rank inside. 0: not known. */
double mt_bench_bound_s(const struct mt_bench_options *options, int64_t node_bytes, int k,
                        int64_t inside_bytes);

#endif
