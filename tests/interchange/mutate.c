#include "mutate.h"

#include "base/random.h"

#include <string.h>

enum { MOST = 3, STRETCH = 24, RARE = 8 };

struct stream {
    uint64_t seed, round, index;
};

/* A number in [0, bound). */
static size_t draw(struct stream *stream, size_t bound)
{
    return (size_t)(mt_random_u64(stream->seed, stream->round, stream->index++) % bound);
}

/* The first digit from text[at] on, where there is one. */
static void change_digit(char *text, size_t n, size_t at, char digit)
{
    while (at < n && (text[at] < '0' || text[at] > '9')) {
        ++at;
    }
    if (at < n) {
        text[at] = digit;
    }
}

void mutate(char *text, size_t *n, size_t room, uint64_t seed, uint64_t round)
{
    static const char signs[] = "{}[],:\"\\-.eE0123456789";
    struct stream stream = {seed, round, 0};
    const size_t n_mutation = 1 + draw(&stream, MOST);
    for (size_t i = 0; i<n_mutation && * n> 0; ++i) {
        const size_t at = draw(&stream, *n);
        const size_t rest = *n - at;
        const size_t length = 1 + draw(&stream, rest < STRETCH ? rest : STRETCH);
        const size_t kind = draw(&stream, 5);
        if (kind == 0) {
            text[at] = (char)draw(&stream, 256);
        } else if (kind == 1) {
            text[at] = signs[draw(&stream, sizeof(signs) - 1)];
        } else if (kind == 2) {
            change_digit(text, *n, at, (char)('0' + draw(&stream, 10)));
        } else if (kind == 3 && draw(&stream, RARE) == 0) {
            *n = at;
        } else if (kind == 3) {
            memmove(text + at, text + at + length, rest - length);
            *n -= length;
        } else if (*n + length <= room) {
            memmove(text + at + length, text + at, rest);
            *n += length;
        }
    }
}
