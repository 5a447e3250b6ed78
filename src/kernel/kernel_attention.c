/* Public face of normalisation, rotary embedding and attention: checks, accounting, dispatch. */
#include "kernel/cpu/cpu.h"
#include "kernel/table.h"

void mt_rms_norm_forward(struct mt_device *device, float *y, float *rstd, const float *x,
                         const float *w, int64_t n, int64_t width, float eps)
{
    MT_ASSERT(n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(y != NULL && rstd != NULL && x != NULL && w != NULL);
    const double items = (double)n * (double)width;
    mt_kernel_begin(device, 4.0 * items, 8.0 * items)
        ->rms_norm_forward(device, y, rstd, x, w, n, width, eps);
    mt_device_operation_end(device);
}

void mt_add_rms_norm_forward(struct mt_device *device, const struct mt_add_rms_norm_forward *args,
                             int64_t n, int64_t width)
{
    MT_ASSERT(args != NULL && n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(args->sum != NULL && args->y != NULL && args->rstd != NULL);
    MT_ASSERT(args->x != NULL && args->w != NULL);
    const double items = (double)n * (double)width;
    mt_kernel_begin(device, 5.0 * items, 16.0 * items)
        ->add_rms_norm_forward(device, args, n, width);
    mt_device_operation_end(device);
}

void mt_rms_norm_backward(struct mt_device *device, const struct mt_rms_norm_backward *args,
                          int64_t n, int64_t width)
{
    MT_ASSERT(args != NULL && n >= 0 && width >= 1);
    if (n == 0) {
        return;
    }
    MT_ASSERT(args->d_x != NULL && args->d_w != NULL && args->d_y != NULL && args->x != NULL &&
              args->w != NULL && args->rstd != NULL);
    MT_ASSERT(!args->accumulate || args->d_x != args->d_y);
    const double items = (double)n * (double)width;
    const double bytes_per_item = args->accumulate ? 16.0 : 12.0;
    mt_kernel_begin(device, 10.0 * items, bytes_per_item * items)
        ->rms_norm_backward(device, args, n, width);
    mt_device_operation_end(device);
}

void mt_rope_tables(float *cosine, float *sine, int64_t length, int64_t head_dim,
                    const double *frequency, double magnitude)
{
    MT_ASSERT(length >= 0 && head_dim >= 2 && head_dim % 2 == 0 && frequency != NULL);
    MT_ASSERT(length == 0 || (cosine != NULL && sine != NULL));
    mt_cpu_rope_tables(cosine, sine, length, head_dim, frequency, magnitude);
}

static void check_rope(const struct mt_rope *rope, const struct mt_attention *shape)
{
    MT_ASSERT(rope == NULL ||
              (rope->cosine != NULL && rope->sine != NULL && shape->head_dim % 2 == 0));
}

static void check_attention(const struct mt_attention *shape)
{
    MT_ASSERT(shape != NULL && shape->n_sequence >= 0 && shape->length >= 1);
    MT_ASSERT(shape->n_kv_head >= 1 && shape->n_head >= 1 && shape->head_dim >= 1);
    MT_ASSERT(shape->n_head % shape->n_kv_head == 0);
    MT_ASSERT(shape->n_past >= 0 && (shape->n_past == 0 || shape->n_sequence <= 1));
}

/* They tile the sequences: lengths are positive, and every border of a sequence is one. */
static void check_segments(const struct mt_attention_segments *segments,
                           const struct mt_attention *shape)
{
    if (segments == NULL) {
        return;
    }
    MT_ASSERT(shape->n_past == 0);
    const int64_t *start = segments->start;
    for (int64_t i = 0; i < segments->n; i++) {
        const int64_t first = start[i] - start[0];
        const int64_t last = start[i + 1] - start[0] - 1;
        MT_ASSERT(first <= last && first / shape->length == last / shape->length);
    }
    MT_ASSERT(start[segments->n] - start[0] == shape->n_sequence * shape->length);
}

/* Of `length` queries behind n_past positions, each with the keys that it sees. */
static double causal_pairs(int64_t length, int64_t n_past)
{
    return (double)length * ((double)n_past + 0.5 * (double)(length + 1));
}

/* Multiply-adds of one product of queries and the keys they see, over all heads. */
static double causal_products(const struct mt_attention *shape,
                              const struct mt_attention_segments *segments)
{
    double pairs = (double)shape->n_sequence * causal_pairs(shape->length, shape->n_past);
    if (segments != NULL) {
        pairs = 0.0;
        for (int64_t i = 0; i < segments->n; i++) {
            pairs += causal_pairs(segments->start[i + 1] - segments->start[i], 0);
        }
    }
    return (double)shape->n_head * pairs * (double)shape->head_dim;
}

/* Bytes of one reading of q-like and k-like tensors. */
static double attention_bytes(const struct mt_attention *shape, double n_query, double n_key)
{
    const double query_rows = n_query * (double)shape->n_head * (double)shape->length;
    const double key_rows =
        n_key * (double)shape->n_kv_head * (double)(shape->n_past + shape->length);
    return 4.0 * (double)shape->n_sequence * (query_rows + key_rows) * (double)shape->head_dim;
}

int64_t mt_attention_scratch_bytes(const struct mt_device *device, const struct mt_attention *shape)
{
    check_attention(shape);
    return mt_kernel_table(device)->attention_scratch_bytes(device, shape);
}

void mt_attention_forward(struct mt_device *device, const struct mt_attention_forward *args,
                          const struct mt_attention *shape)
{
    check_attention(shape);
    MT_ASSERT(args != NULL);
    if (shape->n_sequence == 0) {
        return;
    }
    MT_ASSERT(args->o != NULL && args->lse != NULL && args->scratch != NULL);
    MT_ASSERT(args->q != NULL && args->k != NULL && args->v != NULL);
    check_rope(args->rope, shape);
    check_segments(args->segments, shape);
    mt_kernel_begin_as(device, MT_WORK_MIXED, 4.0 * causal_products(shape, args->segments),
                       attention_bytes(shape, 2.0, 2.0))
        ->attention_forward(device, args, shape);
    mt_device_operation_end(device);
}

void mt_attention_backward(struct mt_device *device, const struct mt_attention_backward *args,
                           const struct mt_attention *shape)
{
    check_attention(shape);
    MT_ASSERT(args != NULL && shape->n_past == 0);
    if (shape->n_sequence == 0) {
        return;
    }
    MT_ASSERT(args->d_q != NULL && args->d_k != NULL && args->d_v != NULL);
    MT_ASSERT(args->d_o != NULL && args->o != NULL && args->lse != NULL);
    MT_ASSERT(args->q != NULL && args->k != NULL && args->v != NULL && args->scratch != NULL);
    check_rope(args->rope, shape);
    check_segments(args->segments, shape);
    mt_kernel_begin_as(device, MT_WORK_MIXED, 10.0 * causal_products(shape, args->segments),
                       attention_bytes(shape, 4.0, 4.0))
        ->attention_backward(device, args, shape);
    mt_device_operation_end(device);
}
