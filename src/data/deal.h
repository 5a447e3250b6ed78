/* Sequences of a global batch given to ranks by cost: where attention keeps within documents, two
 * sequences of one length differ in work, and ranks that meet in every micro-batch wait for the one
 * that got the longest documents.
 *
 * A pure function of the costs, the same on every rank: sequences of like cost meet in one
 * micro-batch, and within it go round by round, the costliest to the rank that has least so far. */
#ifndef MT_DATA_DEAL_H
#define MT_DATA_DEAL_H

#include "base/status.h"
#include "data/sampler.h"

#include <stdint.h>

struct mt_deal_item {
    int64_t cost, index; /* of a sequence of the global batch, or of a rank's load */
};

struct mt_deal {
    int64_t *cost;             /* [G], the caller's to fill */
    int64_t *cell;             /* [G] micro-batch * R + rank that a sequence is given to */
    struct mt_deal_item *item; /* [G], while planning */
    struct mt_deal_item *load; /* [R] */
};

/* For global batches of the split's size; all zero: not made. Costs are 0. */
enum mt_status mt_deal_init(struct mt_deal *deal, const struct mt_batch_split *split);
void mt_deal_clear(struct mt_deal *deal);

/* From cost to cell. Ranks get numbers of sequences that differ by at most one, of a micro-batch
 * as of the step, and at most split->micro_batch. Ties go to the lower sequence and the lower
 * rank. */
void mt_deal_plan(struct mt_deal *deal, const struct mt_batch_split *split);

/* sequence [micro_batch] of the global batch, rising, that split->rank has in micro-batch `micro`.
 */
void mt_deal_micro(const struct mt_deal *deal, const struct mt_batch_split *split, int64_t micro,
                   int64_t *sequence, int64_t *n);

#endif
