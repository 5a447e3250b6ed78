/* Attention forward, block by block with a running maximum and sum (the online softmax of
 * Milakov & Gimelshein 2018; blocks as in FlashAttention, Dao et al. 2022). */
#include "base/size.h"
#include "kernel/cpu/attention_block.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"

#include <math.h>

struct forward {
    struct mt_device *device;
    const struct mt_attention_forward *args;
    const struct mt_attention *shape;
};

/* The queries' running softmax: exponentials are relative to `largest`. */
struct running {
    float largest[MT_ATTENTION_QUERIES];
    float sum[MT_ATTENTION_QUERIES];
};

/* One row of scores becomes exponentials, unseen keys up to the end of the vectors 0. Returns the
 * factor by which what was summed before shrinks. */
MT_INLINE float softmax_row(float *score, int64_t n_seen, float *largest, float *sum)
{
    const int64_t n_lane = mt_round_up(n_seen, MT_LANES);
    for (int64_t j = n_seen; j < n_lane; j++) {
        score[j] = -INFINITY;
    }
    const float top = mt_max(score, n_lane);
    const float shift = top > *largest ? top : *largest;
    const float shrink = mt_exp_softmax(*largest - shift);
    *sum = *sum * shrink + mt_exp_sum(score, score, shift, n_lane);
    *largest = shift;
    return shrink;
}

/* Scores [n_query, KEYS] to exponentials, with the output brought to the new maximum. */
MT_CLONES static void softmax_block(const struct mt_attention_head *head,
                                    const struct mt_attention_block *block, struct running *running)
{
    const int64_t head_dim = head->shape->head_dim;
    for (int64_t i = 0; i < block->n_query; i++) {
        float *score = head->score + i * MT_ATTENTION_KEYS;
        const int64_t n_seen = mt_attention_n_seen(block, i);
        const float shrink = softmax_row(score, n_seen, &running->largest[i], &running->sum[i]);
        for (int64_t j = n_seen; j < block->n_key; j++) {
            score[j] = 0.0F;
        }
        float *out = head->out + i * head_dim;
        for (int64_t d = 0; block->key > 0 && d < head_dim; d++) {
            out[d] *= shrink;
        }
    }
}

/* The queries query .. query + QUERIES - 1 of head h of a sequence; keys and values are packed. */
static void forward_queries(const struct forward *f, const struct mt_attention_head *head,
                            int64_t sequence, int64_t h, int64_t query)
{
    const struct mt_attention *shape = f->shape;
    const int64_t n_query = mt_min_i64(MT_ATTENTION_QUERIES, shape->length - query);
    const int64_t stride = shape->n_head * shape->head_dim;
    const int64_t at = mt_attention_start(shape, shape->n_head, sequence, h) + query * stride;
    const struct mt_attention_copy load = {head->query, f->args->q + at, shape->head_dim, stride};
    mt_attention_copy_rows(shape, &load, n_query, head->scale);
    struct running running;
    for (int64_t i = 0; i < n_query; i++) {
        running.largest[i] = -INFINITY;
        running.sum[i] = 0.0F;
    }
    for (int64_t key = 0; key < query + n_query; key += MT_ATTENTION_KEYS) {
        const int64_t n_key = mt_min_i64(MT_ATTENTION_KEYS, query + n_query - key);
        const struct mt_attention_block block = {query, n_query, key, n_key};
        mt_attention_score(shape, &block, head->score, head->query, head->key_pack);
        softmax_block(head, &block, &running);
        mt_attention_gather(shape, &block, head->out, head->score, head->value);
    }
    float *lse = f->args->lse + (sequence * shape->n_head + h) * shape->length + query;
    for (int64_t i = 0; i < n_query; i++) {
        const struct mt_attention_copy store = {f->args->o + at + i * stride,
                                                head->out + i * shape->head_dim, 0, 0};
        mt_attention_copy_rows(shape, &store, 1, 1.0F / running.sum[i]);
        lse[i] = running.largest[i] + logf(running.sum[i]);
    }
}

/* Chunks are single (sequence, kv head) pairs. */
static void forward_heads(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const struct mt_attention *shape = f->shape;
    const int64_t group = shape->n_head / shape->n_kv_head;
    const int64_t stride = shape->n_kv_head * shape->head_dim;
    struct mt_attention_head head;
    mt_attention_head_init(&head, shape, f->args->scratch, chunk->thread);
    for (int64_t item = chunk->begin; item < chunk->end; item++) {
        const int64_t sequence = item / shape->n_kv_head;
        const int64_t kv_head = item % shape->n_kv_head;
        const int64_t at = mt_attention_start(shape, shape->n_kv_head, sequence, kv_head);
        const struct mt_attention_copy load = {head.value, f->args->v + at, shape->head_dim,
                                               stride};
        mt_attention_pack(shape, head.key_pack, f->args->k + at, stride);
        mt_attention_copy_rows(shape, &load, shape->length, 1.0F);
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
            for (int64_t query = 0; query < shape->length; query += MT_ATTENTION_QUERIES) {
                forward_queries(f, &head, sequence, h, query);
                mt_cpu_breathe(f->device, chunk);
            }
        }
    }
}

void mt_cpu_attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                              const struct mt_attention *shape)
{
    struct forward f = {device, args, shape};
    mt_cpu_for_chunks(device, shape->n_sequence * shape->n_kv_head, 1, forward_heads, &f);
}
