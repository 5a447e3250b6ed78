#include "config/choice.h"

#include "base/status.h"

#include <stdio.h>
#include <string.h>

enum { WORD_BYTES = 64 };

bool mt_choice_word(const char *choices, int index, char *word, size_t bytes)
{
    const char *start = choices;
    for (int i = 0; i < index; i++) {
        start = strchr(start, '|');
        if (start == NULL) {
            return false;
        }
        start++;
    }
    const size_t n = strcspn(start, "|");
    MT_ASSERT(n < bytes);
    memcpy(word, start, n);
    word[n] = '\0';
    return true;
}

int mt_choice_find(const char *choices, const char *word)
{
    char member[WORD_BYTES];
    for (int i = 0; mt_choice_word(choices, i, member, sizeof(member)); i++) {
        if (strcmp(member, word) == 0) {
            return i;
        }
    }
    return -1;
}

int mt_choice_count(const char *choices)
{
    int n = 1;
    for (const char *c = choices; *c != '\0'; c++) {
        n += *c == '|';
    }
    return n;
}

void mt_choice_list(const char *choices, bool quoted, const char *join, char *text, size_t bytes)
{
    const int n = mt_choice_count(choices);
    const char *quote = quoted ? "\"" : "";
    char member[WORD_BYTES];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < n && mt_choice_word(choices, i, member, sizeof(member)); i++) {
        const char *before = i == 0 ? "" : i + 1 < n ? ", " : join;
        const int wrote =
            snprintf(text + used, bytes - used, "%s%s%s%s", before, quote, member, quote);
        MT_ASSERT(wrote >= 0 && (size_t)wrote < bytes - used);
        used += (size_t)wrote;
    }
}
