/* Placements: on which ranks each expert of a layer is materialised, and who computes which rows.
 *
 * Pure functions of loads, topology and memory; no MPI, no devices; the same on every rank. A
 * policy decides only what is materialised where: every placement gives the same training. */
#ifndef MT_PLACEMENT_PLACEMENT_H
#define MT_PLACEMENT_PLACEMENT_H

#include "base/memory.h"
#include "config/config.h"
#include "placement/cluster.h"

#include <stdint.h>

/* One layer's placement. Instances are sorted by expert, then rank; every expert's owner is among
 * its instances; an expert has at most one instance a rank. A late instance is one that was decided
 * after the gate: its copy travels while the rows of the others are computed. Owners are never
 * late. */
struct mt_placement {
    int n_rank, n_expert;
    int max_instance;    /* capacity of rank and is_late */
    int *owner;          /* [E] */
    int *instance_start; /* [E+1] */
    int *rank;           /* [n_instance] */
    bool *is_late;       /* [n_instance] */
};

enum mt_status mt_placement_init(struct mt_placement *placement, int n_rank, int n_expert,
                                 int max_instance);
void mt_placement_clear(struct mt_placement *placement);
/* Owners' default: experts in contiguous shares that differ by at most one, so that 8 experts on 3
 * ranks are 3 + 3 + 2. `layer` turns the shares, so that when E < R the owners of layers differ. */
void mt_placement_default_owners(struct mt_placement *placement, int layer);
/* Only the owners that the placement has: no copies. */
void mt_placement_owners_only(struct mt_placement *placement);
/* Same sizes; `to` has room for `from`'s instances. */
void mt_placement_copy(struct mt_placement *to, const struct mt_placement *from);
/* Index of the expert's instance on the rank; -1: none. O(log instances of the expert) */
int mt_placement_find(const struct mt_placement *placement, int expert, int rank);
/* Adds an instance that is not there, in its place; the capacity allows it. O(n_instance) */
void mt_placement_add(struct mt_placement *placement, int expert, int rank, bool is_late);
/* What was late is there: an instance like the others. */
void mt_placement_forget_late(struct mt_placement *placement);
/* Copies (instances beside owners) on every rank: n_copy [R]. */
void mt_placement_count_copies(const struct mt_placement *placement, int *n_copy);
/* From instance lists, e.g. of tests: asserts the invariants. */
void mt_placement_check(const struct mt_placement *placement);
/* For checkpoints: numbers [1 + max_instance] = how many instances, then expert * R + rank of each.
 * Reading, from owners in force, adds the copies among them, at most `slots` a rank, nothing late;
 * what cannot be is left out, for numbers come from files. n_copy [R]: scratch. */
void mt_placement_write_numbers(const struct mt_placement *placement, int64_t *numbers);
void mt_placement_read_numbers(struct mt_placement *placement, const int64_t *numbers, int slots,
                               int64_t *n_copy);
static inline int mt_placement_n_instance(const struct mt_placement *placement)
{
    return placement->instance_start[placement->n_expert];
}

/* How each source's rows for an expert are split over its instances. counts [R,E]: rows of source r
 * for expert e. quota [R, n_instance]: written; for every r and e its sum over e's instances equals
 * counts[r,e]. An instance on the source's own rank takes all; else those on its node, else all
 * instances, evenly, the remainder to the lower ones. node [R]. */
void mt_split_local_first(const struct mt_placement *placement, const int64_t *counts,
                          const int *node, int64_t *quota);
/* Asserts the above. */
void mt_split_check(const struct mt_placement *placement, const int64_t *counts,
                    const int64_t *quota);
/* Rows that each rank computes: load [R]. */
void mt_split_load(const struct mt_placement *placement, const int64_t *quota, int64_t *load);

/* By one of the two rules. */
void mt_split(enum mt_split_rule rule, const struct mt_cluster *cluster,
              const struct mt_placement *placement, const int64_t *counts, struct mt_arena *scratch,
              int64_t *quota);

/* Load history of all layers: the last `window` steps' tokens per expert. Kept in the
 * checkpoint. */
struct mt_history {
    int n_layer, n_expert, window;
    int n_step;     /* steps recorded, at most window */
    int64_t *count; /* [n_layer, window, E], newest last */
};
enum mt_status mt_history_init(struct mt_history *history, int n_layer, int n_expert, int window);
void mt_history_clear(struct mt_history *history);
/* counts [n_layer, E] of one step */
void mt_history_record(struct mt_history *history, const int64_t *counts);
/* [n_step, E] of one layer, newest last */
const int64_t *mt_history_layer(const struct mt_history *history, int layer);

#endif
