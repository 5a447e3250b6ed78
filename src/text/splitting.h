/* Text to words, as the pre-tokenizers of Hugging Face do it: steps one after the other, each
 * cutting every piece that the ones before left. Regular expressions by PCRE2 with Unicode
 * properties. */
#ifndef MT_TEXT_SPLITTING_H
#define MT_TEXT_SPLITTING_H

#include "base/status.h"

#include <stdint.h>

struct mt_range {
    int64_t start, end; /* bytes [start, end) of the text */
};
struct mt_ranges {
    int64_t n, capacity;
    struct mt_range *item;
};
void mt_ranges_clear(struct mt_ranges *ranges);

enum { MT_MAX_SPLIT = 8 };
struct mt_splitting {
    int n_step;
    void *step[MT_MAX_SPLIT]; /* pcre2_code */
};

/* What the expression matches and what lies between become pieces of their own. `from`: the file,
 * for messages. MT_ERR_INPUT when it is no expression, or there are too many. */
enum mt_status mt_splitting_add(struct mt_splitting *splitting, const char *expression,
                                const char *from);
void mt_splitting_clear(struct mt_splitting *splitting);

/* words: the pieces of text [n], which is UTF-8, in order; none is empty. spare: of the same kind,
 * kept between calls. */
enum mt_status mt_splitting_apply(const struct mt_splitting *splitting, const char *text, int64_t n,
                                  struct mt_ranges *words, struct mt_ranges *spare);

#endif
