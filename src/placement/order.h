/* Sorting without allocating, as qsort does for long arrays. Internal to placement/. */
#ifndef MT_PLACEMENT_ORDER_H
#define MT_PLACEMENT_ORDER_H

#include <stdbool.h>
#include <stdint.h>

/* order [n]: 0 .. n-1 by sign * key, ascending; ties to the lower id. sign 1 or -1; spare [n] */
void mt_order_by(const int64_t *key, int sign, int n, int *order, int *spare);

#endif
