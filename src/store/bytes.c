#include "base/memory.h"
#include "base/size.h"
#include "store/internal.h"

enum { FLOAT_BYTES = (int)sizeof(float), STATE_BYTES = 2 * FLOAT_BYTES };

/* *sum += a * b; false when that exceeds 63 bits. */
static bool add_product(int64_t *sum, int64_t a, int64_t b)
{
    int64_t product = 0;
    return mt_size_multiply(a, b, &product) && mt_size_add(*sum, product, sum);
}

int mt_reduce_lane_count(const struct mt_layout *layout)
{
    return (int)mt_min_i64(layout->table->n_bucket, MT_REDUCE_LANES);
}

int mt_expert_lane_count(const struct mt_layout *layout, int most)
{
    int n_layer = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        n_layer += layout->gate[layer] >= 0 ? 1 : 0;
    }
    return (int)mt_min_i64(n_layer, most);
}

int64_t mt_reduce_lane_bytes(const struct mt_layout *layout, int rank, int lane)
{
    int64_t largest = 0;
    const int n_lane = mt_reduce_lane_count(layout);
    for (int b = lane; b < layout->table->n_bucket; b += n_lane) {
        const struct mt_range range = mt_layout_owned_range(layout, b, rank);
        largest = mt_max_i64(largest, range.end - range.start);
    }
    return (layout->n_rank - 1) * largest * FLOAT_BYTES;
}

int64_t mt_expert_pack_bytes(const struct mt_device *device, const struct mt_layout *layout,
                             bool training)
{
    int64_t largest = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        if (layout->gate[layer] >= 0) {
            const int64_t *dim = layout->table->tensor[layout->gate[layer]].dim;
            const int64_t up = mt_weight_bytes(device, dim[1], dim[2], training);
            const int64_t down = mt_weight_bytes(device, dim[2], dim[1], training);
            largest = mt_max_i64(largest, 2 * up + down);
        }
    }
    return largest;
}

int64_t mt_home_stride(const struct mt_layout *layout, bool is_cut)
{
    return is_cut ? mt_layout_piece_stride(layout) : mt_layout_expert_stride(layout);
}

/* Experts that every rank has room for: an equal share, or more where some rank owns more; cut: a
 * piece of each. count [R]: scratch, zeroed. */
static int64_t count_capacity(const struct mt_layout *layout,
                              const struct mt_store_options *options, int64_t *count)
{
    int64_t total = 0;
    int64_t capacity = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        const int n_expert = mt_layout_n_expert(layout, layer);
        total += n_expert;
        for (int e = 0; e < n_expert; ++e) {
            const int owner = options->ownership[layer].owner[e];
            capacity = mt_max_i64(capacity, ++count[owner]);
        }
    }
    return options->is_cut ? total : mt_max_i64(capacity, mt_ceil_div(total, layout->n_rank));
}

/* What every rank has. */
static bool plan_dense(const struct mt_device *device, const struct mt_layout *layout,
                       bool training, struct mt_store_bytes *bytes)
{
    const struct mt_tensor_table *table = layout->table;
    const int64_t n_element = layout->bucket_start[table->n_bucket];
    bool fits = add_product(&bytes->dense_value, n_element, FLOAT_BYTES);
    for (int t = 0; t < table->n_tensor && fits; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        if (tensor->kind == MT_TENSOR_DENSE && tensor->is_product) {
            const int64_t pack = mt_weight_bytes(device, tensor->dim[0], tensor->dim[1], training);
            fits = add_product(&bytes->dense_pack, 1, pack);
        }
    }
    bytes->dense_grad = training ? bytes->dense_value : 0;
    return fits;
}

/* What depends on the rank's shares of buckets, in training. */
static bool plan_shares(const struct mt_layout *layout, int rank, struct mt_store_bytes *bytes)
{
    bool fits = true;
    for (int b = 0; b < layout->table->n_bucket && fits; ++b) {
        const struct mt_range range = mt_layout_owned_range(layout, b, rank);
        fits = add_product(&bytes->optimizer, range.end - range.start, STATE_BYTES);
    }
    for (int lane = 0; lane < mt_reduce_lane_count(layout) && fits; ++lane) {
        fits = add_product(&bytes->staging, 1, mt_reduce_lane_bytes(layout, rank, lane));
    }
    return fits;
}

/* Of one reduction lane; `value`: bytes of an expert. */
static bool plan_stage(const struct mt_layout *layout, const struct mt_store_options *options,
                       int64_t value, int64_t *bytes)
{
    int64_t most_experts = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        most_experts = mt_max_i64(most_experts, mt_layout_n_expert(layout, layer));
    }
    if (options->is_cut) {
        return mt_pieces_stage_bytes(layout, mt_min_i64(options->n_slot, most_experts), bytes);
    }
    const bool is_reduced = options->n_slot > 0 && layout->n_rank > 1;
    return add_product(bytes, is_reduced ? MT_RELAY_PORTS : 0, value);
}

static bool plan_experts(const struct mt_device *device, const struct mt_layout *layout,
                         const struct mt_store_options *options, struct mt_sizes *sizes)
{
    struct mt_store_bytes *bytes = &sizes->bytes;
    const bool training = options->training;
    const int64_t value = mt_layout_expert_stride(layout) * FLOAT_BYTES;
    const int64_t home = mt_home_stride(layout, options->is_cut) * FLOAT_BYTES;
    const int64_t pack = mt_expert_pack_bytes(device, layout, training);
    const int64_t slot = (training ? 2L * value : value) + pack;
    bool fits = add_product(&bytes->expert_value, sizes->n_capacity, home) &&
                add_product(&bytes->expert_pack, options->is_cut ? 0 : sizes->n_capacity, pack) &&
                add_product(&bytes->slots, options->n_slot, slot);
    if (training && fits) {
        bytes->expert_grad = bytes->expert_value;
        const int n_lane = mt_expert_lane_count(layout, MT_EXPERT_REDUCE_LANES);
        fits = add_product(&bytes->optimizer, STATE_BYTES / FLOAT_BYTES, bytes->expert_value) &&
               plan_stage(layout, options, value, &sizes->expert_stage_bytes) &&
               add_product(&bytes->staging, n_lane, sizes->expert_stage_bytes);
    }
    return fits;
}

static bool sum_kinds(const struct mt_store_bytes *bytes, int64_t *total)
{
    const int64_t kinds[] = {bytes->dense_value,  bytes->dense_grad,  bytes->dense_pack,
                             bytes->expert_value, bytes->expert_grad, bytes->expert_pack,
                             bytes->slots,        bytes->optimizer,   bytes->staging};
    *total = 0;
    bool fits = true;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]) && fits; ++k) {
        fits = mt_size_add(*total, kinds[k], total);
    }
    return fits;
}

enum mt_status mt_sizes_plan(const struct mt_device *device, const struct mt_layout *layout,
                             const struct mt_store_options *options, struct mt_sizes *sizes)
{
    const int n_rank = layout->n_rank;
    int64_t *count = NULL;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(count, n_rank, "expert counts"));
    /* once: 4096 ranks ask for the sizes of the same products, pieces and packs */
    struct mt_sizes common = {.n_capacity = count_capacity(layout, options, count)};
    const bool fits = plan_dense(device, layout, options->training, &common.bytes) &&
                      plan_experts(device, layout, options, &common);
    for (int rank = 0; rank < n_rank; ++rank) {
        int64_t total = 0;
        sizes[rank] = common;
        if (!fits || (options->training && !plan_shares(layout, rank, &sizes[rank].bytes)) ||
            !sum_kinds(&sizes[rank].bytes, &total)) {
            status = MT_FAIL(MT_ERR_RESOURCE,
                             "the bytes of the model's parameters exceed 63 bits on rank %d of %d; "
                             "expected a model that memory can hold; use smaller sizes in [model] "
                             "and [moe], or more ranks",
                             rank, n_rank);
            goto cleanup;
        }
    }
cleanup:
    mt_memory_free(count);
    return status;
}

int64_t mt_store_total_bytes(const struct mt_store_bytes *bytes)
{
    int64_t total = 0;
    const bool fits = sum_kinds(bytes, &total);
    MT_ASSERT(fits);
    return total;
}

enum mt_status mt_store_plan_bytes(const struct mt_device *device,
                                   const struct mt_tensor_table *table,
                                   const struct mt_store_options *options, int n_rank,
                                   struct mt_store_bytes *bytes)
{
    struct mt_layout layout = {0};
    struct mt_sizes *sizes = NULL;
    enum mt_status status = MT_OK;
    int64_t most = -1;
    MT_TRY_GOTO(mt_layout_init(&layout, table, n_rank));
    MT_TRY_GOTO(MT_ALLOCATE(sizes, n_rank, "sizes of ranks"));
    MT_TRY_GOTO(mt_sizes_plan(device, &layout, options, sizes));
    for (int rank = 0; rank < n_rank; ++rank) {
        const int64_t total = mt_store_total_bytes(&sizes[rank].bytes);
        if (total > most) {
            most = total;
            *bytes = sizes[rank].bytes;
        }
    }
cleanup:
    mt_memory_free(sizes);
    mt_layout_clear(&layout);
    return status;
}
