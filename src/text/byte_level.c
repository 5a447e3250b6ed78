#include "text/byte_level.h"

#include "base/memory.h"
#include "base/size.h"
#include "text/kinds.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Longest first, so that of two that fit the longer is found. */
static void insert(struct mt_byte_level *own, struct mt_added_token token)
{
    int64_t at = own->n_added++;
    while (at > 0 && own->added[at - 1].n_byte < token.n_byte) {
        own->added[at] = own->added[at - 1];
        --at;
    }
    own->added[at] = token;
}

enum mt_status mt_byte_level_add(struct mt_byte_level *own, int32_t id, const char *content,
                                 bool strips_left, bool strips_right, bool is_special)
{
    struct mt_added_token token = {.n_byte = (int64_t)strlen(content),
                                   .id = id,
                                   .strips_left = strips_left,
                                   .strips_right = strips_right,
                                   .is_special = is_special};
    MT_TRY(MT_MAKE_ROOM(own->added, own->n_added, &own->added_capacity, 1, "added tokens"));
    MT_TRY(MT_ALLOCATE(token.content, token.n_byte + 1, "an added token"));
    memcpy(token.content, content, (size_t)token.n_byte);
    own->begins[(unsigned char)content[0]] = true;
    insert(own, token);
    return MT_OK;
}

static void close_own(void *context)
{
    struct mt_byte_level *own = context;
    for (int64_t i = 0; i < own->n_added; ++i) {
        mt_memory_free(own->added[i].content);
    }
    mt_memory_free(own->added);
    mt_bpe_clear(&own->bpe);
    mt_memory_free(own);
}

static enum mt_status open_own(const char *path, void **context)
{
    struct mt_byte_level *own = NULL;
    MT_TRY(MT_ALLOCATE(own, 1, "tokenizer"));
    const enum mt_status status = mt_byte_level_read(path, own);
    if (status != MT_OK) {
        close_own(own);
        return status;
    }
    *context = own;
    return MT_OK;
}

static int64_t vocab_size(const void *context)
{
    return ((const struct mt_byte_level *)context)->bpe.n_token;
}

static int32_t find(const void *context, const char *token)
{
    const struct mt_byte_level *own = context;
    for (int64_t i = 0; i < own->n_added; ++i) {
        if (strcmp(own->added[i].content, token) == 0) {
            return own->added[i].id;
        }
    }
    return mt_bpe_find(&own->bpe, token, (int64_t)strlen(token));
}

/* What an encoding works with, kept from section to section. */
struct work {
    const struct mt_byte_level *own;
    struct mt_ranges words, spare;
    struct mt_text copy; /* a section that had to be changed */
    struct mt_ids *ids;
};

static enum mt_status encode_words(struct work *work, const char *text, int64_t n)
{
    const struct mt_bpe *bpe = &work->own->bpe;
    MT_TRY(mt_splitting_apply(&bpe->splitting, text, n, &work->words, &work->spare));
    for (int64_t i = 0; i < work->words.n; ++i) {
        const struct mt_range word = work->words.item[i];
        MT_TRY(mt_bpe_encode_word(bpe, text + word.start, word.end - word.start, work->ids));
    }
    return MT_OK;
}

static enum mt_status append_composed(struct mt_text *copy, const char *text, int64_t n)
{
    utf8proc_uint8_t *composed = NULL;
    const utf8proc_ssize_t n_byte =
        utf8proc_map((const utf8proc_uint8_t *)text, n, &composed,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (n_byte < 0) {
        return MT_FAIL(MT_ERR_RESOURCE, "cannot normalise a text of %lld bytes: %s", (long long)n,
                       utf8proc_errmsg(n_byte));
    }
    const enum mt_status status = mt_text_append(copy, (const char *)composed, n_byte);
    free(composed); /* NOLINT: the library's own */
    return status;
}

static bool is_ascii(const char *text, int64_t n)
{
    for (int64_t i = 0; i < n; ++i) {
        if ((unsigned char)text[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

/* Text between added tokens: composed and with its leading space where the tokenizer wants that. */
static enum mt_status encode_section(struct work *work, const char *text, int64_t n)
{
    const struct mt_byte_level *own = work->own;
    const bool composes = own->is_nfc && !is_ascii(text, n);
    const bool adds_space = own->adds_space && n > 0 && text[0] != ' ';
    if (n == 0 || !(composes || adds_space)) {
        return n == 0 ? MT_OK : encode_words(work, text, n);
    }
    work->copy.n = 0;
    MT_TRY(mt_text_append(&work->copy, " ", adds_space ? 1 : 0));
    MT_TRY(composes ? append_composed(&work->copy, text, n) : mt_text_append(&work->copy, text, n));
    return encode_words(work, work->copy.item, work->copy.n);
}

static const struct mt_added_token *added_at(const struct mt_byte_level *own, const char *text,
                                             int64_t n)
{
    if (!own->begins[(unsigned char)text[0]]) {
        return NULL;
    }
    for (int64_t i = 0; i < own->n_added; ++i) {
        const struct mt_added_token *token = &own->added[i];
        if (token->n_byte <= n && memcmp(token->content, text, (size_t)token->n_byte) == 0) {
            return token;
        }
    }
    return NULL;
}

/* White space as Unicode has it, so far as it can stand beside a token. */
static int64_t space_before(const char *text, int64_t at, int64_t start)
{
    while (at > start) {
        int64_t before = at - 1;
        utf8proc_int32_t point = 0;
        while (before > start && ((unsigned char)text[before] & 0xC0) == 0x80) {
            --before;
        }
        (void)utf8proc_iterate((const utf8proc_uint8_t *)text + before, at - before, &point);
        const utf8proc_category_t category = utf8proc_category(point);
        const bool is_space = (point >= '\t' && point <= '\r') || point == 0x85 ||
                              category == UTF8PROC_CATEGORY_ZS ||
                              category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
        if (!is_space) {
            break;
        }
        at = before;
    }
    return at;
}

static int64_t space_after(const char *text, int64_t at, int64_t n)
{
    while (at < n) {
        int64_t next = at + 1;
        while (next < n && ((unsigned char)text[next] & 0xC0) == 0x80) {
            ++next;
        }
        if (space_before(text, next, at) == next) {
            break;
        }
        at = next;
    }
    return at;
}

static enum mt_status encode_all(struct work *work, const char *text, int64_t n)
{
    int64_t start = 0; /* of the section in the making */
    for (int64_t at = 0; at < n;) {
        const struct mt_added_token *token = added_at(work->own, text + at, n - at);
        if (token == NULL) {
            ++at;
            continue;
        }
        const int64_t end = token->strips_left ? space_before(text, at, start) : at;
        MT_TRY(encode_section(work, text + start, end - start));
        MT_TRY(mt_ids_append(work->ids, &token->id, 1));
        at += token->n_byte;
        at = token->strips_right ? space_after(text, at, n) : at;
        start = at;
    }
    return encode_section(work, text + start, n - start);
}

static enum mt_status encode(const void *context, const char *text, int64_t n, struct mt_ids *ids)
{
    struct work work = {.own = context, .ids = ids};
    MT_TRY(mt_text_check_utf8(text, n));
    const enum mt_status status = encode_all(&work, text, n);
    mt_ranges_clear(&work.words);
    mt_ranges_clear(&work.spare);
    mt_memory_free(work.copy.item);
    return status;
}

static const struct mt_added_token *added_of(const struct mt_byte_level *own, int32_t id)
{
    for (int64_t i = 0; i < own->n_added; ++i) {
        if (own->added[i].id == id) {
            return &own->added[i];
        }
    }
    return NULL;
}

static enum mt_status decode(const void *context, const int32_t *id, int64_t n,
                             struct mt_text *text)
{
    const struct mt_byte_level *own = context;
    enum mt_status status = MT_OK;
    for (int64_t i = 0; i < n && status == MT_OK; ++i) {
        const struct mt_added_token *added = added_of(own, id[i]);
        if (added != NULL && !added->is_special) {
            status = mt_text_append(text, added->content, added->n_byte);
        } else if (added == NULL && id[i] >= 0 && id[i] < own->bpe.n_token &&
                   own->bpe.token[id[i]].n_byte > 0) {
            const struct mt_bpe_token *token = &own->bpe.token[id[i]];
            status = mt_text_append(text, own->bpe.store.item + token->offset, token->n_byte);
        }
    }
    return status;
}

const struct mt_tokenizer_kind mt_tokenizer_bpe = {.suffix = ".json",
                                                   .open = open_own,
                                                   .close = close_own,
                                                   .vocab_size = vocab_size,
                                                   .find = find,
                                                   .encode = encode,
                                                   .decode = decode};
