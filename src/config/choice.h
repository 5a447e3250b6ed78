/* Lists of words written "a|b|c", as the table of keys holds them. */
#ifndef MT_CONFIG_CHOICE_H
#define MT_CONFIG_CHOICE_H

#include <stdbool.h>
#include <stddef.h>

/* Member `index` of `choices` into word [bytes]; false past the last one. */
bool mt_choice_word(const char *choices, int index, char *word, size_t bytes);

/* The index of `word` in `choices`; -1 when it is none of them. */
int mt_choice_find(const char *choices, const char *word);
int mt_choice_count(const char *choices);

/* All members as words, in quotation marks when `quoted`: "a", "b" <join> "c". text [bytes] */
void mt_choice_list(const char *choices, bool quoted, const char *join, char *text, size_t bytes);

#endif
