#include "store/layout.h"

#include "base/memory.h"
#include "base/size.h"
#include "store/store.h"

#include <string.h>

static void check_tensor(const struct mt_tensor_table *table, int t)
{
    const struct mt_tensor *tensor = &table->tensor[t];
    MT_ASSERT(tensor->n_dim >= 1 && tensor->n_dim <= 3);
    for (int d = 0; d < tensor->n_dim; ++d) {
        MT_ASSERT(tensor->dim[d] >= 1);
    }
    MT_ASSERT(tensor->layer >= -1 && tensor->layer < table->n_layer);
    if (tensor->kind == MT_TENSOR_DENSE) {
        MT_ASSERT(tensor->bucket >= 0 && tensor->bucket < table->n_bucket);
        MT_ASSERT(!tensor->is_product || tensor->n_dim == 2);
    }
}

/* Rows t, t+1, t+2 are gate [E,F,D], up [E,F,D], down [E,D,F] of a layer. */
static void check_experts(const struct mt_tensor_table *table, int t)
{
    MT_ASSERT(t + MT_EXPERT_MATRICES <= table->n_tensor);
    const struct mt_tensor *gate = &table->tensor[t];
    const struct mt_tensor *up = &table->tensor[t + 1];
    const struct mt_tensor *down = &table->tensor[t + 2];
    MT_ASSERT(gate->layer >= 0 && up->layer == gate->layer && down->layer == gate->layer);
    MT_ASSERT(up->kind == MT_TENSOR_EXPERT && down->kind == MT_TENSOR_EXPERT);
    MT_ASSERT(gate->n_dim == 3 && up->n_dim == 3 && down->n_dim == 3);
    MT_ASSERT(memcmp(gate->dim, up->dim, sizeof(gate->dim)) == 0);
    MT_ASSERT(down->dim[0] == gate->dim[0] && down->dim[1] == gate->dim[2] &&
              down->dim[2] == gate->dim[1]);
}

int64_t mt_layout_chunk_elements(const struct mt_tensor *tensor)
{
    const int64_t row = mt_tensor_row_elements(tensor);
    return mt_max_i64(1, MT_CHUNK_ELEMENTS / row) * row;
}

static enum mt_status too_large(void)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "the model's sizes exceed 63 bits; expected a model that memory can hold; "
                   "use smaller sizes in [model] and [moe]");
}

static void place_experts(struct mt_layout *layout, int gate)
{
    const struct mt_tensor *tensor = &layout->table->tensor[gate];
    check_experts(layout->table, gate);
    MT_ASSERT(layout->gate[tensor->layer] < 0);
    layout->gate[tensor->layer] = gate;
    for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
        layout->chunk_start[gate + m] = layout->n_chunk;
        layout->offset[gate + m] = m * mt_tensor_row_elements(tensor);
    }
    layout->n_chunk += tensor->dim[0];
}

/* bucket_end: elements of the bucket so far. */
static enum mt_status place_dense(struct mt_layout *layout, int t, int64_t *bucket_end)
{
    const struct mt_tensor *tensor = &layout->table->tensor[t];
    const int64_t n = mt_tensor_n_element(tensor);
    layout->chunk_start[t] = layout->n_chunk;
    layout->offset[t] = *bucket_end;
    layout->n_chunk += mt_ceil_div(n, mt_layout_chunk_elements(tensor));
    if (!mt_size_add(*bucket_end, mt_round_up(n, MT_ALIGN_ELEMENTS), bucket_end)) {
        return too_large();
    }
    return MT_OK;
}

/* Offsets within buckets and chunk numbers; bucket_start[b + 1] becomes the size of bucket b. */
static enum mt_status place_tensors(struct mt_layout *layout)
{
    const struct mt_tensor_table *table = layout->table;
    enum mt_status status = MT_OK;
    int n_row = 1;
    for (int t = 0; t < table->n_tensor && status == MT_OK; t += n_row) {
        const struct mt_tensor *tensor = &table->tensor[t];
        check_tensor(table, t);
        n_row = tensor->kind == MT_TENSOR_EXPERT ? MT_EXPERT_MATRICES : 1;
        if (tensor->kind == MT_TENSOR_EXPERT) {
            place_experts(layout, t);
        } else {
            status = place_dense(layout, t, &layout->bucket_start[tensor->bucket + 1]);
        }
    }
    return status;
}

/* The chunk boundary of a tensor nearest to `target`, both within the bucket. */
static int64_t nearest_boundary(const struct mt_layout *layout, int t, int64_t target)
{
    const struct mt_tensor *tensor = &layout->table->tensor[t];
    const int64_t n = mt_tensor_n_element(tensor);
    const int64_t chunk = mt_layout_chunk_elements(tensor);
    const int64_t within = mt_max_i64(0, target - layout->offset[t]);
    const int64_t low = within / chunk * chunk;
    const int64_t high = mt_min_i64(low + chunk, mt_round_up(n, MT_ALIGN_ELEMENTS));
    const int64_t boundary = within - low <= high - within ? low : high;
    return layout->offset[t] + (boundary >= n ? mt_round_up(n, MT_ALIGN_ELEMENTS) : boundary);
}

/* Boundary i of a bucket of n elements lies near n i / R. cursor [n_bucket], zeroed: boundaries
 * already set. */
static void place_ranges(struct mt_layout *layout, int *cursor)
{
    const struct mt_tensor_table *table = layout->table;
    const int n_rank = layout->n_rank;
    for (int t = 0; t < table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &table->tensor[t];
        if (tensor->kind != MT_TENSOR_DENSE) {
            continue;
        }
        const int b = tensor->bucket;
        const int64_t n = layout->bucket_start[b + 1];
        const int64_t end =
            layout->offset[t] + mt_round_up(mt_tensor_n_element(tensor), MT_ALIGN_ELEMENTS);
        int64_t *start = layout->range_start + (int64_t)b * (n_rank + 1);
        while (cursor[b] < n_rank) {
            const int64_t target = mt_share_start(n, n_rank, cursor[b]);
            if (target >= end) {
                break;
            }
            start[cursor[b]++] = nearest_boundary(layout, t, target);
        }
    }
    for (int b = 0; b < table->n_bucket; ++b) {
        int64_t *start = layout->range_start + (int64_t)b * (n_rank + 1);
        for (int i = cursor[b]; i <= n_rank; ++i) { /* with fewer elements than ranks: several */
            start[i] = layout->bucket_start[b + 1];
        }
    }
}

static enum mt_status place_buckets(struct mt_layout *layout)
{
    for (int b = 0; b < layout->table->n_bucket; ++b) {
        int64_t *end = &layout->bucket_start[b + 1];
        if (!mt_size_add(*end, layout->bucket_start[b], end)) {
            return too_large();
        }
    }
    return MT_OK;
}

enum mt_status mt_layout_init(struct mt_layout *layout, const struct mt_tensor_table *table,
                              int n_rank)
{
    MT_ASSERT(n_rank >= 1 && table->n_tensor >= 1 && table->n_bucket >= 0 && table->n_layer >= 0);
    memset(layout, 0, sizeof(*layout));
    layout->table = table;
    layout->n_rank = n_rank;
    int *cursor = NULL;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(layout->chunk_start, table->n_tensor, "chunk numbers"));
    MT_TRY_GOTO(MT_ALLOCATE(layout->offset, table->n_tensor, "tensor offsets"));
    MT_TRY_GOTO(MT_ALLOCATE(layout->bucket_start, table->n_bucket + 1, "bucket offsets"));
    MT_TRY_GOTO(
        MT_ALLOCATE(layout->range_start, (int64_t)table->n_bucket * (n_rank + 1), "owned ranges"));
    MT_TRY_GOTO(MT_ALLOCATE(layout->gate, table->n_layer, "expert layers"));
    MT_TRY_GOTO(MT_ALLOCATE(cursor, table->n_bucket, "range cursors"));
    for (int layer = 0; layer < table->n_layer; ++layer) {
        layout->gate[layer] = -1;
    }
    MT_TRY_GOTO(place_tensors(layout));
    place_ranges(layout, cursor);
    MT_TRY_GOTO(place_buckets(layout));
cleanup:
    mt_memory_free(cursor);
    if (status != MT_OK) {
        mt_layout_clear(layout);
    }
    return status;
}

void mt_layout_clear(struct mt_layout *layout)
{
    mt_memory_free(layout->chunk_start);
    mt_memory_free(layout->offset);
    mt_memory_free(layout->bucket_start);
    mt_memory_free(layout->range_start);
    mt_memory_free(layout->gate);
    memset(layout, 0, sizeof(*layout));
}

struct mt_range mt_layout_owned_range(const struct mt_layout *layout, int bucket, int rank)
{
    const int n_rank = layout->n_rank;
    const int index = (rank + n_rank - bucket % n_rank) % n_rank;
    const int64_t *start = layout->range_start + (int64_t)bucket * (n_rank + 1) + index;
    return (struct mt_range){start[0], start[1]};
}

struct mt_range mt_layout_owned_part(const struct mt_layout *layout, int tensor, int rank)
{
    const struct mt_tensor *row = &layout->table->tensor[tensor];
    MT_ASSERT(row->kind == MT_TENSOR_DENSE);
    const struct mt_range range = mt_layout_owned_range(layout, row->bucket, rank);
    const int64_t offset = layout->offset[tensor];
    const int64_t start = mt_max_i64(range.start - offset, 0);
    const int64_t end = mt_min_i64(range.end - offset, mt_tensor_n_element(row));
    return start < end ? (struct mt_range){start, end} : (struct mt_range){0, 0};
}

int mt_layout_dense_owner(const struct mt_layout *layout, int tensor, int64_t index)
{
    const struct mt_tensor *row = &layout->table->tensor[tensor];
    MT_ASSERT(row->kind == MT_TENSOR_DENSE);
    MT_ASSERT(index >= 0 && index < mt_tensor_n_element(row));
    const int n_rank = layout->n_rank;
    const int64_t at = layout->offset[tensor] + index;
    const int64_t *start = layout->range_start + (int64_t)row->bucket * (n_rank + 1);
    int low = 0; /* the last range that starts at or before `at`: empty ones end there too */
    int high = n_rank;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (start[middle] <= at) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (low + row->bucket) % n_rank;
}

int mt_layout_n_expert(const struct mt_layout *layout, int layer)
{
    const int gate = layout->gate[layer];
    return gate < 0 ? 0 : mt_size_to_int(layout->table->tensor[gate].dim[0]);
}

int64_t mt_layout_expert_elements(const struct mt_layout *layout, int layer)
{
    const int gate = layout->gate[layer];
    return gate < 0 ? 0 : MT_EXPERT_MATRICES * mt_tensor_row_elements(&layout->table->tensor[gate]);
}

int64_t mt_layout_expert_stride(const struct mt_layout *layout)
{
    int64_t largest = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        largest = mt_max_i64(largest, mt_layout_expert_elements(layout, layer));
    }
    return mt_round_up(largest, MT_ALIGN_ELEMENTS);
}

/* Where a piece begins: the last row at or before an equal share's start. */
static int64_t piece_start(const struct mt_layout *layout, int layer, int piece)
{
    const int64_t *dim = layout->table->tensor[layout->gate[layer]].dim;
    const int64_t n = mt_layout_expert_elements(layout, layer);
    const int64_t down = n / MT_EXPERT_MATRICES * (MT_EXPERT_MATRICES - 1);
    const int64_t target = mt_share_start(n, layout->n_rank, piece);
    const int64_t width = dim[1];
    const int64_t hidden = dim[2];
    return target < down ? target / hidden * hidden : down + (target - down) / width * width;
}

struct mt_range mt_layout_piece(const struct mt_layout *layout, int layer, int piece)
{
    MT_ASSERT(piece >= 0 && piece < layout->n_rank);
    return (struct mt_range){piece_start(layout, layer, piece),
                             piece_start(layout, layer, piece + 1)};
}

int mt_layout_piece_at(const struct mt_layout *layout, int layer, int64_t index)
{
    MT_ASSERT(index >= 0 && index < mt_layout_expert_elements(layout, layer));
    int low = 0; /* the last piece that starts at or before it: empty ones end there too */
    int high = layout->n_rank;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (piece_start(layout, layer, middle) <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

int mt_layout_piece_owner(const struct mt_layout *layout, int expert, int piece)
{
    return (int)(((int64_t)piece + expert) % layout->n_rank);
}

int mt_layout_piece_of(const struct mt_layout *layout, int expert, int rank)
{
    return (rank - expert % layout->n_rank + layout->n_rank) % layout->n_rank;
}

int64_t mt_layout_piece_stride(const struct mt_layout *layout)
{
    int64_t largest = 0;
    for (int layer = 0; layer < layout->table->n_layer; ++layer) {
        for (int piece = 0; layout->gate[layer] >= 0 && piece < layout->n_rank; ++piece) {
            const struct mt_range range = mt_layout_piece(layout, layer, piece);
            largest = mt_max_i64(largest, range.end - range.start);
        }
    }
    return mt_round_up(largest, MT_ALIGN_ELEMENTS);
}
