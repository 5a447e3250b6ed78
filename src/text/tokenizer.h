/* Tokenizers: text to ids and back.
 *
 *   bytes               a byte is a token; 256 ids
 *   PATH/tokenizer.json byte-level BPE of Hugging Face tokenizers (GPT-2, OLMoE, Qwen, Llama 3)
 *   PATH/NAME.model     a SentencePiece model (Mixtral, Llama 2), by that library
 *
 * Encoding adds no tokens of its own: no beginning, no end. Special tokens that stand in the text
 * as words are their ids, as Hugging Face does. Encoding may be called from several threads at
 * once. */
#ifndef MT_TEXT_TOKENIZER_H
#define MT_TEXT_TOKENIZER_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Lists that grow; freed with mt_memory_free(list.item). */
struct mt_ids {
    int64_t n, capacity;
    int32_t *item;
};
struct mt_text {
    int64_t n, capacity;
    char *item; /* not terminated */
};
enum mt_status mt_ids_append(struct mt_ids *ids, const int32_t *item, int64_t n);
enum mt_status mt_text_append(struct mt_text *text, const char *item, int64_t n);

struct mt_tokenizer;

/* MT_ERR_INPUT, naming the file: missing, damaged, or of a kind that is not known. */
enum mt_status mt_tokenizer_open(const char *path, struct mt_tokenizer **out);
void mt_tokenizer_close(struct mt_tokenizer *tokenizer); /* NULL allowed */

/* One more than the largest id. */
int64_t mt_tokenizer_vocab_size(const struct mt_tokenizer *tokenizer);
/* The id of a token written exactly so, e.g. "<|endoftext|>"; -1: none. */
int32_t mt_tokenizer_find(const struct mt_tokenizer *tokenizer, const char *token);

/* The token between texts, by the names that are usual for it; -1: none is known. */
int32_t mt_tokenizer_end_of_text(const struct mt_tokenizer *tokenizer);

/* Appends the ids of text [n]; UTF-8, which may hold NULs. MT_ERR_INPUT with the offset when it is
 * not UTF-8 (bytes: anything goes). */
enum mt_status mt_tokenizer_encode(const struct mt_tokenizer *tokenizer, const char *text,
                                   int64_t n, struct mt_ids *ids);
/* Appends the text of id [n]; ids that are none are left out. */
enum mt_status mt_tokenizer_decode(const struct mt_tokenizer *tokenizer, const int32_t *id,
                                   int64_t n, struct mt_text *text);

#ifdef __cplusplus
}
#endif

#endif
