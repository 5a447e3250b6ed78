/* Attention backward: probabilities are computed again from the saved log-sum-exp, block by block
 * (FlashAttention, Dao et al. 2022, algorithm 4). With Q the queries times the scale, P the
 * probabilities, D_i = sum_d dO_id O_id:
 *   dV = P^T dO,  dP = dO V^T,  dS = P (dP - D),  dQ = scale dS K,  dK = dS^T Q. */
#include "base/size.h"
#include "kernel/cpu/attention_block.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"

#include <math.h>

struct backward {
    struct mt_device *device;
    const struct mt_cpu_chunk *chunk; /* under way on this thread; NULL outside */
    const struct mt_attention_backward *args;
    const struct mt_attention *shape;
};

/* Loads q and d_o of n_query queries, which start at `at`, and product [n_query] = D. */
MT_CLONES static void load_queries(const struct backward *b, const struct mt_attention_head *head,
                                   int64_t at, int64_t query, int64_t n_query, float *product)
{
    const struct mt_attention *shape = b->shape;
    const int64_t stride = shape->n_head * shape->head_dim;
    const struct mt_attention_copy q = {head->query, b->args->q + at, head->row, stride};
    const struct mt_attention_copy d_o = {head->d_out, b->args->d_o + at, head->row, stride};
    mt_attention_rotate_rows(head, &q, query, n_query, head->scale, false);
    mt_attention_copy_rows(head, &d_o, n_query, 1.0F);
    for (int64_t i = 0; i < n_query; i++) {
        product[i] =
            mt_dot(head->d_out + i * head->row, b->args->o + at + i * stride, shape->head_dim);
    }
}

/* score becomes P, d_score (dP on entry) becomes dS; both are 0 at unseen keys that products read.
 */
MT_CLONES static void score_gradient(const struct mt_attention_head *head,
                                     const struct mt_attention_block *block, const float *lse,
                                     const float *product, const struct mt_attention_fetch *fetch)
{
    for (int64_t i = 0; i < block->n_query; i++) {
        float *restrict score = head->score + i * MT_ATTENTION_SCORE_STRIDE;
        float *restrict d_score = head->d_score + i * MT_ATTENTION_SCORE_STRIDE;
        const int64_t n_seen = mt_attention_n_seen(block, i);
        const float shift = lse[i] * (float)M_LOG2E;
        const float mean = product[i];
        for (int64_t j = 0; j < n_seen; j += MT_LANES) {
#pragma omp simd
            for (int l = 0; l < MT_LANES; l++) {
                const float p = mt_exp2_softmax(score[j + l] - shift);
                score[j + l] = p;
                d_score[j + l] = p * (d_score[j + l] - mean);
            }
        }
        mt_attention_fill_unseen(score, n_seen, 0.0F);
        mt_attention_fill_unseen(d_score, n_seen, 0.0F);
        if (block->key == 0) {
            mt_attention_fetch_row(fetch, i);
        }
    }
}

/* Beside queries query .. query + QUERIES - 1 of head h: those that follow, be it in the next head,
 * and where the results go; under the last head that reads this item's keys the next ones, and
 * where gradients go. */
static struct mt_attention_fetch
plan_fetch(const struct backward *b, const struct mt_attention_item *item, int64_t h, int64_t query)
{
    const struct mt_attention *shape = b->shape;
    const int64_t head_dim = shape->head_dim;
    const int64_t stride = shape->n_head * head_dim;
    const int64_t kv_stride = shape->n_kv_head * head_dim;
    const int64_t n_left = item->length - query;
    const int64_t n_after = n_left - MT_ATTENTION_QUERIES;
    const int64_t at = mt_attention_start(shape, shape->n_head, item->token + query, h);
    const int64_t after = at + MT_ATTENTION_QUERIES * stride;
    struct mt_attention_fetch fetch = {.row_bytes = head_dim * (int64_t)sizeof(float)};
    mt_attention_fetch_add(&fetch, b->args->d_q + at, n_left, stride);
    if (n_after > 0) {
        mt_attention_fetch_add(&fetch, b->args->q + after, n_after, stride);
        mt_attention_fetch_add(&fetch, b->args->o + after, n_after, stride);
        mt_attention_fetch_add(&fetch, b->args->d_o + after, n_after, stride);
    } else if (h + 1 < shape->n_head) {
        const int64_t next = mt_attention_start(shape, shape->n_head, item->token, h + 1);
        mt_attention_fetch_add(&fetch, b->args->q + next, item->length, stride);
        mt_attention_fetch_add(&fetch, b->args->o + next, item->length, stride);
        mt_attention_fetch_add(&fetch, b->args->d_o + next, item->length, stride);
    }
    if ((h + 1) % (shape->n_head / shape->n_kv_head) != 0) {
        return fetch;
    }
    const int64_t keys =
        mt_attention_start(shape, shape->n_kv_head, item->token + query, item->kv_head);
    mt_attention_fetch_add(&fetch, b->args->d_k + keys, n_left, kv_stride);
    mt_attention_fetch_add(&fetch, b->args->d_v + keys, n_left, kv_stride);
    if (item->next >= 0 && query < item->next_length) {
        const int64_t next = item->next + query * kv_stride;
        const int64_t n_next = item->next_length - query;
        mt_attention_fetch_add(&fetch, b->args->k + next, n_next, kv_stride);
        mt_attention_fetch_add(&fetch, b->args->v + next, n_next, kv_stride);
    }
    return fetch;
}

/* The queries query .. query + QUERIES - 1 of head h of a sequence. */
static void backward_queries(const struct backward *b, const struct mt_attention_head *head,
                             const struct mt_attention_item *item, int64_t h, int64_t query)
{
    const struct mt_attention *shape = b->shape;
    const int64_t n_query = mt_min_i64(MT_ATTENTION_QUERIES, item->length - query);
    const int64_t stride = shape->n_head * shape->head_dim;
    const int64_t at = mt_attention_start(shape, shape->n_head, item->token + query, h);
    const float *lse = b->args->lse + mt_attention_lse(shape, item, h, query);
    const struct mt_attention_fetch fetch = plan_fetch(b, item, h, query);
    float product[MT_ATTENTION_QUERIES] = {0};
    load_queries(b, head, at, query, n_query, product);
    for (int64_t key = 0; key < query + n_query; key += MT_ATTENTION_KEYS) {
        const int64_t n_key = mt_min_i64(MT_ATTENTION_KEYS, query + n_query - key);
        const struct mt_attention_block block = {query, n_query, key, n_key};
        mt_attention_score(head, &block, head->score, head->query, head->key_pack);
        mt_attention_score(head, &block, head->d_score, head->d_out, head->value_pack);
        score_gradient(head, &block, lse, product, &fetch);
        mt_attention_scatter(head, &block, head->d_value, head->score, head->d_out);
        mt_attention_scatter(head, &block, head->d_key, head->d_score, head->query);
        mt_attention_gather(head, &block, head->out, head->d_score, head->key);
        mt_cpu_breathe(b->device, b->chunk);
    }
    const struct mt_attention_copy store = {b->args->d_q + at, head->out, stride, head->row};
    mt_attention_rotate_rows(head, &store, query, n_query, head->scale * (float)M_LN2, true);
}

/* One (segment, kv head): its query heads add to d_k and d_v in order. */
static void backward_head(const struct backward *b, const struct mt_attention_head *head,
                          const struct mt_attention_item *item)
{
    const struct mt_attention_backward *args = b->args;
    const struct mt_attention *shape = b->shape;
    const int64_t group = shape->n_head / shape->n_kv_head;
    const int64_t stride = shape->n_kv_head * shape->head_dim;
    const int64_t at = mt_attention_start(shape, shape->n_kv_head, item->token, item->kv_head);
    const struct mt_attention_copy load = {head->key, args->k + at, head->row, stride};
    mt_attention_rotate_rows(head, &load, 0, item->length, 1.0F, false);
    mt_attention_pack(head, head->key_pack, head->key, head->row, item->length);
    mt_attention_pack(head, head->value_pack, args->v + at, stride, item->length);
    memset(head->d_key, 0, (size_t)(item->length * head->row) * sizeof(float));
    memset(head->d_value, 0, (size_t)(item->length * head->row) * sizeof(float));
    for (int64_t h = item->kv_head * group; h < (item->kv_head + 1) * group; h++) {
        for (int64_t query = 0; query < item->length; query += MT_ATTENTION_QUERIES) {
            backward_queries(b, head, item, h, query);
        }
    }
    const struct mt_attention_copy d_k = {args->d_k + at, head->d_key, stride, head->row};
    const struct mt_attention_copy d_v = {args->d_v + at, head->d_value, stride, head->row};
    /* The queries that made d_key carry the factor log2 e. */
    mt_attention_rotate_rows(head, &d_k, 0, item->length, (float)M_LN2, true);
    mt_attention_copy_rows(head, &d_v, item->length, 1.0F);
}

/* Chunks are single (segment, kv head) pairs. */
static void backward_heads(void *context, const struct mt_cpu_chunk *chunk)
{
    struct backward b = *(const struct backward *)context;
    struct mt_attention_head head;
    b.chunk = chunk;
    mt_attention_head_init(&head, b.shape, b.args->rope, b.args->scratch, chunk->thread);
    for (int64_t i = chunk->begin; i < chunk->end; i++) {
        const struct mt_attention_item item = mt_attention_item_of(b.shape, b.args->segments, i);
        backward_head(&b, &head, &item);
    }
}

void mt_cpu_attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                               const struct mt_attention *shape)
{
    struct backward b = {device, NULL, args, shape};
    mt_cpu_for_chunks(device, mt_attention_n_item(shape, args->segments), 1, backward_heads, &b);
}
