/* What the two files of workloads share: the law that makes a weight a chance. */
#ifndef MT_PLACEMENT_WORKLOAD_INTERNAL_H
#define MT_PLACEMENT_WORKLOAD_INTERNAL_H

#include "base/memory.h"

static inline void *mt_workload_cut(struct mt_arena *scratch, int64_t n, size_t item_bytes)
{
    return mt_arena_cut(scratch, n * (int64_t)item_bytes);
}

/* c with sum over i of size (1 - exp(-c w[i] / size)) = wanted, which is below the sum of sizes; w
 * [n], some > 0; size [n], NULL: all 1. */
double mt_workload_solve(const double *w, const int *size, int n, double wanted);
/* A seeded order of what is in order [n]. */
void mt_workload_shuffle(uint64_t seed, uint64_t stream, int n, int *order);

#endif
