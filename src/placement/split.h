/* Internal to placement/: what splits and planners count alike. */
#ifndef MT_PLACEMENT_SPLIT_H
#define MT_PLACEMENT_SPLIT_H

#include <stdint.h>

/* Rows of each expert, all sources: total [E] of counts [R,E]. */
void mt_count_experts(int n_rank, int n_expert, const int64_t *counts, int64_t *total);

#endif
