/* What attention's two directions share: the blocks they work in, and a thread's scratch.
 *
 * Everything that is multiplied is first copied out of its [N, H, Dh] array: rows of one head there
 * are H Dh floats apart, often a power of two, so that few of them fit the sets of a cache they map
 * to. Two copies of T Dh floats stand against T T Dh multiply-adds. */
#ifndef MT_KERNEL_CPU_ATTENTION_BLOCK_H
#define MT_KERNEL_CPU_ATTENTION_BLOCK_H

#include "kernel/cpu/product.h"
#include "kernel/cpu/vector.h"
#include "kernel/kernel.h"

/* QUERIES x KEYS scores are held at a time; of the diagonal's QUERIES x QUERIES square half is
 * computed in vain. TILE keys are packed together, transposed. The best of QUERIES 16, 32, 64 and
 * KEYS 64, 128, 256 at T = 128 to 512, Dh = 32 and 64, on an AMD EPYC 9004 core. */
enum { MT_ATTENTION_QUERIES = 16, MT_ATTENTION_KEYS = 256, MT_ATTENTION_TILE = 32 };

/* The scratch of one thread, for one (sequence, kv head) at a time, the unit of parallel work.
 * Those without a word are for backward only. */
struct mt_attention_head {
    const struct mt_attention *shape;
    float scale;       /* 1 / sqrt(Dh) */
    float *key_pack;   /* [ceil(T/TILE), Dh, TILE] k transposed in tiles, 0 beyond T; forward too */
    float *value_pack; /* the same of v */
    float *key;        /* [T, Dh] */
    float *value;      /* [T, Dh]; forward only, shares its memory with key */
    float *d_key;      /* [T, Dh] */
    float *d_value;    /* [T, Dh] */
    float *query;      /* [QUERIES, Dh] q times scale; forward too */
    float *out;        /* [QUERIES, Dh] o in forward, d_q / scale in backward */
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
                            void *scratch, int thread);

/* Start of head h of position 0 of a sequence in an array [B, T, n_head, Dh]. */
static inline int64_t mt_attention_start(const struct mt_attention *shape, int64_t n_head,
                                         int64_t sequence, int64_t h)
{
    return (sequence * shape->length * n_head + h) * shape->head_dim;
}

/* to [n, Dh] = scale from, rows to_stride and from_stride apart. */
struct mt_attention_copy {
    float *to;
    const float *from;
    int64_t to_stride, from_stride;
};
void mt_attention_copy_rows(const struct mt_attention *shape, const struct mt_attention_copy *copy,
                            int64_t n, float scale);

/* pack = the tiles of x [T, Dh], rows `stride` apart. */
void mt_attention_pack(const struct mt_attention *shape, float *pack, const float *x,
                       int64_t stride);

/* out [n_query, KEYS] = a [n_query, Dh] times the packed keys (or values) of the block. */
void mt_attention_score(const struct mt_attention *shape, const struct mt_attention_block *block,
                        float *out, const float *a, const float *pack);

/* out [n_query, Dh] (=, or += from the second key block on) score [n_query, KEYS] x, where
 * x [T, Dh] is read at the block's keys. */
void mt_attention_gather(const struct mt_attention *shape, const struct mt_attention_block *block,
                         float *out, const float *score, const float *x);

/* Keys of the block that query number i of the block sees: at least 1. */
static inline int64_t mt_attention_n_seen(const struct mt_attention_block *block, int64_t i)
{
    const int64_t seen = block->query + i + 1 - block->key;
    return seen < block->n_key ? seen : block->n_key;
}

#endif
