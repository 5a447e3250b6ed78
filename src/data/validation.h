/* What a model is evaluated on: data.validation, and the named sets of data.validation_sets. Each
 * set is a corpus of its own, evaluated from its first window on. */
#ifndef MT_DATA_VALIDATION_H
#define MT_DATA_VALIDATION_H

#include "data/corpus.h"

struct mt_validation {
    int n_set;     /* 0: there are no validation data */
    bool is_named; /* one set without a name has no loss by set */
    char name[MT_MAX_SETS + 1][MT_NAME_BYTES];
    struct mt_corpus *corpus[MT_MAX_SETS + 1];
};

/* As [data] says; format random has one set, of other sequences than those of training. Errors as
 * those of mt_corpus_open. Close in either case. */
enum mt_status mt_validation_open(const struct mt_config *config, struct mt_validation *out);
void mt_validation_close(struct mt_validation *validation);
/* Windows of a set that an evaluation of `n_sequence` a set visits; 0: all. */
int64_t mt_validation_n_window(const struct mt_validation *validation, int set, int64_t n_sequence);

#endif
