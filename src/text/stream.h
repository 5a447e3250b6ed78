/* Text of tokens that come one by one. A token's text may depend on those before it (SentencePiece:
 * the space before a word), and may be part of a character; so a few tokens are decoded together,
 * and what they add to the text of those shown is shown. */
#ifndef MT_TEXT_STREAM_H
#define MT_TEXT_STREAM_H

#include "text/tokenizer.h"

struct mt_text_stream {
    const struct mt_tokenizer *tokenizer;
    struct mt_ids ids;
    int64_t first, n_shown; /* ids from first on are decoded; those before n_shown are shown */
    struct mt_text before, after;
};
/* ids [n] are shown already: the prompt. */
enum mt_status mt_text_stream_init(struct mt_text_stream *stream,
                                   const struct mt_tokenizer *tokenizer, const int32_t *id,
                                   int64_t n);
void mt_text_stream_clear(struct mt_text_stream *stream);

/* The text that the next token adds, valid until the next call: none while a character is not
 * whole. */
enum mt_status mt_text_stream_add(struct mt_text_stream *stream, int32_t id, const char **text,
                                  int64_t *n);
/* What is held back still. */
enum mt_status mt_text_stream_end(struct mt_text_stream *stream, const char **text, int64_t *n);

#endif
