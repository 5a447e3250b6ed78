/* Parts: what this rank owns, as pieces of logical tensors. Everything that works on owned elements
 * (initial values, sums of squares, optimizer, checkpoint) is a loop over them. */
#include "base/memory.h"
#include "base/random.h"
#include "base/size.h"
#include "device/memory.h"
#include "store/internal.h"

/* With as many experts as there is room for. */
static int max_parts(const struct mt_store *store)
{
    int n_part = MT_EXPERT_MATRICES * store->n_capacity;
    for (int t = 0; t < store->table->n_tensor; ++t) {
        if (store->table->tensor[t].kind == MT_TENSOR_DENSE) {
            const struct mt_range own = mt_layout_owned_part(&store->layout, t, store->comm->rank);
            n_part += own.start < own.end ? 1 : 0;
        }
    }
    return n_part;
}

static void add_dense_part(struct mt_store *store, int t)
{
    const struct mt_layout *layout = &store->layout;
    const struct mt_range own = mt_layout_owned_part(layout, t, store->comm->rank);
    if (own.start == own.end) {
        return;
    }
    const int b = store->table->tensor[t].bucket;
    const struct mt_bucket *bucket = &store->bucket[b];
    const int64_t in_bucket = layout->offset[t] + own.start;
    const int64_t in_block = layout->bucket_start[b] + in_bucket;
    const int64_t in_state = bucket->owned_start + in_bucket - bucket->owned.start;
    struct mt_part *part = &store->part[store->n_part++];
    *part = (struct mt_part){.tensor = t,
                             .first = own.start,
                             .n_element = own.end - own.start,
                             .value = store->dense_value + in_block};
    if (store->training) {
        part->grad = store->dense_grad + in_block;
        part->exp_avg = store->dense_avg + in_state;
        part->exp_avg_sq = store->dense_avg_sq + in_state;
    }
}

/* Elements [first, first + n_element) of a tensor of experts, which lie at `at` among the owned. */
static void add_expert_part(struct mt_store *store, int t, int64_t first, int64_t n_element,
                            int64_t at)
{
    struct mt_part *part = &store->part[store->n_part++];
    *part = (struct mt_part){
        .tensor = t, .first = first, .n_element = n_element, .value = store->expert_value + at};
    if (store->training) {
        part->grad = store->expert_grad + at;
        part->exp_avg = store->expert_avg + at;
        part->exp_avg_sq = store->expert_avg_sq + at;
    }
}

/* Of this rank's piece of every expert what lies in the tensor: none, one or all of its rows. */
static void add_piece_parts(struct mt_store *store, int t)
{
    const struct mt_tensor *tensor = &store->table->tensor[t];
    const int64_t n_element = mt_tensor_row_elements(tensor);
    const int64_t offset = store->layout.offset[t];
    for (int e = 0; e < store->layer[tensor->layer].n_expert; ++e) {
        const struct mt_range piece = mt_pieces_mine(store, tensor->layer, e);
        const int64_t start = mt_max_i64(piece.start, offset);
        const int64_t end = mt_min_i64(piece.end, offset + n_element);
        if (start < end) {
            const int64_t place = mt_pieces_place(store, tensor->layer, e);
            add_expert_part(store, t, e * n_element + start - offset, end - start,
                            place + start - piece.start);
        }
    }
}

/* One matrix, gate, up or down, of every owned expert of the tensor's layer. */
static void add_expert_parts(struct mt_store *store, int t)
{
    const struct mt_tensor *tensor = &store->table->tensor[t];
    const struct mt_layer *layer = &store->layer[tensor->layer];
    const int64_t n_element = mt_tensor_row_elements(tensor);
    for (int e = 0; e < layer->n_expert; ++e) {
        if (layer->owner[e] != store->comm->rank) {
            continue;
        }
        const int64_t at =
            (layer->here[e] - store->owned) * store->home_stride + store->layout.offset[t];
        add_expert_part(store, t, e * n_element, n_element, at);
    }
}

void mt_parts_list(struct mt_store *store)
{
    store->n_part = 0;
    for (int t = 0; t < store->table->n_tensor; ++t) {
        if (store->table->tensor[t].kind == MT_TENSOR_DENSE) {
            add_dense_part(store, t);
        } else if (store->is_cut) {
            add_piece_parts(store, t);
        } else {
            add_expert_parts(store, t);
        }
    }
    MT_ASSERT(store->n_part <= max_parts(store));
}

enum mt_status mt_parts_create(struct mt_store *store)
{
    const bool is_host = mt_device_is_host(store->device);
    MT_TRY(MT_ALLOCATE(store->part, max_parts(store), "owned parts"));
    MT_TRY(MT_ALLOCATE(store->room, is_host ? 0 : MT_ROOM_ELEMENTS, "values on their way"));
    if (store->training) {
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->square, store->layout.n_chunk,
                                  "sums of gradient squares"));
        MT_TRY(MT_ALLOCATE(store->item, max_parts(store), "updates of owned parts"));
    }
    mt_parts_list(store);
    return MT_OK;
}

int mt_store_n_part(const struct mt_store *store)
{
    return store->n_part;
}

const struct mt_part *mt_store_part(const struct mt_store *store, int index)
{
    MT_ASSERT(index >= 0 && index < store->n_part);
    return &store->part[index];
}

int mt_store_owner(const struct mt_store *store, int tensor, int64_t index)
{
    MT_ASSERT(tensor >= 0 && tensor < store->table->n_tensor);
    const struct mt_tensor *row = &store->table->tensor[tensor];
    if (row->kind == MT_TENSOR_DENSE) {
        return mt_layout_dense_owner(&store->layout, tensor, index);
    }
    MT_ASSERT(index >= 0 && index < mt_tensor_n_element(row));
    if (store->is_cut) {
        const int64_t n_element = mt_tensor_row_elements(row);
        const int64_t within = store->layout.offset[tensor] + index % n_element;
        const int piece = mt_layout_piece_at(&store->layout, row->layer, within);
        return mt_layout_piece_owner(&store->layout, (int)(index / n_element), piece);
    }
    return store->layer[row->layer].owner[index / mt_tensor_row_elements(row)];
}

/* Elements of a part from `at` on. */
static void init_piece(const struct mt_tensor *tensor, const struct mt_part *part, uint64_t seed,
                       int64_t at, int64_t n, float *value)
{
    if (tensor->init_std > 0.0F) {
        mt_random_fill_normal(seed, mt_random_stream(tensor->name), (uint64_t)(part->first + at), n,
                              tensor->init_std, value);
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        value[i] = tensor->starts_at_zero ? 0.0F : 1.0F;
    }
}

void mt_store_init_values(struct mt_store *store, uint64_t seed)
{
    store->is_packed = false;
    for (int p = 0; p < store->n_part; ++p) {
        const struct mt_part *part = &store->part[p];
        const struct mt_tensor *tensor = &store->table->tensor[part->tensor];
        for (int64_t at = 0; at < part->n_element; at += MT_ROOM_ELEMENTS) {
            const int64_t n = mt_min_i64(MT_ROOM_ELEMENTS, part->n_element - at);
            float *value = mt_device_room(store->device, part->value + at, store->room);
            init_piece(tensor, part, seed, at, n, value);
            mt_device_upload(store->device, part->value + at, value, n * (int64_t)sizeof(float));
        }
    }
}

int64_t mt_store_n_chunk(const struct mt_store *store)
{
    return store->layout.n_chunk;
}

static void dense_squares(struct mt_store *store, const struct mt_part *part)
{
    const int64_t chunk = mt_layout_chunk_elements(&store->table->tensor[part->tensor]);
    const int64_t first_chunk = store->layout.chunk_start[part->tensor] + part->first / chunk;
    MT_ASSERT(part->first % chunk == 0);
    for (int64_t i = 0; i * chunk < part->n_element; ++i) {
        const int64_t n = mt_min_i64(chunk, part->n_element - i * chunk);
        mt_sum_squares(store->device, &store->square[first_chunk + i], part->grad + i * chunk, n);
    }
}

/* Of what this rank owns of one expert: all, a piece or nothing. */
static void expert_squares(const struct mt_store *store, int layer, int expert, double *square)
{
    const struct mt_layer *l = &store->layer[layer];
    if (store->is_cut) {
        const struct mt_range piece = mt_pieces_mine(store, layer, expert);
        mt_sum_squares(store->device, square,
                       store->expert_grad + mt_pieces_place(store, layer, expert),
                       piece.end - piece.start);
    } else if (l->owner[expert] == store->comm->rank) {
        mt_sum_squares(store->device, square, l->here[expert]->grad, l->n_element);
    }
}

enum mt_status mt_store_grad_squares(struct mt_store *store, double *square)
{
    const int64_t n_bytes = store->layout.n_chunk * (int64_t)sizeof(*square);
    MT_ASSERT(store->training);
    mt_device_fill_zero(store->device, store->square, n_bytes);
    for (int p = 0; p < store->n_part; ++p) {
        const struct mt_part *part = &store->part[p];
        if (store->table->tensor[part->tensor].kind == MT_TENSOR_DENSE) {
            dense_squares(store, part);
        }
    }
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        const struct mt_layer *l = &store->layer[layer];
        for (int e = 0; e < l->n_expert; ++e) {
            const int64_t chunk = store->layout.chunk_start[store->layout.gate[layer]] + e;
            expert_squares(store, layer, e, &store->square[chunk]);
        }
    }
    mt_device_download(store->device, square, store->square, n_bytes);
    return mt_device_wait(store->device);
}
