#include "text/kinds.h"

#include "base/memory.h"
#include "base/size.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>

struct mt_tokenizer {
    const struct mt_tokenizer_kind *kind;
    void *own; /* the kind's */
};

enum mt_status mt_ids_append(struct mt_ids *ids, const int32_t *item, int64_t n)
{
    MT_TRY(MT_MAKE_ROOM(ids->item, ids->n, &ids->capacity, n, "token ids"));
    if (n > 0) { /* an empty list has no memory to copy to */
        memcpy(ids->item + ids->n, item, (size_t)n * sizeof(*item));
    }
    ids->n += n;
    return MT_OK;
}

enum mt_status mt_text_append(struct mt_text *text, const char *item, int64_t n)
{
    MT_TRY(MT_MAKE_ROOM(text->item, text->n, &text->capacity, n, "text"));
    if (n > 0) {
        memcpy(text->item + text->n, item, (size_t)n);
    }
    text->n += n;
    return MT_OK;
}

enum mt_status mt_text_check_utf8(const char *text, int64_t n)
{
    for (int64_t i = 0; i < n;) {
        utf8proc_int32_t point = 0;
        const utf8proc_ssize_t bytes =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, n - i, &point);
        if (bytes < 1) {
            return MT_FAIL(MT_ERR_INPUT,
                           "offset %lld of the text: byte 0x%02x begins no UTF-8 character; UTF-8 "
                           "was expected; convert the text, or use the tokenizer bytes",
                           (long long)i, (unsigned char)text[i]);
        }
        i += bytes;
    }
    return MT_OK;
}

/* A byte is a token. */
static enum mt_status open_bytes(const char *path, void **own)
{
    (void)path;
    *own = NULL;
    return MT_OK;
}

static void close_bytes(void *own)
{
    (void)own;
}

static int64_t vocab_size_bytes(const void *own)
{
    (void)own;
    return 256;
}

static int32_t find_bytes(const void *own, const char *token)
{
    (void)own;
    return token[0] != '\0' && token[1] == '\0' ? (unsigned char)token[0] : -1;
}

static enum mt_status encode_bytes(const void *own, const char *text, int64_t n, struct mt_ids *ids)
{
    enum { PIECE = 1024 };
    int32_t id[PIECE];
    (void)own;
    for (int64_t start = 0; start < n; start += PIECE) {
        const int64_t n_here = mt_min_i64(PIECE, n - start);
        for (int64_t i = 0; i < n_here; ++i) {
            id[i] = (unsigned char)text[start + i];
        }
        MT_TRY(mt_ids_append(ids, id, n_here));
    }
    return MT_OK;
}

static enum mt_status decode_bytes(const void *own, const int32_t *id, int64_t n,
                                   struct mt_text *text)
{
    (void)own;
    for (int64_t i = 0; i < n; ++i) {
        const char byte = (char)(unsigned char)id[i];
        const bool is_byte = id[i] >= 0 && id[i] < 256;
        MT_TRY(mt_text_append(text, &byte, is_byte ? 1 : 0));
    }
    return MT_OK;
}

static const struct mt_tokenizer_kind bytes = {.suffix = "bytes",
                                               .open = open_bytes,
                                               .close = close_bytes,
                                               .vocab_size = vocab_size_bytes,
                                               .find = find_bytes,
                                               .encode = encode_bytes,
                                               .decode = decode_bytes};

static const struct mt_tokenizer_kind *const kinds[] = {&bytes, &mt_tokenizer_bpe,
                                                        &mt_tokenizer_sentencepiece};
enum { N_KIND = sizeof(kinds) / sizeof(kinds[0]) };

static const struct mt_tokenizer_kind *find_kind(const char *path)
{
    const size_t n = strlen(path);
    for (int i = 0; i < N_KIND; ++i) {
        const size_t n_suffix = strlen(kinds[i]->suffix);
        if (n >= n_suffix && strcmp(path + n - n_suffix, kinds[i]->suffix) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

/* By its name it is of no kind: because nothing is there, or it is a folder, or something else. */
static enum mt_status refuse_path(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "cannot open the tokenizer %s: %s; bytes, a tokenizer.json of byte-level "
                       "BPE or a SentencePiece .model was expected; check the path",
                       path, strerror(errno));
    }
    if (S_ISDIR(about.st_mode)) {
        return MT_FAIL(MT_ERR_INPUT,
                       "the tokenizer %s is a folder; a file was expected; name the tokenizer.json "
                       "or the .model in it",
                       path);
    }
    return MT_FAIL(MT_ERR_INPUT,
                   "%s is no tokenizer: its name is not bytes and ends in neither .json nor "
                   ".model; a tokenizer.json of byte-level BPE or a SentencePiece .model was "
                   "expected; name one of these",
                   path);
}

enum mt_status mt_tokenizer_open(const char *path, struct mt_tokenizer **out)
{
    const struct mt_tokenizer_kind *kind = find_kind(path);
    struct mt_tokenizer *tokenizer = NULL;
    *out = NULL;
    if (kind == NULL) {
        return refuse_path(path);
    }
    MT_TRY(MT_ALLOCATE(tokenizer, 1, "tokenizer"));
    tokenizer->kind = kind;
    const enum mt_status status = kind->open(path, &tokenizer->own);
    if (status != MT_OK) {
        mt_memory_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return MT_OK;
}

void mt_tokenizer_close(struct mt_tokenizer *tokenizer)
{
    if (tokenizer != NULL) {
        tokenizer->kind->close(tokenizer->own);
        mt_memory_free(tokenizer);
    }
}

int64_t mt_tokenizer_vocab_size(const struct mt_tokenizer *tokenizer)
{
    return tokenizer->kind->vocab_size(tokenizer->own);
}

int32_t mt_tokenizer_find(const struct mt_tokenizer *tokenizer, const char *token)
{
    return tokenizer->kind->find(tokenizer->own, token);
}

int32_t mt_tokenizer_end_of_text(const struct mt_tokenizer *tokenizer)
{
    static const char *const usual[] = {"<|endoftext|>", "<|end_of_text|>", "</s>"};
    int32_t id = -1;
    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]) && id < 0; ++i) {
        id = mt_tokenizer_find(tokenizer, usual[i]);
    }
    return id;
}

enum mt_status mt_tokenizer_encode(const struct mt_tokenizer *tokenizer, const char *text,
                                   int64_t n, struct mt_ids *ids)
{
    return tokenizer->kind->encode(tokenizer->own, text, n, ids);
}

enum mt_status mt_tokenizer_decode(const struct mt_tokenizer *tokenizer, const int32_t *id,
                                   int64_t n, struct mt_text *text)
{
    return tokenizer->kind->decode(tokenizer->own, id, n, text);
}
