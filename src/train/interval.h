/* When a run saves: at multiples of checkpoint.interval, or, where that costs more of the time than
 * checkpoint.max_overhead_percent, at twice, four times .. as many steps (CheckFreq, FAST'21, which
 * takes any number; powers of two hold still). What it is fed is the same on every rank, so every
 * rank decides alike; it is measured anew by every start, and no number of the training depends on
 * it. */
#ifndef MT_TRAIN_INTERVAL_H
#define MT_TRAIN_INTERVAL_H

#include "config/config.h"

#include <stdbool.h>
#include <stdint.h>

struct mt_interval {
    int64_t base;           /* steps; 0: never */
    double most;            /* share of the time that saving may cost; 0: any */
    int64_t factor;         /* a power of two: saves are at least base * factor steps apart */
    int64_t last;           /* step of the last save, or of the start */
    int64_t n_step, n_save; /* seen */
    double step_s, cost_s;  /* of all of them together */
};

/* Whether a run of this configuration saves at all, and so at its last step. */
bool mt_interval_saves(const struct mt_config *config);
void mt_interval_init(struct mt_interval *interval, const struct mt_config *config, int64_t step);
/* After each step: how long it took, and what saving has cost since the one before: time that the
 * step loop was blocked and the writer's own time, for it may compute on the same cores. */
void mt_interval_add_step(struct mt_interval *interval, double step_s, double cost_s);
/* After each step, once; steps may begin anew from an earlier one. */
bool mt_interval_is_due(struct mt_interval *interval, int64_t step);
void mt_interval_begin_save(struct mt_interval *interval, int64_t step);

#endif
