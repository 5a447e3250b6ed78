#include "kernel/cpu/attention_block.h"

#include "base/size.h"
#include "kernel/cpu/cpu.h"

#include <math.h>

_Static_assert(MT_ATTENTION_KEYS % MT_ATTENTION_QUERIES == 0,
               "every query of a block sees at least one key of each of its key blocks");
_Static_assert(MT_ATTENTION_KEYS % MT_ATTENTION_TILE == 0, "a key block starts at a tile");
_Static_assert(MT_ATTENTION_TILE % MT_LANES == 0, "rows of scores are whole vectors");

/* Cuts the arrays of backward from `memory` (NULL: only counts) and returns their floats. */
static int64_t lay_out(struct mt_attention_head *head, const struct mt_attention *shape,
                       float *memory)
{
    const int64_t pack = mt_round_up(shape->length, MT_ATTENTION_TILE) * shape->head_dim;
    const int64_t rows = shape->length * shape->head_dim;
    const int64_t block = MT_ATTENTION_QUERIES * shape->head_dim;
    const int64_t score = (int64_t)MT_ATTENTION_QUERIES * MT_ATTENTION_KEYS;
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
    head->value = head->key;
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
                            void *scratch, int thread)
{
    head->shape = shape;
    head->scale = (float)(1.0 / sqrt((double)shape->head_dim));
    lay_out(head, shape, (float *)scratch + thread * thread_floats(shape));
}

MT_CLONES void mt_attention_copy_rows(const struct mt_attention *shape,
                                      const struct mt_attention_copy *copy, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) {
        float *restrict to = copy->to + i * copy->to_stride;
        const float *restrict from = copy->from + i * copy->from_stride;
        for (int64_t d = 0; d < shape->head_dim; d++) {
            to[d] = scale * from[d];
        }
    }
}

/* tile [Dh, TILE] = x [n_row, Dh] transposed, 0 beyond n_row */
MT_CLONES static void pack_tile(float *tile, const float *x, int64_t stride, int64_t n_row,
                                int64_t head_dim)
{
    for (int64_t d = 0; d < head_dim; d++) {
        float *out = tile + d * MT_ATTENTION_TILE;
        for (int64_t j = 0; j < MT_ATTENTION_TILE; j++) {
            out[j] = j < n_row ? x[j * stride + d] : 0.0F;
        }
    }
}

void mt_attention_pack(const struct mt_attention *shape, float *pack, const float *x,
                       int64_t stride)
{
    for (int64_t key = 0; key < shape->length; key += MT_ATTENTION_TILE) {
        pack_tile(pack + key * shape->head_dim, x + key * stride, stride,
                  mt_min_i64(MT_ATTENTION_TILE, shape->length - key), shape->head_dim);
    }
}

void mt_attention_score(const struct mt_attention *shape, const struct mt_attention_block *block,
                        float *out, const float *a, const float *pack)
{
    for (int64_t j = 0; j < block->n_key; j += MT_ATTENTION_TILE) {
        mt_cpu_multiply(&(struct mt_cpu_product){
            .c = out + j,
            .c_stride = MT_ATTENTION_KEYS,
            .a = a,
            .a_row_stride = shape->head_dim,
            .a_column_stride = 1,
            .b = pack + (block->key + j) * shape->head_dim,
            .b_stride = MT_ATTENTION_TILE,
            .m = block->n_query,
            .n = MT_ATTENTION_TILE,
            .k = shape->head_dim,
        });
    }
}

void mt_attention_gather(const struct mt_attention *shape, const struct mt_attention_block *block,
                         float *out, const float *score, const float *x)
{
    mt_cpu_multiply(&(struct mt_cpu_product){
        .c = out,
        .c_stride = shape->head_dim,
        .a = score,
        .a_row_stride = MT_ATTENTION_KEYS,
        .a_column_stride = 1,
        .b = x + block->key * shape->head_dim,
        .b_stride = shape->head_dim,
        .m = block->n_query,
        .n = shape->head_dim,
        .k = block->n_key,
        .accumulate = block->key > 0,
    });
}
