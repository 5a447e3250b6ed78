/* Internal to placement/: what splits and planners count alike. */
#ifndef MT_PLACEMENT_SPLIT_H
#define MT_PLACEMENT_SPLIT_H

#include <stdint.h>

/* Sums of counts [R,E]: rows of each expert, all sources: total [E]; of each source: token [R]. */
void mt_count_rows(int n_rank, int n_expert, const int64_t *counts, int64_t *total, int64_t *token);

#endif
