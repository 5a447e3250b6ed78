#include "kernel/cpu/attention_block.h"

#include "base/size.h"
#include "kernel/cpu/cpu.h"

#include <math.h>

_Static_assert(MT_ATTENTION_KEYS % MT_ATTENTION_QUERIES == 0,
               "every query of a block sees at least one key of each of its key blocks");
_Static_assert(MT_ATTENTION_KEYS % MT_ATTENTION_TILE == 0, "a key block starts at a tile");
_Static_assert(MT_ATTENTION_STEP <= (int)MT_LANES, "one vector behind the seen keys is cleared");

/* Floats from row to row of arrays [.., Dh]: an odd number of cache lines, so that a column of rows
 * spreads over all sets of a cache. */
static int64_t row_stride(int64_t head_dim)
{
    return (mt_ceil_div(head_dim, MT_LANES) | 1) * MT_LANES;
}

/* Cuts the arrays of backward from `memory` (NULL: only counts) and returns their floats. */
static int64_t lay_out(struct mt_attention_head *head, const struct mt_attention *shape,
                       float *memory)
{
    const int64_t n_key = shape->n_past + shape->length;
    const int64_t pack = mt_round_up(n_key, MT_ATTENTION_TILE) * shape->head_dim;
    const int64_t row = row_stride(shape->head_dim);
    const int64_t rows = mt_max_i64(n_key, MT_ATTENTION_TILE) * row;
    const int64_t block = MT_ATTENTION_QUERIES * row;
    const int64_t score = (int64_t)MT_ATTENTION_QUERIES * MT_ATTENTION_SCORE_STRIDE;
    const struct {
        float **array;
        int64_t n;
    } parts[] = {
        {&head->key_pack, pack}, {&head->value_pack, pack}, {&head->key, rows},
        {&head->d_key, rows},    {&head->d_value, rows},    {&head->query, block},
        {&head->out, block},     {&head->d_out, block},     {&head->score, score},
        {&head->d_score, score},
    };
    int64_t used = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        *parts[i].array = memory != NULL ? memory + used : NULL;
        used += mt_round_up(parts[i].n, MT_LANES);
    }
    head->value = head->d_value;
    head->row = row;
    return used;
}

static int64_t thread_floats(const struct mt_attention *shape)
{
    struct mt_attention_head head;
    return lay_out(&head, shape, NULL);
}

int64_t mt_cpu_attention_scratch_bytes(const struct mt_device *device,
                                       const struct mt_attention *shape)
{
    return device->n_thread * thread_floats(shape) * (int64_t)sizeof(float);
}

void mt_attention_head_init(struct mt_attention_head *head, const struct mt_attention *shape,
                            const struct mt_rope *rope, void *scratch, int thread)
{
    mt_cpu_multiply_fn multiply[MT_CPU_PRODUCTS];
    mt_cpu_multiply_all(multiply);
    head->shape = shape;
    head->rope = rope;
    head->multiply = multiply[0];
    head->scale = (float)(M_LOG2E / sqrt((double)shape->head_dim));
    lay_out(head, shape, (float *)scratch + thread * thread_floats(shape));
}

int64_t mt_attention_n_item(const struct mt_attention *shape,
                            const struct mt_attention_segments *segments)
{
    return (segments != NULL ? segments->n : shape->n_sequence) * shape->n_kv_head;
}

/* First token of a segment; of the one behind the last: N. */
static int64_t segment_start(const struct mt_attention *shape,
                             const struct mt_attention_segments *segments, int64_t segment)
{
    return segments != NULL ? segments->start[segment] - segments->start[0]
                            : segment * shape->length;
}

struct mt_attention_item mt_attention_item_of(const struct mt_attention *shape,
                                              const struct mt_attention_segments *segments,
                                              int64_t item)
{
    const int64_t n_kv = shape->n_kv_head;
    const int64_t segment = item / n_kv;
    const int64_t next = (item + 1) / n_kv;
    const int64_t token = segment_start(shape, segments, segment);
    struct mt_attention_item out = {
        .token = token,
        .length = segment_start(shape, segments, segment + 1) - token,
        .kv_head = item % n_kv,
        .next = -1,
    };
    if (item + 1 < mt_attention_n_item(shape, segments)) {
        const int64_t next_token = segment_start(shape, segments, next);
        out.next = mt_attention_start(shape, n_kv, next_token, (item + 1) % n_kv);
        out.next_length = segment_start(shape, segments, next + 1) - next_token;
    }
    return out;
}

MT_CLONES void mt_attention_copy_rows(const struct mt_attention_head *head,
                                      const struct mt_attention_copy *copy, int64_t n, float scale)
{
    const int64_t head_dim = head->shape->head_dim;
    for (int64_t i = 0; i < n; i++) {
        float *restrict to = copy->to + i * copy->to_stride;
        const float *restrict from = copy->from + i * copy->from_stride;
        for (int64_t d = 0; d < head_dim; d++) {
            to[d] = scale * from[d];
        }
    }
}

MT_CLONES static void rotate_rows(const struct mt_attention_head *head,
                                  const struct mt_attention_copy *copy, int64_t position, int64_t n,
                                  float scale, bool backward)
{
    const int64_t half = head->shape->head_dim / 2;
    const float sine_scale = backward ? -scale : scale;
    for (int64_t i = 0; i < n; i++) {
        float *restrict first = copy->to + i * copy->to_stride;
        float *restrict second = first + half;
        const float *restrict from = copy->from + i * copy->from_stride;
        const float *restrict cosine = head->rope->cosine + (position + i) * half;
        const float *restrict sine = head->rope->sine + (position + i) * half;
#pragma omp simd
        for (int64_t d = 0; d < half; d++) {
            const float c = scale * cosine[d];
            const float s = sine_scale * sine[d];
            const float a = from[d];
            const float b = from[d + half];
            first[d] = a * c - b * s;
            second[d] = b * c + a * s;
        }
    }
}

void mt_attention_rotate_rows(const struct mt_attention_head *head,
                              const struct mt_attention_copy *copy, int64_t position, int64_t n,
                              float scale, bool backward)
{
    if (head->rope != NULL) {
        rotate_rows(head, copy, position, n, scale, backward);
    } else {
        mt_attention_copy_rows(head, copy, n, scale);
    }
}

void mt_attention_score(const struct mt_attention_head *head,
                        const struct mt_attention_block *block, float *out, const float *a,
                        const float *pack)
{
    const int64_t head_dim = head->shape->head_dim;
    const int64_t delta = block->query - block->key;
    for (int64_t j = 0; j < block->n_key; j += MT_ATTENTION_TILE) {
        struct mt_cpu_product product = {
            .c_stride = MT_ATTENTION_SCORE_STRIDE,
            .a_row_stride = head->row,
            .a_column_stride = 1,
            .b = pack + (block->key + j) * head_dim,
            .b_stride = MT_ATTENTION_TILE,
            .k = head_dim,
        };
        const int64_t first = mt_max_i64(0, j - delta);
        const int64_t whole = mt_min_i64(block->n_query, mt_max_i64(0, j + MT_LANES - delta));
        if (first < whole) {
            product.a = a + first * head->row;
            product.c = out + first * MT_ATTENTION_SCORE_STRIDE + j;
            product.m = whole - first;
            product.n = MT_LANES;
            head->multiply(&product);
        }
        if (whole < block->n_query) {
            product.a = a + whole * head->row;
            product.c = out + whole * MT_ATTENTION_SCORE_STRIDE + j;
            product.m = block->n_query - whole;
            product.n = MT_ATTENTION_TILE;
            head->multiply(&product);
        }
    }
}

void mt_attention_gather(const struct mt_attention_head *head,
                         const struct mt_attention_block *block, float *out, const float *score,
                         const float *x)
{
    const int64_t head_dim = head->shape->head_dim;
    const int64_t delta = block->query - block->key;
    struct mt_cpu_product product = {
        .c_stride = head->row,
        .a_row_stride = MT_ATTENTION_SCORE_STRIDE,
        .a_column_stride = 1,
        .b = x + block->key * head->row,
        .b_stride = head->row,
        .n = head_dim,
        .accumulate = block->key > 0,
    };
    for (int64_t i = 0; i < block->n_query; i += product.m) {
        product.k = mt_min_i64(block->n_key, i + delta + MT_ATTENTION_STEP);
        product.m = product.k < block->n_key ? MT_ATTENTION_STEP : block->n_query - i;
        product.c = out + i * head->row;
        product.a = score + i * MT_ATTENTION_SCORE_STRIDE;
        head->multiply(&product);
    }
}

void mt_attention_scatter(const struct mt_attention_head *head,
                          const struct mt_attention_block *block, float *d_x, const float *score,
                          const float *x)
{
    const int64_t head_dim = head->shape->head_dim;
    const int64_t delta = block->query - block->key;
    struct mt_cpu_product product = {
        .c_stride = head->row,
        .a_row_stride = 1,
        .a_column_stride = MT_ATTENTION_SCORE_STRIDE,
        .b_stride = head->row,
        .n = head_dim,
        .accumulate = true,
    };
    for (int64_t j = 0; j < block->n_key; j += product.m) {
        const int64_t first = mt_max_i64(0, j - delta);
        product.m = mt_min_i64(block->n_key - j, j < delta ? delta : MT_ATTENTION_STEP);
        product.c = d_x + (block->key + j) * head->row;
        product.a = score + first * MT_ATTENTION_SCORE_STRIDE + j;
        product.b = x + first * head->row;
        product.k = block->n_query - first;
        head->multiply(&product);
    }
}
