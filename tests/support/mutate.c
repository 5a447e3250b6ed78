#include "support/mutate.h"

#include "base/random.h"

#include <string.h>

static const char *const words[] = {"-1",          "0",       "99999999999999999999",
                                    "16777215",    "1e308",   "{}",
                                    "[]",          "null",    "true",
                                    "\"\"",        "[[[",     "}}}",
                                    "\"\\u0000\"", "\\uD800", "\xff",
                                    "\"a",         "\"(?",    "\"(a+)+$\"",
                                    "\"Split\"",   ":"};
enum { N_WORD = sizeof(words) / sizeof(words[0]), MAX_STRETCH = 200 };

struct draw {
    uint64_t seed, round, index;
};

/* A number in [0, bound). */
static size_t draw(struct draw *d, size_t bound)
{
    return (size_t)(mt_random_u64(d->seed, d->round, d->index++) % bound);
}

/* data [at, at + n_old) becomes piece [n_new], as far as there is room. */
static void replace(unsigned char *data, size_t *n, size_t room, size_t at, size_t n_old,
                    const void *piece, size_t n_new)
{
    const size_t n_tail = *n - at - n_old;
    if (at + n_new + n_tail > room) {
        return;
    }
    memmove(data + at + n_new, data + at + n_old, n_tail);
    memcpy(data + at, piece, n_new);
    *n = at + n_new + n_tail;
}

static void replace_number(enum mt_mutate_kind kind, struct draw *d, unsigned char *data, size_t *n,
                           size_t room)
{
    static const int64_t awkward[] = {0, 1, -1, INT64_MIN, INT64_MAX, INT32_MAX, 255, 65536};
    static const size_t widths[] = {1, 4, 8};
    size_t at = draw(d, *n);
    if (kind == MT_MUTATE_BINARY) {
        const int64_t value = awkward[draw(d, 8)];
        const size_t width = widths[draw(d, 3)];
        memcpy(data + at, &value, width < *n - at ? width : *n - at);
        return;
    }
    while (at < *n && (data[at] < '0' || data[at] > '9')) {
        ++at;
    }
    const char *word = words[draw(d, N_WORD)];
    replace(data, n, room, at, strspn((const char *)data + at, "0123456789"), word, strlen(word));
}

void mt_mutate(enum mt_mutate_kind kind, uint64_t seed, uint64_t round, unsigned char *data,
               size_t *n, size_t room)
{
    struct draw d = {seed, round, 0};
    const size_t n_change = 1 + draw(&d, 4);
    for (size_t i = 0; i<n_change && * n> 0; ++i) {
        unsigned char piece[MAX_STRETCH];
        const size_t at = draw(&d, *n);
        const size_t most = *n - at < MAX_STRETCH ? *n - at : MAX_STRETCH;
        const size_t length = 1 + draw(&d, most);
        data[*n] = 0; /* the text functions stop here */
        switch (draw(&d, 7)) {
        case 0:
            data[at] ^= (unsigned char)(1U << draw(&d, 8));
            break;
        case 1:
            data[at] = (unsigned char)draw(&d, 256);
            break;
        case 2:
            replace(data, n, room - 1, at, length, piece, 0);
            break;
        case 3:
            memcpy(piece, data + at, length);
            replace(data, n, room - 1, draw(&d, *n), 0, piece, length);
            break;
        case 4:
            *n = draw(&d, 8) == 0 ? at + 1 : *n; /* seldom: most of a cut file says the same */
            break;
        default:
            replace_number(kind, &d, data, n, room - 1);
        }
    }
}
