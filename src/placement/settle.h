/* Settling: the best use of given replicas. Rows flow rank -> expert -> rank along the instances of
 * a placement; which rank computes how many is a transport problem, and its largest load has an
 * exact least value, found here in integers without a linear program.
 *
 * Ties go to lower ids, so every rank finds the same answer. */
#ifndef MT_PLACEMENT_SETTLE_H
#define MT_PLACEMENT_SETTLE_H

#include "placement/placement.h"

/* total [E]: rows of each expert, all sources. quota [n_instance], written: rows that each instance
 * computes; an expert's sum to its total; the largest sum over a rank is the least possible, and is
 * returned. Late instances get little more than that needs. */
int64_t mt_settle(const struct mt_placement *placement, const int64_t *total,
                  struct mt_arena *scratch, int64_t *quota);

/* Which rows: counts [R,E] and what each instance computes (instance_quota [n_instance], as
 * settled) give quota [R, n_instance]. An instance takes rows of its own rank first, then of its
 * node, which that node's instances share by what they still take, then others, sources in id
 * order: locality breaks ties, it never overloads. */
void mt_settle_sources(const struct mt_cluster *cluster, const struct mt_placement *placement,
                       const int64_t *counts, const int64_t *instance_quota,
                       struct mt_arena *scratch, int64_t *quota);

#endif
