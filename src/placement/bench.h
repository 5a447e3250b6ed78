/* How long planning takes: what `moetrain bench planner` prints. */
#ifndef MT_PLACEMENT_BENCH_H
#define MT_PLACEMENT_BENCH_H

#include "base/status.h"

#include <stdio.h>

/* Plans drifting loads of skew 3 with `quota` and `adaptive` on 64, 1024 and 4096 ranks in nodes of
 * eight, a few seconds on one core: median and 99th percentile of each moment, of settling and of
 * the split of tokens, and how many allocations planning made (none is expected:
 * MT_ERR_INTERNAL otherwise, after the table). */
enum mt_status mt_bench_planner(FILE *out);

#endif
