#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/splitting.h"

#include "base/memory.h"
#include "base/size.h"

#include <pcre2.h>
#include <string.h>

void mt_ranges_clear(struct mt_ranges *ranges)
{
    mt_memory_free(ranges->item);
    memset(ranges, 0, sizeof(*ranges));
}

static enum mt_status append(struct mt_ranges *ranges, int64_t start, int64_t end)
{
    if (start == end) {
        return MT_OK;
    }
    MT_TRY(MT_MAKE_ROOM(ranges->item, ranges->n, &ranges->capacity, 1, "words"));
    ranges->item[ranges->n++] = (struct mt_range){start, end};
    return MT_OK;
}

enum mt_status mt_splitting_add(struct mt_splitting *splitting, const char *expression,
                                const char *from)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    if (splitting->n_step == MT_MAX_SPLIT) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: more than %d steps that split text; at most that many are "
                       "expected",
                       from, (int)MT_MAX_SPLIT);
    }
    /* \C would cut characters, and text is not checked again from match to match. */
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    pcre2_code *step =
        pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, options, &code, &offset, NULL);
    if (step == NULL) {
        unsigned char words[128];
        (void)pcre2_get_error_message(code, words, sizeof(words));
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: no regular expression at character %zu of \"%.200s\": %s; check the "
                       "file's pre_tokenizer",
                       from, offset, expression, (const char *)words);
    }
    (void)pcre2_jit_compile(step, PCRE2_JIT_COMPLETE); /* without it matching is only slower */
    splitting->step[splitting->n_step++] = step;
    return MT_OK;
}

void mt_splitting_clear(struct mt_splitting *splitting)
{
    for (int s = 0; s < splitting->n_step; ++s) {
        pcre2_code_free(splitting->step[s]);
    }
    memset(splitting, 0, sizeof(*splitting));
}

/* The next match from `from` on; false: none. */
static enum mt_status match(const pcre2_code *step, pcre2_match_data *data, const char *text,
                            struct mt_range piece, int64_t from, struct mt_range *found)
{
    const PCRE2_SPTR start = (PCRE2_SPTR)text + piece.start;
    const PCRE2_SIZE length = (PCRE2_SIZE)(piece.end - piece.start);
    const PCRE2_SIZE offset = (PCRE2_SIZE)(from - piece.start);
    int code = pcre2_match(step, start, length, offset, PCRE2_NO_UTF_CHECK, data, NULL);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) { /* a very long match */
        code =
            pcre2_match(step, start, length, offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, NULL);
    }
    *found = (struct mt_range){piece.end, piece.end};
    if (code >= 0) {
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
        if (ends[0] < offset || ends[1] < ends[0]) { /* \K in a look-around can do that */
            return MT_FAIL(MT_ERR_INPUT,
                           "the tokenizer's regular expression matches backwards; one that goes on "
                           "from where the last match ended was expected; check the pre_tokenizer");
        }
        *found = (struct mt_range){piece.start + (int64_t)ends[0], piece.start + (int64_t)ends[1]};
    } else if (code != PCRE2_ERROR_NOMATCH) {
        return MT_FAIL(MT_ERR_INPUT,
                       "the tokenizer's regular expression gave up on a text of %zu bytes (PCRE2 "
                       "error %d); an expression that ends was expected; check the pre_tokenizer, "
                       "or split the text into smaller documents",
                       length, code);
    }
    return MT_OK;
}

/* After an empty match the search goes on behind the next character. */
static int64_t next_character(const char *text, int64_t at, int64_t end)
{
    do {
        ++at;
    } while (at < end && ((unsigned char)text[at] & 0xC0) == 0x80);
    return at;
}

static enum mt_status split_piece(const pcre2_code *step, pcre2_match_data *data, const char *text,
                                  struct mt_range piece, struct mt_ranges *out)
{
    int64_t done = piece.start;
    int64_t from = piece.start;
    while (from < piece.end) {
        struct mt_range found;
        MT_TRY(match(step, data, text, piece, from, &found));
        if (found.start == found.end && found.end < piece.end) {
            from = next_character(text, found.end, piece.end);
            continue;
        }
        MT_TRY(append(out, done, found.start));
        MT_TRY(append(out, found.start, found.end));
        done = from = found.end;
    }
    return append(out, done, piece.end);
}

enum mt_status mt_splitting_apply(const struct mt_splitting *splitting, const char *text, int64_t n,
                                  struct mt_ranges *words, struct mt_ranges *spare)
{
    words->n = 0;
    MT_TRY(append(words, 0, n));
    for (int s = 0; s < splitting->n_step; ++s) {
        const pcre2_code *step = splitting->step[s];
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(step, NULL);
        enum mt_status status = MT_OK;
        if (data == NULL) {
            return MT_FAIL(MT_ERR_RESOURCE, "out of memory for a regular expression; free some");
        }
        spare->n = 0;
        for (int64_t i = 0; i < words->n && status == MT_OK; ++i) {
            status = split_piece(step, data, text, words->item[i], spare);
        }
        pcre2_match_data_free(data);
        MT_TRY(status);
        const struct mt_ranges swap = *words;
        *words = *spare;
        *spare = swap;
    }
    return MT_OK;
}
