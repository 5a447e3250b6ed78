/* One call of attention in a test: its arrays, the reference's, and both directions computed. */
#ifndef MT_TEST_KERNEL_ATTENTION_PROBLEM_H
#define MT_TEST_KERNEL_ATTENTION_PROBLEM_H

#include "kernel/pair.h"
#include "reference/attention.h"

/* A device of MT_TEST_DTYPE rounds the operands of products of heads up to so wide. */
#ifndef MT_TEST_DTYPE
#define MT_TEST_DTYPE        MT_FLOAT32
#define MT_TEST_ROUNDED_HEAD 0
#endif

struct problem {
    struct mt_attention shape;
    enum mt_dtype dtype;
    struct mt_rope tables;
    bool has_rope;
    const struct mt_attention_segments *segments; /* NULL: each sequence is one */
    struct pair q, k, v, o, lse, d_o, d_q, d_k, d_v;
};

static inline void problem_init(struct problem *p, struct mt_arena *arena,
                                const struct mt_attention *shape, double size)
{
    const int64_t n_token = shape->n_sequence * shape->length;
    const int64_t n_query = n_token * shape->n_head * shape->head_dim;
    const int64_t n_key = n_token * shape->n_kv_head * shape->head_dim;
    p->shape = *shape;
    p->dtype = MT_TEST_DTYPE;
    p->has_rope = false;
    p->segments = NULL;
    p->q = pair_uniform(arena, n_query, 1, -size, size);
    p->k = pair_uniform(arena, n_key, 2, -size, size);
    p->v = pair_random(arena, n_key, 3);
    p->o = pair_random(arena, n_query, 4);
    p->lse = pair_random(arena, n_token * shape->n_head, 5);
    p->d_o = pair_random(arena, n_query, 6);
    p->d_q = pair_random(arena, n_query, 7);
    p->d_k = pair_random(arena, n_key, 8);
    p->d_v = pair_random(arena, n_key, 9);
}

static const double theta = 10000.0;

static inline void add_rope(struct problem *p, struct mt_arena *arena)
{
    const int64_t n = p->shape.length * p->shape.head_dim / 2;
    const struct pair cosine = pair_random(arena, n, 12);
    const struct pair sine = pair_random(arena, n, 13);
    rope_tables(arena, cosine.f, sine.f, p->shape.length, p->shape.head_dim, theta);
    p->tables = (struct mt_rope){cosine.f, sine.f};
    p->has_rope = true;
}

static inline struct mt_device device_of_type(int n_thread, enum mt_dtype dtype)
{
    struct mt_device device = device_of(n_thread);
    device.dtype = dtype;
    return device;
}

static inline void compute(struct problem *p, struct mt_arena *arena, int n_thread)
{
    struct mt_device device = device_of_type(n_thread, p->dtype);
    const int64_t bytes = mt_attention_scratch_bytes(&device, &p->shape);
    /* NaN where nothing was written: what is read before it is written shows. */
    struct pair scratch = pair_random(arena, bytes / (int64_t)sizeof(float), 10);
    memset(scratch.f, 0xff, (size_t)bytes);
    const struct mt_rope *rope = p->has_rope ? &p->tables : NULL;
    const struct mt_attention_forward forward = {p->o.f, p->lse.f,  p->q.f, p->k.f,
                                                 p->v.f, scratch.f, rope,   p->segments};
    mt_attention_forward(&device, &forward, &p->shape);
    const struct mt_attention_backward backward = {p->d_q.f, p->d_k.f,  p->d_v.f, p->d_o.f,
                                                   p->o.f,   p->lse.f,  p->q.f,   p->k.f,
                                                   p->v.f,   scratch.f, rope,     p->segments};
    mt_attention_backward(&device, &backward, &p->shape);
    pair_check_canaries(scratch);
}

static inline struct mt_ref_attention reference_shape(const struct mt_attention *s)
{
    return (struct mt_ref_attention){s->n_sequence, s->length,   s->n_head,
                                     s->n_kv_head,  s->head_dim, NULL};
}

#endif
