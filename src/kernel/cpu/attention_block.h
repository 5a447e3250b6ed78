/* What attention's two directions share: the blocks they work in, and a thread's scratch.
 *
 * Everything that is multiplied is first copied out of its [N, H, Dh] array: rows of one head there
 * are H Dh floats apart, often a power of two, so that few of them fit the sets of a cache they map
 * to. Two copies of T Dh floats stand against T T Dh multiply-adds. For the same reason rows lie an
 * odd number of cache lines apart here, of scores (SCORE_STRIDE) and of what is [.., Dh] (`row`):
 * products that read scores down their columns, 64 rows of 1 KiB in 4 of the 64 sets of a level-1
 * cache, gained a tenth (Zen 3, 2026-11). */
#ifndef MT_KERNEL_CPU_ATTENTION_BLOCK_H
#define MT_KERNEL_CPU_ATTENTION_BLOCK_H

#include "kernel/cpu/product.h"
#include "kernel/cpu/vector.h"
#include "kernel/kernel.h"

/* QUERIES x KEYS scores are held at a time: one of 16 x 256 to 128 x 256, 64 x 128 and 64 x 512 is
 * best by 0.02 of peak at T = 256 to 1024, Dh = 64 and 128 (Zen 4, 2026-11; on Zen 3 some are
 * worse and none better in all cases). TILE keys are packed together, transposed. On the diagonal
 * scores are computed in steps of a vector, and products with scores in steps of STEP queries or
 * keys; what lies beyond is skipped. */
enum {
    MT_ATTENTION_QUERIES = 64,
    MT_ATTENTION_KEYS = 256,
    MT_ATTENTION_SCORE_STRIDE = MT_ATTENTION_KEYS + 16, /* from row to row of scores */
    MT_ATTENTION_TILE = 32,
    MT_ATTENTION_STEP = 8
};

/* The scratch of one thread, for one (segment, kv head) at a time, the unit of parallel work.
 * Those without a word are for backward only. */
struct mt_attention_head {
    const struct mt_attention *shape;
    const struct mt_rope *rope; /* NULL: none */
    mt_cpu_multiply_fn multiply;
    int64_t row;       /* floats from row to row of what is [.., Dh] here */
    float scale;       /* log2 e / sqrt(Dh): exponentials are powers of 2 */
    float *key_pack;   /* [ceil(T/TILE), Dh, TILE] k transposed in tiles, 0 beyond T; forward too */
    float *value_pack; /* the same of v */
    float *key;        /* [T, Dh] rotated; in forward [TILE, Dh], on its way to key_pack */
    float *value;      /* [T, Dh]; forward only, shares its memory with d_value */
    float *d_key;      /* [T, Dh] */
    float *d_value;    /* [T, Dh] */
    float *query;      /* [QUERIES, Dh] rotated q times scale; forward too */
    float *out;        /* [QUERIES, Dh] o in forward, dS K in backward */
    float *d_out;      /* [QUERIES, Dh] */
    float *score;      /* [QUERIES, KEYS]; forward too */
    float *d_score;    /* [QUERIES, KEYS] */
};

/* A block of scores: queries query .. query + n_query - 1 against keys key .. key + n_key - 1,
 * where n_key stops at the last key that the last query sees. */
struct mt_attention_block {
    int64_t query, n_query, key, n_key;
};

void mt_attention_head_init(struct mt_attention_head *head, const struct mt_attention *shape,
                            const struct mt_rope *rope, void *scratch, int thread);

/* Start of head h of a token in an array [N, n_head, Dh]. */
static inline int64_t mt_attention_start(const struct mt_attention *shape, int64_t n_head,
                                         int64_t token, int64_t h)
{
    return (token * n_head + h) * shape->head_dim;
}

/* to [n, Dh] = scale from, rows to_stride and from_stride apart. */
struct mt_attention_copy {
    float *to;
    const float *from;
    int64_t to_stride, from_stride;
};
void mt_attention_copy_rows(const struct mt_attention_head *head,
                            const struct mt_attention_copy *copy, int64_t n, float scale);
/* The same, rotated as their positions say, the first at `position`; backward: the other way.
 * Without rope as mt_attention_copy_rows. */
void mt_attention_rotate_rows(const struct mt_attention_head *head,
                              const struct mt_attention_copy *copy, int64_t position, int64_t n,
                              float scale, bool backward);

/* Rows of arrays that the next block will read or this one write: fetched a few at a time between
 * arithmetic, since a head's rows lie too far apart for the processor to foresee them (a fifth of
 * the time at T = 256, H = 4, Dh = 64, where all arrays together exceed the level-2 cache). */
enum { MT_ATTENTION_FETCHES = 8 };
struct mt_attention_fetch {
    int n; /* arrays */
    int64_t row_bytes;
    struct {
        const float *from; /* row 0 */
        int64_t n_row, stride;
    } array[MT_ATTENTION_FETCHES];
};
static inline void mt_attention_fetch_add(struct mt_attention_fetch *fetch, const float *from,
                                          int64_t n_row, int64_t stride)
{
    MT_ASSERT(fetch->n < MT_ATTENTION_FETCHES);
    fetch->array[fetch->n].from = from;
    fetch->array[fetch->n].n_row = n_row;
    fetch->array[fetch->n].stride = stride;
    fetch->n++;
}
MT_INLINE void mt_attention_fetch_row(const struct mt_attention_fetch *fetch, int64_t row)
{
    enum { LINE_BYTES = 64, LEVEL_2 = 2 };
    for (int i = 0; i < fetch->n; i++) {
        const char *from = (const char *)(fetch->array[i].from + row * fetch->array[i].stride);
        const int64_t n_byte = row < fetch->array[i].n_row ? fetch->row_bytes : 0;
        for (int64_t byte = 0; byte < n_byte; byte += LINE_BYTES) {
            __builtin_prefetch(from + byte, 0, LEVEL_2);
        }
    }
}

/* One (segment, kv head), and the one whose keys and values are fetched meanwhile: with several
 * threads often another's, which costs little. */
struct mt_attention_item {
    int64_t token, length; /* the segment: its first token of N, its tokens */
    int64_t kv_head;
    int64_t next; /* start of its keys in [N, Hk, Dh]; < 0: there is none */
    int64_t next_length;
};
int64_t mt_attention_n_item(const struct mt_attention *shape,
                            const struct mt_attention_segments *segments);
struct mt_attention_item mt_attention_item_of(const struct mt_attention *shape,
                                              const struct mt_attention_segments *segments,
                                              int64_t item);
/* Where head h of an item's position has its number in lse [B, H, T]. */
static inline int64_t mt_attention_lse(const struct mt_attention *shape,
                                       const struct mt_attention_item *item, int64_t h,
                                       int64_t position)
{
    const int64_t sequence = item->token / shape->length;
    const int64_t first = item->token % shape->length;
    return (sequence * shape->n_head + h) * shape->length + first + position;
}

/* pack = the tiles of x [n, Dh], rows `stride` apart. */
void mt_attention_pack(const struct mt_attention_head *head, float *pack, const float *x,
                       int64_t stride, int64_t n);

/* out [n_query, KEYS] = a [n_query, Dh] times the packed keys (or values) of the block, for the
 * keys that a query sees, up to the end of their last vector. */
void mt_attention_score(const struct mt_attention_head *head,
                        const struct mt_attention_block *block, float *out, const float *a,
                        const float *pack);

/* out [n_query, Dh] (=, or += from the second key block on) score [n_query, KEYS] x, where
 * x [T, Dh] is read at the block's keys. Scores are 0 in the STEP - 1 keys behind
 * the seen ones. */
void mt_attention_gather(const struct mt_attention_head *head,
                         const struct mt_attention_block *block, float *out, const float *score,
                         const float *x);

/* d_x [T, Dh] at the block's keys += score^T [n_key, n_query] x [n_query, Dh]; scores as above. */
void mt_attention_scatter(const struct mt_attention_head *head,
                          const struct mt_attention_block *block, float *d_x, const float *score,
                          const float *x);

/* Keys of the block that query number i of the block sees: at least 1. */
static inline int64_t mt_attention_n_seen(const struct mt_attention_block *block, int64_t i)
{
    const int64_t seen = block->query + i + 1 - block->key;
    return seen < block->n_key ? seen : block->n_key;
}

/* row [KEYS] = value in the keys behind the seen ones that products read: up to the end of their
 * last vector and in the next. */
MT_INLINE void mt_attention_fill_unseen(float *row, int64_t n_seen, float value)
{
    const int64_t last = (n_seen - 1) / MT_LANES * MT_LANES;
    float *restrict vector = row + last;
    const int n = (int)(n_seen - last);
#pragma omp simd
    for (int l = 0; l < MT_LANES; l++) {
        vector[l] = l < n ? vector[l] : value;
    }
    if (last + MT_LANES < MT_ATTENTION_KEYS) {
#pragma omp simd
        for (int l = MT_LANES; l < 2 * MT_LANES; l++) {
            vector[l] = value;
        }
    }
}

#endif
