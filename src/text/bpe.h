/* Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: Radford et al. 2019): a word
 * begins as its bytes, and the pair of neighbours that was learned first is merged, until none is
 * left.
 *
 * What is here is the vocabulary, the merges and one word; splitting.h cuts text into words. */
#ifndef MT_TEXT_BPE_H
#define MT_TEXT_BPE_H

#include "text/splitting.h"
#include "text/tokenizer.h"

/* A token as bytes, in the vocabulary's store. */
struct mt_bpe_token {
    int64_t offset;
    int32_t n_byte; /* -1: no token has this id */
};

struct mt_bpe_merge {
    uint64_t pair; /* left id, right id */
    int32_t rank, id;
};

struct mt_bpe {
    int64_t n_token;
    struct mt_bpe_token *token; /* [n_token] by id */
    struct mt_text store;       /* the bytes of all tokens */
    int64_t n_slot;             /* a power of two */
    int32_t *slot;              /* [n_slot] hash table from bytes to id; -1: free */
    int64_t n_merge_slot;
    struct mt_bpe_merge *merge; /* [n_merge_slot] hash table; rank -1: free */
    int32_t byte_id[256];
    bool ignore_merges; /* a word that is a token is that token */
    struct mt_splitting splitting;
};

/* Empty, with room for ids below n_token and n_merge merges. */
enum mt_status mt_bpe_init(struct mt_bpe *bpe, int64_t n_token, int64_t n_merge);
void mt_bpe_clear(struct mt_bpe *bpe);

/* False when the id or the bytes are taken. */
enum mt_status mt_bpe_add_token(struct mt_bpe *bpe, int32_t id, const char *bytes, int64_t n_byte,
                                bool *is_new);
/* The next merge by rank; both and their join are tokens. False: a pair that is there already. */
bool mt_bpe_add_merge(struct mt_bpe *bpe, int32_t rank, int32_t left, int32_t right, int32_t id);

/* The id of a token; -1: none. Added tokens are not found here. */
int32_t mt_bpe_find(const struct mt_bpe *bpe, const char *bytes, int64_t n_byte);

/* Appends the ids of one word. */
enum mt_status mt_bpe_encode_word(const struct mt_bpe *bpe, const char *bytes, int64_t n,
                                  struct mt_ids *ids);

#endif
