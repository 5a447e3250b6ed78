/* A byte-level BPE tokenizer: added tokens, normalisation, words, merges. Shared by byte_level.c,
 * which encodes, and bpe_json.c, which reads. */
#ifndef MT_TEXT_BYTE_LEVEL_H
#define MT_TEXT_BYTE_LEVEL_H

#include "text/bpe.h"

/* A token that stands in the text as it is written, before words are looked for. */
struct mt_added_token {
    char *content;
    int64_t n_byte;
    int32_t id;
    bool strips_left, strips_right; /* takes the white space beside it */
    bool is_special;                /* left out when decoding */
};

struct mt_byte_level {
    struct mt_bpe bpe;
    int64_t n_added, added_capacity;
    struct mt_added_token *added; /* longest first */
    bool begins[256];             /* bytes that some added token begins with */
    bool is_nfc, adds_space;
};

enum mt_status mt_byte_level_add(struct mt_byte_level *own, int32_t id, const char *content,
                                 bool strips_left, bool strips_right, bool is_special);
/* bpe_json.c. own is zero. */
enum mt_status mt_byte_level_read(const char *path, struct mt_byte_level *own);

#endif
