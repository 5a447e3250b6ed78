/* Attention forward, block by block with a running maximum and sum (the online softmax of
 * Milakov & Gimelshein 2018; blocks as in FlashAttention, Dao et al. 2022). */
#include "base/size.h"
#include "kernel/cpu/attention_block.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"

#include <float.h>
#include <math.h>

struct forward {
    struct mt_device *device;
    const struct mt_cpu_chunk *chunk; /* under way on this thread; NULL outside */
    const struct mt_attention_forward *args;
    const struct mt_attention *shape;
};

/* The queries' running softmax: exponentials are relative to `largest`. */
struct running {
    float largest[MT_ATTENTION_QUERIES];
    float sum[MT_ATTENTION_QUERIES];
    float shrink[MT_ATTENTION_QUERIES]; /* what was summed before this block times this */
};

/* One step for all queries after another: their long chains overlap in the processor. */
MT_CLONES static void find_largest(const struct mt_attention_head *head,
                                   const struct mt_attention_block *block, struct running *running)
{
    float largest[MT_ATTENTION_QUERIES] = {0};
    for (int64_t i = 0; i < block->n_query; i++) {
        float *score = head->score + i * MT_ATTENTION_SCORE_STRIDE;
        const int64_t n_seen = mt_attention_n_seen(block, i);
        mt_attention_fill_unseen(score, n_seen, -INFINITY);
        largest[i] = mt_max(score, mt_round_up(n_seen, MT_LANES));
    }
    for (int64_t i = 0; i < MT_ATTENTION_QUERIES; i++) {
        const float before = running->largest[i];
        const float shift = largest[i] > before ? largest[i] : before;
        running->shrink[i] = mt_exp2_softmax(before - shift);
        running->largest[i] = shift;
    }
}

/* Scores [n_query, KEYS] to exponentials, with the output brought to the new maximum. Partial sums
 * are added up behind all rows: the chain of one would hold up the next row's exponentials (a tenth
 * of the time with 64 keys, a twentieth with 256; Zen 3, 2026-11). */
MT_CLONES static void softmax_block(const struct mt_attention_head *head,
                                    const struct mt_attention_block *block, struct running *running,
                                    const struct mt_attention_fetch *fetch)
{
    const int64_t head_dim = head->shape->head_dim;
    float lanes[MT_ATTENTION_QUERIES][MT_LANES];
    for (int64_t i = 0; i < block->n_query; i++) {
        float *score = head->score + i * MT_ATTENTION_SCORE_STRIDE;
        const int64_t n_seen = mt_attention_n_seen(block, i);
        const float shift = running->largest[i];
        float lane[MT_LANES] = {0};
        for (int64_t j = 0; j < n_seen; j += MT_LANES) {
#pragma omp simd
            for (int l = 0; l < MT_LANES; l++) {
                const float value = mt_exp2_softmax(score[j + l] - shift);
                score[j + l] = value;
                lane[l] += value;
            }
        }
        memcpy(lanes[i], lane, sizeof(lane));
        mt_attention_fill_unseen(score, n_seen, 0.0F);
        float *out = head->out + i * head->row;
        for (int64_t d = 0; block->key > 0 && d < head_dim; d++) {
            out[d] *= running->shrink[i];
        }
        if (block->key == 0) {
            mt_attention_fetch_row(fetch, i);
        }
    }
    for (int64_t i = 0; i < block->n_query; i++) {
        running->sum[i] = running->sum[i] * running->shrink[i] + mt_lanes_sum(lanes[i]);
    }
}

/* The position behind an item's last, of queries and keys alike. */
static int64_t end_position(const struct mt_attention *shape, const struct mt_attention_item *item)
{
    return shape->n_past + item->length;
}

/* The first position of the next block: blocks begin at multiples of QUERIES, so that every query
 * sees a key of each of its block's key blocks. */
static int64_t next_block(const struct mt_attention *shape, const struct mt_attention_item *item,
                          int64_t query)
{
    return mt_min_i64(end_position(shape, item),
                      (query / MT_ATTENTION_QUERIES + 1) * MT_ATTENTION_QUERIES);
}

/* Start of position `query` of head h in q and o. */
static int64_t query_start(const struct mt_attention *shape, const struct mt_attention_item *item,
                           int64_t h, int64_t query)
{
    return mt_attention_start(shape, shape->n_head, item->token + query - shape->n_past, h);
}

/* Beside queries query .. query + QUERIES - 1 of head h: those that follow, be it in the next head,
 * where the results go, and under the last head that reads this item's keys the next ones. */
static struct mt_attention_fetch
plan_fetch(const struct forward *f, const struct mt_attention_item *item, int64_t h, int64_t query)
{
    const struct mt_attention *shape = f->shape;
    const int64_t head_dim = shape->head_dim;
    const int64_t stride = shape->n_head * head_dim;
    const int64_t kv_stride = shape->n_kv_head * head_dim;
    const int64_t at = query_start(shape, item, h, query);
    const int64_t n_left = end_position(shape, item) - query;
    struct mt_attention_fetch fetch = {.row_bytes = head_dim * (int64_t)sizeof(float)};
    mt_attention_fetch_add(&fetch, f->args->o + at, n_left, stride);
    if (n_left > MT_ATTENTION_QUERIES) {
        mt_attention_fetch_add(&fetch, f->args->q + at + MT_ATTENTION_QUERIES * stride,
                               n_left - MT_ATTENTION_QUERIES, stride);
    } else if (h + 1 < shape->n_head) {
        mt_attention_fetch_add(&fetch, f->args->q + query_start(shape, item, h + 1, shape->n_past),
                               item->length, stride);
    }
    const int64_t n_next = shape->n_past + item->next_length - query;
    if (item->next >= 0 && n_next > 0 && (h + 1) % (shape->n_head / shape->n_kv_head) == 0) {
        const int64_t next = item->next + query * kv_stride;
        mt_attention_fetch_add(&fetch, f->args->k + next, n_next, kv_stride);
        mt_attention_fetch_add(&fetch, f->args->v + next, n_next, kv_stride);
    }
    return fetch;
}

/* The queries of a block, from position `query` on, of head h of a sequence; keys and values are
 * packed. */
static void forward_queries(const struct forward *f, const struct mt_attention_head *head,
                            const struct mt_attention_item *item, int64_t h, int64_t query)
{
    const struct mt_attention *shape = f->shape;
    const int64_t n_query = next_block(shape, item, query) - query;
    const int64_t stride = shape->n_head * shape->head_dim;
    const int64_t at = query_start(shape, item, h, query);
    const struct mt_attention_copy load = {head->query, f->args->q + at, head->row, stride};
    const struct mt_attention_fetch fetch = plan_fetch(f, item, h, query);
    mt_attention_rotate_rows(head, &load, query, n_query, head->scale, false);
    struct running running;
    for (int64_t i = 0; i < MT_ATTENTION_QUERIES; i++) {
        running.largest[i] = -FLT_MAX; /* an infinity less itself were no number */
        running.sum[i] = 0.0F;
    }
    for (int64_t key = 0; key < query + n_query; key += MT_ATTENTION_KEYS) {
        const int64_t n_key = mt_min_i64(MT_ATTENTION_KEYS, query + n_query - key);
        const struct mt_attention_block block = {query, n_query, key, n_key};
        mt_attention_score(head, &block, head->score, head->query, head->key_pack);
        find_largest(head, &block, &running);
        softmax_block(head, &block, &running, &fetch);
        mt_attention_gather(head, &block, head->out, head->score, head->value);
        mt_cpu_breathe(f->device, f->chunk);
    }
    float *lse = f->args->lse + mt_attention_lse(shape, item, h, query - shape->n_past);
    for (int64_t i = 0; i < n_query; i++) {
        const struct mt_attention_copy store = {f->args->o + at + i * stride,
                                                head->out + i * head->row, 0, 0};
        mt_attention_copy_rows(head, &store, 1, 1.0F / running.sum[i]);
        lse[i] = running.largest[i] * (float)M_LN2 + logf(running.sum[i]);
    }
}

/* Rotated keys in tiles, and values, rows `stride` apart. */
static void load_keys(const struct mt_attention_head *head, const float *k, const float *v,
                      int64_t n_key, int64_t stride)
{
    const struct mt_attention *shape = head->shape;
    const struct mt_attention_copy values = {head->value, v, head->row, stride};
    for (int64_t key = 0; key < n_key; key += MT_ATTENTION_TILE) {
        const struct mt_attention_copy keys = {head->key, k + key * stride, head->row, stride};
        const int64_t n = mt_min_i64(MT_ATTENTION_TILE, n_key - key);
        mt_attention_rotate_rows(head, &keys, key, n, 1.0F, false);
        mt_attention_pack(head, head->key_pack + key * shape->head_dim, head->key, head->row, n);
    }
    mt_attention_copy_rows(head, &values, n_key, 1.0F);
}

/* Chunks are single (segment, kv head) pairs. */
static void forward_heads(void *context, const struct mt_cpu_chunk *chunk)
{
    struct forward f = *(const struct forward *)context;
    const struct mt_attention *shape = f.shape;
    const int64_t group = shape->n_head / shape->n_kv_head;
    struct mt_attention_head head;
    f.chunk = chunk;
    mt_attention_head_init(&head, shape, f.args->rope, f.args->scratch, chunk->thread);
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        const struct mt_attention_item item = mt_attention_item_of(shape, f.args->segments, i);
        const int64_t at = mt_attention_start(shape, shape->n_kv_head, item.token, item.kv_head);
        load_keys(&head, f.args->k + at, f.args->v + at, end_position(shape, &item),
                  shape->n_kv_head * shape->head_dim);
        for (int64_t h = item.kv_head * group; h < (item.kv_head + 1) * group; h++) {
            for (int64_t query = shape->n_past; query < end_position(shape, &item);
                 query = next_block(shape, &item, query)) {
                forward_queries(&f, &head, &item, h, query);
            }
        }
    }
}

void mt_cpu_attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                              const struct mt_attention *shape)
{
    struct forward f = {device, NULL, args, shape};
    mt_cpu_for_chunks(device, mt_attention_n_item(shape, args->segments), 1, forward_heads, &f);
}
