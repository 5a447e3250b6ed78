/* Which sequences a step trains on: a pure function of (seed, global sequence index), so that the
 * position survives a change of ranks and of batch size. */
#ifndef MT_DATA_SAMPLER_H
#define MT_DATA_SAMPLER_H

#include <stdint.h>

/* Window of global sequence `sequence` (0-based over the whole training): epoch = sequence /
 * n_window, its place in the epoch's own permutation. Every window comes once an epoch. */
int64_t mt_sampler_window(uint64_t seed, int64_t n_window, int64_t sequence);

/* How one step's global batch is spread: rank r takes a contiguous share (shares differ by at most
 * one sequence), cut into micro-batches. All ranks run n_micro, the last ones maybe empty. */
struct mt_batch_split {
    int64_t global_batch, micro_batch;
    int n_rank, rank;
};
int64_t mt_batch_n_micro(const struct mt_batch_split *split);
/* Sequences [*first, *first + *n) of the global batch that are this rank's micro-batch `micro`. */
void mt_batch_micro(const struct mt_batch_split *split, int64_t micro, int64_t *first, int64_t *n);

#endif
