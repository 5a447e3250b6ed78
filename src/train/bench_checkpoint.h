/* What saving costs a run, and how it uses the disk: the trainer's own steps with and without saves
 * in turns, then saves beside plain writing of as many bytes. */
#ifndef MT_TRAIN_BENCH_CHECKPOINT_H
#define MT_TRAIN_BENCH_CHECKPOINT_H

#include "base/status.h"
#include "config/config.h"

#include <stdio.h>

struct mt_bench_checkpoint {
    const struct mt_config *config; /* saves go below its run directory, and away again */
    int64_t n_save, n_step;         /* saves; steps from one to the next; both >= 1 */
};

/* Collective, agreed; rank 0 prints. */
enum mt_status mt_bench_checkpoint(const struct mt_bench_checkpoint *bench, FILE *out);

#endif
