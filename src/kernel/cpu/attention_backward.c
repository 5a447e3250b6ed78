/* Attention backward: probabilities are computed again from the saved log-sum-exp, block by block
 * (FlashAttention, Dao et al. 2022, algorithm 4). With Q the queries times the scale, P the
 * probabilities, D_i = sum_d dO_id O_id:
 *   dV = P^T dO,  dP = dO V^T,  dS = P (dP - D),  dQ = scale dS K,  dK = dS^T Q. */
#include "base/size.h"
#include "kernel/cpu/attention_block.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"

struct backward {
    struct mt_device *device;
    const struct mt_cpu_chunk *chunk; /* under way on this thread; NULL outside */
    const struct mt_attention_backward *args;
    const struct mt_attention *shape;
};

/* Loads q and d_o of the queries, rows `stride` apart from `at` on, and product [n_query] = D. */
MT_CLONES static void load_queries(const struct backward *b, const struct mt_attention_head *head,
                                   int64_t at, int64_t n_query, float *product)
{
    const struct mt_attention *shape = b->shape;
    const int64_t stride = shape->n_head * shape->head_dim;
    const struct mt_attention_copy q = {head->query, b->args->q + at, shape->head_dim, stride};
    const struct mt_attention_copy d_o = {head->d_out, b->args->d_o + at, shape->head_dim, stride};
    mt_attention_copy_rows(shape, &q, n_query, head->scale);
    mt_attention_copy_rows(shape, &d_o, n_query, 1.0F);
    for (int64_t i = 0; i < n_query; i++) {
        product[i] = mt_dot(head->d_out + i * shape->head_dim, b->args->o + at + i * stride,
                            shape->head_dim);
    }
}

/* score becomes P, d_score (dP on entry) becomes dS; both are 0 at unseen keys. */
MT_CLONES static void score_gradient(const struct mt_attention_head *head,
                                     const struct mt_attention_block *block, const float *lse,
                                     const float *product)
{
    for (int64_t i = 0; i < block->n_query; i++) {
        float *restrict score = head->score + i * MT_ATTENTION_KEYS;
        float *restrict d_score = head->d_score + i * MT_ATTENTION_KEYS;
        const int64_t n_seen = mt_attention_n_seen(block, i);
        const float shift = lse[i];
        const float mean = product[i];
#pragma omp simd
        for (int64_t j = 0; j < n_seen; j++) {
            const float p = mt_exp_softmax(score[j] - shift);
            score[j] = p;
            d_score[j] = p * (d_score[j] - mean);
        }
        for (int64_t j = n_seen; j < block->n_key; j++) {
            score[j] = 0.0F;
            d_score[j] = 0.0F;
        }
    }
}

/* d_x [T, Dh] at the block's keys += score^T [n_key, n_query] x [n_query, Dh]. */
static void scatter(const struct mt_attention *shape, const struct mt_attention_block *block,
                    float *d_x, const float *score, const float *x)
{
    mt_cpu_multiply(&(struct mt_cpu_product){
        .c = d_x + block->key * shape->head_dim,
        .c_stride = shape->head_dim,
        .a = score,
        .a_row_stride = 1,
        .a_column_stride = MT_ATTENTION_KEYS,
        .b = x,
        .b_stride = shape->head_dim,
        .m = block->n_key,
        .n = shape->head_dim,
        .k = block->n_query,
        .accumulate = true,
    });
}

/* The queries query .. query + QUERIES - 1 of head h of a sequence. */
static void backward_queries(const struct backward *b, const struct mt_attention_head *head,
                             int64_t sequence, int64_t h, int64_t query)
{
    const struct mt_attention *shape = b->shape;
    const int64_t n_query = mt_min_i64(MT_ATTENTION_QUERIES, shape->length - query);
    const int64_t stride = shape->n_head * shape->head_dim;
    const int64_t at = mt_attention_start(shape, shape->n_head, sequence, h) + query * stride;
    const float *lse = b->args->lse + (sequence * shape->n_head + h) * shape->length + query;
    float product[MT_ATTENTION_QUERIES];
    load_queries(b, head, at, n_query, product);
    for (int64_t key = 0; key < query + n_query; key += MT_ATTENTION_KEYS) {
        const int64_t n_key = mt_min_i64(MT_ATTENTION_KEYS, query + n_query - key);
        const struct mt_attention_block block = {query, n_query, key, n_key};
        mt_attention_score(shape, &block, head->score, head->query, head->key_pack);
        mt_attention_score(shape, &block, head->d_score, head->d_out, head->value_pack);
        score_gradient(head, &block, lse, product);
        scatter(shape, &block, head->d_value, head->score, head->d_out);
        scatter(shape, &block, head->d_key, head->d_score, head->query);
        mt_attention_gather(shape, &block, head->out, head->d_score, head->key);
    }
    const struct mt_attention_copy store = {b->args->d_q + at, head->out, stride, shape->head_dim};
    mt_attention_copy_rows(shape, &store, n_query, head->scale);
}

/* One (sequence, kv head): its query heads add to d_k and d_v in order. */
static void backward_head(const struct backward *b, const struct mt_attention_head *head,
                          int64_t sequence, int64_t kv_head)
{
    const struct mt_attention_backward *args = b->args;
    const struct mt_attention *shape = b->shape;
    const int64_t group = shape->n_head / shape->n_kv_head;
    const int64_t head_dim = shape->head_dim;
    const int64_t stride = shape->n_kv_head * head_dim;
    const int64_t at = mt_attention_start(shape, shape->n_kv_head, sequence, kv_head);
    const struct mt_attention_copy load = {head->key, args->k + at, head_dim, stride};
    mt_attention_copy_rows(shape, &load, shape->length, 1.0F);
    mt_attention_pack(shape, head->key_pack, head->key, head_dim);
    mt_attention_pack(shape, head->value_pack, args->v + at, stride);
    memset(head->d_key, 0, (size_t)(shape->length * head_dim) * sizeof(float));
    memset(head->d_value, 0, (size_t)(shape->length * head_dim) * sizeof(float));
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        for (int64_t query = 0; query < shape->length; query += MT_ATTENTION_QUERIES) {
            backward_queries(b, head, sequence, h, query);
            mt_cpu_breathe(b->device, b->chunk);
        }
    }
    const struct mt_attention_copy d_k = {args->d_k + at, head->d_key, stride, head_dim};
    const struct mt_attention_copy d_v = {args->d_v + at, head->d_value, stride, head_dim};
    mt_attention_copy_rows(shape, &d_k, shape->length, 1.0F);
    mt_attention_copy_rows(shape, &d_v, shape->length, 1.0F);
}

/* Chunks are single (sequence, kv head) pairs. */
static void backward_heads(void *context, const struct mt_cpu_chunk *chunk)
{
    struct backward b = *(const struct backward *)context;
    struct mt_attention_head head;
    b.chunk = chunk;
    mt_attention_head_init(&head, b.shape, b.args->scratch, chunk->thread);
    for (int64_t item = chunk->begin; item < chunk->end; item++) {
        backward_head(&b, &head, item / b.shape->n_kv_head, item % b.shape->n_kv_head);
    }
}

void mt_cpu_attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                               const struct mt_attention *shape)
{
    struct backward b = {device, NULL, args, shape};
    mt_cpu_for_chunks(device, shape->n_sequence * shape->n_kv_head, 1, backward_heads, &b);
}
