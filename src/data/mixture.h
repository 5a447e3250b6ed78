/* The training stream: sequence number -> tokens. One source, or several by weight (blend.h), each
 * shuffled anew every epoch (sampler.h). */
#ifndef MT_DATA_MIXTURE_H
#define MT_DATA_MIXTURE_H

#include "data/blend.h"
#include "data/corpus.h"

struct mt_mixture;

/* With weights each path is a source of its own, else all are one. */
enum mt_status mt_mixture_open(const struct mt_path_list *paths, const struct mt_real_list *weights,
                               const struct mt_corpus_options *options, struct mt_mixture **out);
void mt_mixture_close(struct mt_mixture *mixture); /* NULL allowed */

/* token, target [n,T]: sequences first + sequence [n] of the stream, and where documents begin in
 * them, unless documents is NULL. */
enum mt_status mt_mixture_fill(const struct mt_mixture *mixture, uint64_t seed, int64_t first,
                               const int64_t *sequence, int64_t n, int32_t *token, int32_t *target,
                               struct mt_document_starts *documents);

/* Which source sequence `sequence` of the stream comes from, and which of its windows it is. */
void mt_mixture_place(const struct mt_mixture *mixture, uint64_t seed, int64_t sequence,
                      int *source, int64_t *window);

int mt_mixture_n_source(const struct mt_mixture *mixture);
/* Last component of the source's path; "data" when all paths are one source. */
const char *mt_mixture_name(const struct mt_mixture *mixture, int source);
/* Sequences that a source gave before sequence `sequence` of the stream. */
int64_t mt_mixture_drawn(const struct mt_mixture *mixture, int source, int64_t sequence);

/* What a checkpoint keeps of the stream [MT_BLEND_STATE]; a load writes into it, then resume. */
int64_t *mt_mixture_state(struct mt_mixture *mixture);

/* After a load: goes on at sequence `sequence`. A source known by name whose content changed is
 * MT_ERR_INPUT unless accept_changes. Writes what differs from before into notes [notes_bytes], ""
 * when nothing does. */
enum mt_status mt_mixture_resume(struct mt_mixture *mixture, int64_t sequence, bool accept_changes,
                                 char *notes, size_t notes_bytes);

#endif
