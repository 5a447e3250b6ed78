/* A placement under construction, and what policies count with: loads by expert, experts by load.
 * Internal to placement/. */
#ifndef MT_PLACEMENT_DRAFT_H
#define MT_PLACEMENT_DRAFT_H

#include "placement/policy.h"

/* What a draft says of one (expert, rank). */
enum mt_draft_mark { MT_DRAFT_NONE, MT_DRAFT_HERE, MT_DRAFT_LATE };

struct mt_draft {
    const struct mt_cluster *cluster;
    const int *owner; /* [E] of the placement that it began with */
    int n_expert;
    unsigned char *mark; /* [E,R] mt_draft_mark */
    int *n_free;         /* [R] slots without a copy */
    int *n_instance;     /* [E] */
};

/* As the placement is, with `slots` copies a rank at most; cut from scratch. */
void mt_draft_init(struct mt_draft *draft, const struct mt_policy_input *input,
                   const struct mt_placement *placement, struct mt_arena *scratch);
void mt_draft_copy(struct mt_draft *to, const struct mt_draft *from);
void mt_draft_write(const struct mt_draft *draft, struct mt_placement *placement);

static inline bool mt_draft_has(const struct mt_draft *draft, int expert, int rank)
{
    return draft->mark[(int64_t)expert * draft->cluster->n_rank + rank] != MT_DRAFT_NONE;
}
/* A copy that is not there fits. */
static inline bool mt_draft_can(const struct mt_draft *draft, int expert, int rank)
{
    return draft->n_free[rank] > 0 && !mt_draft_has(draft, expert, rank);
}
void mt_draft_add(struct mt_draft *draft, int expert, int rank, enum mt_draft_mark mark);
/* Not an owner's. */
void mt_draft_remove(struct mt_draft *draft, int expert, int rank);

/* load [E]: rows of the steps in the history, summed: a policy that predicts the mean of a window
 * needs no division. Returns their sum. */
int64_t mt_load_of_history(const struct mt_policy_input *input, int64_t *load);
/* The same of one layer of a history. */
int64_t mt_load_of_layer(const struct mt_history *history, int layer, int64_t *load);
/* load [E]: rows of this micro-batch, all sources. */
int64_t mt_load_of_counts(const struct mt_policy_input *input, int64_t *load);
/* order [n]: 0 .. n - 1 by load, largest first, ties to the lower. */
void mt_load_order(const int64_t *load, int n, struct mt_arena *scratch, int *order);

/* The level that copies and rows are priced at by policies that know one bandwidth: the network's
 * as soon as there is one. */
static inline enum mt_level mt_draft_level(const struct mt_cluster *cluster)
{
    return cluster->n_node > 1 ? MT_LEVEL_NETWORK : MT_LEVEL_NODE;
}

static inline void *mt_draft_cut(struct mt_arena *scratch, int64_t n, size_t item_bytes)
{
    return mt_arena_cut(scratch, n * (int64_t)item_bytes);
}

#endif
