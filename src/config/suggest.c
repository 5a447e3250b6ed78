#include "config/suggest.h"

#include "config/choice.h"
#include "config/table.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 79 };

static int min3(int a, int b, int c)
{
    const int least = a < b ? a : b;
    return least < c ? least : c;
}

int mt_suggest_distance(const char *a, const char *b)
{
    const int n_a = (int)strnlen(a, MAX_NAME);
    const int n_b = (int)strnlen(b, MAX_NAME);
    int rows[3][MAX_NAME + 1]; /* distances of the prefixes of a of length i-2, i-1, i */
    int *before = rows[0];
    int *last = rows[1];
    int *now = rows[2];
    for (int j = 0; j <= n_b; j++) {
        last[j] = j;
        before[j] = 0;
    }
    for (int i = 1; i <= n_a; i++) {
        now[0] = i;
        for (int j = 1; j <= n_b; j++) {
            const int replace = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = min3(last[j] + 1, now[j - 1] + 1, replace);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = min3(now[j], replace, before[j - 2] + 1);
            }
        }
        int *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[n_b];
}

void mt_suggest_key(const char *section, const char *name, char *text, size_t bytes)
{
    const struct mt_key *best = NULL;
    int best_distance = 0;
    for (int i = 0; i < mt_table_n_key(); i++) {
        const struct mt_key *key = mt_table_key(i);
        if (strcmp(key->name, name) == 0) { /* not of this section, or it would be known */
            (void)snprintf(text, bytes, "\"%s\" in [%s]", key->name, key->section);
            return;
        }
        if (section[0] != '\0' && strcmp(key->section, section) != 0) {
            continue;
        }
        const int distance = mt_suggest_distance(name, key->name);
        if (best == NULL || distance < best_distance) {
            best = key;
            best_distance = distance;
        }
    }
    if (best == NULL) {
        (void)snprintf(text, bytes, "none");
    } else if (section[0] == '\0') {
        (void)snprintf(text, bytes, "\"%s\" in [%s]", best->name, best->section);
    } else {
        (void)snprintf(text, bytes, "\"%s\"", best->name);
    }
}

const char *mt_suggest_section(const char *section)
{
    const char *best = "";
    int best_distance = 2 * MAX_NAME;
    for (int i = 0; i < mt_table_n_key(); i++) {
        const int distance = mt_suggest_distance(section, mt_table_key(i)->section);
        if (distance < best_distance) {
            best = mt_table_key(i)->section;
            best_distance = distance;
        }
    }
    return best;
}

void mt_suggest_choice(const char *choices, const char *name, char *word, size_t bytes)
{
    int best = 0;
    int best_distance = 2 * MAX_NAME;
    for (int i = 0; mt_choice_word(choices, i, word, bytes); i++) {
        const int distance = mt_suggest_distance(name, word);
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    (void)mt_choice_word(choices, best, word, bytes);
}
