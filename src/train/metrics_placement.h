/* The `placement` object of a step's line in metrics.jsonl (docs/metrics.md). */
#ifndef MT_TRAIN_METRICS_PLACEMENT_H
#define MT_TRAIN_METRICS_PLACEMENT_H

#include "moe/moe.h"

#include <jansson.h>

/* A new reference. */
json_t *mt_metrics_placement(const struct mt_moe_stats *stats);

#endif
