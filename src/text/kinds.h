/* What tokenizer.c chooses from: a kind is one file and one row there. */
#ifndef MT_TEXT_KINDS_H
#define MT_TEXT_KINDS_H

#include "text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mt_tokenizer_kind {
    const char *suffix; /* of the path */
    enum mt_status (*open)(const char *path, void **own);
    void (*close)(void *own);
    int64_t (*vocab_size)(const void *own);
    int32_t (*find)(const void *own, const char *token);
    enum mt_status (*encode)(const void *own, const char *text, int64_t n, struct mt_ids *ids);
    enum mt_status (*decode)(const void *own, const int32_t *id, int64_t n, struct mt_text *text);
};

extern const struct mt_tokenizer_kind mt_tokenizer_bpe;
extern const struct mt_tokenizer_kind mt_tokenizer_sentencepiece;

/* MT_ERR_INPUT with the offset of the first byte that is not UTF-8. */
enum mt_status mt_text_check_utf8(const char *text, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
