/* The nearest valid name to a mistyped one. */
#ifndef MT_CONFIG_SUGGEST_H
#define MT_CONFIG_SUGGEST_H

#include <stddef.h>

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b. Only the first 79
 * bytes of each are looked at, so hostile input costs nothing. */
int mt_suggest_distance(const char *a, const char *b);

/* The nearest valid key as words: `"hidden_size"`, or `"lr" in [optimizer]` where just that name
 * stands in another section. section must exist. text [bytes] */
void mt_suggest_key(const char *section, const char *name, char *text, size_t bytes);

/* The nearest section, e.g. `moe.balance`. */
const char *mt_suggest_section(const char *section);

/* The nearest member of "a|b|c". word [bytes] */
void mt_suggest_choice(const char *choices, const char *name, char *word, size_t bytes);

#endif
