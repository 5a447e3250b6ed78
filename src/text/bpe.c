#include "text/bpe.h"

#include "base/memory.h"
#include "base/size.h"

#include <string.h>
#include <xxhash.h>

enum {
    SHORT_WORD = 64
}; /* symbols that a word may have on the stack; words of text have 1 to 20 */

static int64_t table_size(int64_t n)
{
    int64_t size = 16;
    while (size < 2 * n) {
        size *= 2;
    }
    return size;
}

enum mt_status mt_bpe_init(struct mt_bpe *bpe, int64_t n_token, int64_t n_merge)
{
    memset(bpe, 0, sizeof(*bpe));
    bpe->n_token = n_token;
    bpe->n_slot = table_size(n_token);
    bpe->n_merge_slot = table_size(n_merge);
    MT_TRY(MT_ALLOCATE(bpe->token, n_token, "vocabulary"));
    MT_TRY(MT_ALLOCATE(bpe->slot, bpe->n_slot, "vocabulary"));
    MT_TRY(MT_ALLOCATE(bpe->merge, bpe->n_merge_slot, "merges"));
    for (int64_t i = 0; i < n_token; ++i) {
        bpe->token[i].n_byte = -1;
    }
    for (int64_t i = 0; i < bpe->n_slot; ++i) {
        bpe->slot[i] = -1;
    }
    for (int64_t i = 0; i < bpe->n_merge_slot; ++i) {
        bpe->merge[i].rank = -1;
    }
    return MT_OK;
}

void mt_bpe_clear(struct mt_bpe *bpe)
{
    mt_splitting_clear(&bpe->splitting);
    mt_memory_free(bpe->store.item);
    mt_memory_free(bpe->token);
    mt_memory_free(bpe->slot);
    mt_memory_free(bpe->merge);
    memset(bpe, 0, sizeof(*bpe));
}

/* The slot of these bytes, or the free one where they would be. The table is at most half full. */
static int64_t find_slot(const struct mt_bpe *bpe, const char *bytes, int64_t n_byte)
{
    int64_t at = (int64_t)(XXH3_64bits(bytes, (size_t)n_byte) & (uint64_t)(bpe->n_slot - 1));
    while (bpe->slot[at] >= 0) {
        const struct mt_bpe_token *token = &bpe->token[bpe->slot[at]];
        if (token->n_byte == n_byte &&
            memcmp(bpe->store.item + token->offset, bytes, (size_t)n_byte) == 0) {
            break;
        }
        at = (at + 1) & (bpe->n_slot - 1);
    }
    return at;
}

int32_t mt_bpe_find(const struct mt_bpe *bpe, const char *bytes, int64_t n_byte)
{
    return bpe->slot[find_slot(bpe, bytes, n_byte)];
}

enum mt_status mt_bpe_add_token(struct mt_bpe *bpe, int32_t id, const char *bytes, int64_t n_byte,
                                bool *is_new)
{
    const int64_t at = find_slot(bpe, bytes, n_byte);
    MT_ASSERT(id >= 0 && id < bpe->n_token && n_byte <= INT32_MAX);
    *is_new = bpe->slot[at] < 0 && bpe->token[id].n_byte < 0;
    if (!*is_new) {
        return MT_OK;
    }
    bpe->token[id].offset = bpe->store.n;
    MT_TRY(mt_text_append(&bpe->store, bytes, n_byte));
    bpe->token[id].n_byte = (int32_t)n_byte;
    bpe->slot[at] = id;
    return MT_OK;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The merge of a pair, or the free place where it would be. */
static struct mt_bpe_merge *find_merge(const struct mt_bpe *bpe, int32_t left, int32_t right)
{
    const uint64_t pair = pair_of(left, right);
    int64_t at = (int64_t)(XXH3_64bits(&pair, sizeof(pair)) & (uint64_t)(bpe->n_merge_slot - 1));
    while (bpe->merge[at].rank >= 0 && bpe->merge[at].pair != pair) {
        at = (at + 1) & (bpe->n_merge_slot - 1);
    }
    return &bpe->merge[at];
}

bool mt_bpe_add_merge(struct mt_bpe *bpe, int32_t rank, int32_t left, int32_t right, int32_t id)
{
    struct mt_bpe_merge *merge = find_merge(bpe, left, right);
    const bool is_new = merge->rank < 0;
    if (is_new) {
        *merge = (struct mt_bpe_merge){.pair = pair_of(left, right), .rank = rank, .id = id};
    }
    return is_new;
}

/* A symbol of the word in the making; they are linked in order. */
struct symbol {
    int32_t id, before, after; /* -1: none; id -1: merged away */
};

/* A pair that could be merged, as it was when it was seen. */
struct candidate {
    int32_t rank, left, id;
    uint64_t pair;
};

/* The word, and a heap of candidates: the least rank first, among equals the leftmost. */
struct word {
    struct symbol *symbol;
    struct candidate *heap; /* room for three a symbol: n - 1 pairs, and two new ones a merge */
    int64_t n_candidate;
};

static bool comes_first(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void push(struct word *word, struct candidate candidate)
{
    int64_t at = word->n_candidate++;
    while (at > 0 && comes_first(&candidate, &word->heap[(at - 1) / 2])) {
        word->heap[at] = word->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    word->heap[at] = candidate;
}

static struct candidate pop(struct word *word)
{
    const struct candidate first = word->heap[0];
    const struct candidate last = word->heap[--word->n_candidate];
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child + 1 < word->n_candidate &&
            comes_first(&word->heap[child + 1], &word->heap[child])) {
            ++child;
        }
        if (child >= word->n_candidate || !comes_first(&word->heap[child], &last)) {
            break;
        }
        word->heap[at] = word->heap[child];
        at = child;
    }
    word->heap[at] = last;
    return first;
}

/* Looks at the pair of a symbol and the one after it. */
static void consider(const struct mt_bpe *bpe, struct word *word, int32_t left)
{
    if (left < 0 || word->symbol[left].after < 0) {
        return;
    }
    const int32_t left_id = word->symbol[left].id;
    const int32_t right_id = word->symbol[word->symbol[left].after].id;
    const struct mt_bpe_merge *merge = find_merge(bpe, left_id, right_id);
    if (merge->rank >= 0) {
        push(word, (struct candidate){merge->rank, left, merge->id, merge->pair});
    }
}

static void merge_all(const struct mt_bpe *bpe, struct word *word)
{
    struct symbol *symbol = word->symbol;
    while (word->n_candidate > 0) {
        const struct candidate best = pop(word);
        struct symbol *left = &symbol[best.left];
        const int32_t right = left->after;
        if (left->id < 0 || right < 0 || pair_of(left->id, symbol[right].id) != best.pair) {
            continue; /* one of the two was merged meanwhile */
        }
        left->id = best.id;
        left->after = symbol[right].after;
        symbol[right].id = -1;
        if (left->after >= 0) {
            symbol[left->after].before = best.left;
        }
        consider(bpe, word, left->before);
        consider(bpe, word, best.left);
    }
}

static enum mt_status encode_symbols(const struct mt_bpe *bpe, const char *bytes, int64_t n,
                                     struct word *word, struct mt_ids *ids)
{
    MT_ASSERT(n >= 1);
    for (int64_t i = 0; i < n; ++i) {
        word->symbol[i] = (struct symbol){.id = bpe->byte_id[(unsigned char)bytes[i]],
                                          .before = (int32_t)i - 1,
                                          .after = i + 1 < n ? (int32_t)i + 1 : -1};
    }
    for (int64_t i = 0; i + 1 < n; ++i) {
        consider(bpe, word, (int32_t)i);
    }
    merge_all(bpe, word);
    for (int32_t at = 0; at >= 0; at = word->symbol[at].after) {
        MT_TRY(mt_ids_append(ids, &word->symbol[at].id, 1));
    }
    return MT_OK;
}

static enum mt_status encode_long(const struct mt_bpe *bpe, const char *bytes, int64_t n,
                                  struct mt_ids *ids)
{
    struct word word = {0};
    enum mt_status status = MT_ALLOCATE(word.symbol, n, "a long word");
    status = status == MT_OK ? MT_ALLOCATE(word.heap, 3 * n, "a long word") : status;
    status = status == MT_OK ? encode_symbols(bpe, bytes, n, &word, ids) : status;
    mt_memory_free(word.symbol);
    mt_memory_free(word.heap);
    return status;
}

enum mt_status mt_bpe_encode_word(const struct mt_bpe *bpe, const char *bytes, int64_t n,
                                  struct mt_ids *ids)
{
    struct symbol symbol[SHORT_WORD];
    struct candidate heap[3 * SHORT_WORD];
    struct word word = {.symbol = symbol, .heap = heap};
    const int32_t whole = bpe->ignore_merges || n == 1 ? mt_bpe_find(bpe, bytes, n) : -1;
    if (whole >= 0) {
        return mt_ids_append(ids, &whole, 1);
    }
    if (n > SHORT_WORD) {
        return encode_long(bpe, bytes, n, ids);
    }
    return encode_symbols(bpe, bytes, n, &word, ids);
}
