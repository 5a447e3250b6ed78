/* Several sources with weights: which source a sequence of the training stream comes from, and
 * which of that source's own sequences it is. Both are pure functions of the sequence's number, so
 * nothing is indexed at start-up and the position survives a change of ranks and batch size.
 *
 * Weights are rounded to slots of a period of MT_BLEND_SLOTS sequences. Within a period the source
 * that is furthest behind its share comes next, so that after any number of sequences each source
 * has its share to within one sequence. Each source's sequences are used in order, none twice, none
 * left out, also across a change of weights or sources: mt_blend_resume. */
#ifndef MT_DATA_BLEND_H
#define MT_DATA_BLEND_H

#include "config/config.h"

#include <stdint.h>

/* A weight is exact to 1/4096, and every source has a slot. */
enum { MT_BLEND_SLOTS = 4096 };

/* One source, as it is known again. */
struct mt_blend_source {
    uint64_t name, fingerprint;
};

struct mt_blend {
    int n_source;
    int n_slot;                      /* of a period; 1 with one source */
    int64_t base;                    /* the sequence from which these weights hold */
    int64_t start[MT_MAX_PATHS];     /* sequences that each source had given before */
    int64_t count[MT_MAX_PATHS];     /* slots of a period */
    uint16_t source[MT_BLEND_SLOTS]; /* of each slot */
    uint16_t rank[MT_BLEND_SLOTS];   /* slots of the same source before it */
    int n_absent; /* sources of earlier blends, which go on when they come back */
    struct mt_blend_source absent[MT_MAX_PATHS];
    int64_t given[MT_MAX_PATHS]; /* sequences that each of them gave */
};

/* weight [n_source], each > 0; NULL: equal ones. n_source in [1, MT_MAX_PATHS]. */
void mt_blend_init(struct mt_blend *blend, int n_source, const double *weight);

/* sequence >= base. *index: its number among the source's sequences, from 0. */
void mt_blend_place(const struct mt_blend *blend, int64_t sequence, int *source, int64_t *index);

/* Sequences that a source gave before `sequence` >= base. */
int64_t mt_blend_drawn(const struct mt_blend *blend, int source, int64_t sequence);

/* What a checkpoint keeps: [0] sources, [1] base, then four numbers a source: hash of its name, its
 * fingerprint, start, count; behind them the absent ones, with what they gave and a count of 0. All
 * zero: no blend was kept (an older checkpoint). */
enum { MT_BLEND_STATE_HEAD = 2, MT_BLEND_STATE_SOURCE = 4 };
enum { MT_BLEND_STATE = MT_BLEND_STATE_HEAD + MT_BLEND_STATE_SOURCE * MT_MAX_PATHS };

void mt_blend_save(const struct mt_blend *blend, const struct mt_blend_source *source,
                   int64_t state[MT_BLEND_STATE]);

/* Is it what mt_blend_save writes, for a stream that is at `sequence`? All zero is. */
bool mt_blend_state_is_valid(const int64_t state[MT_BLEND_STATE], int64_t sequence);

/* `blend` was just made, `state` is valid. With the sources and weights of `state` it goes on where
 * that was; with others it begins at `sequence`, and each source that was ever there (by
 * fingerprint, or by name if its content changed) goes on behind what it gave. *changed: the first
 * source whose name is known with other content; -1: none. Returns whether sources or weights
 * differ. */
bool mt_blend_resume(struct mt_blend *blend, const struct mt_blend_source *source,
                     const int64_t state[MT_BLEND_STATE], int64_t sequence, int *changed);

#endif
