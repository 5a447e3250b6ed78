/* Experts: memory for those that this rank owns and for copies of others, and where each is. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "store/internal.h"

#include <string.h>

/* Copies of one layer's experts on all ranks, bounded by their slots. */
static int64_t max_copies(const struct mt_store *store, int64_t n_expert)
{
    const int64_t n_rank = store->layout.n_rank;
    const int64_t n_other = store->is_cut ? n_rank : n_rank - 1; /* a cut one is at home nowhere */
    return mt_min_i64(n_expert * n_other, n_rank * store->n_slot);
}

static enum mt_status copies_init(struct mt_copies *copies, int64_t n_expert, int64_t max_copy)
{
    MT_TRY(MT_ALLOCATE(copies->start, n_expert + 1, "copies of experts"));
    MT_TRY(MT_ALLOCATE(copies->rank, max_copy, "copies of experts"));
    return MT_ALLOCATE(copies->state, max_copy, "copies of experts");
}

static void copies_clear(struct mt_copies *copies)
{
    mt_memory_free(copies->start);
    mt_memory_free(copies->rank);
    mt_memory_free(copies->state);
}

/* Lists of copies are swapped with the spare one, so all have the same room. */
static enum mt_status create_layer(struct mt_store *store, int layer, int64_t most_experts,
                                   const struct mt_store_options *options)
{
    struct mt_layer *l = &store->layer[layer];
    l->n_expert = mt_layout_n_expert(&store->layout, layer);
    if (l->n_expert == 0) {
        return MT_OK;
    }
    const int64_t *dim = store->table->tensor[store->layout.gate[layer]].dim;
    const struct mt_placement *ownership = &options->ownership[layer];
    MT_ASSERT(ownership->n_expert == l->n_expert && ownership->n_rank == store->layout.n_rank);
    l->width = dim[1];
    l->hidden = dim[2];
    l->n_element = mt_layout_expert_elements(&store->layout, layer);
    MT_TRY(MT_ALLOCATE(l->owner, l->n_expert, "owners of experts"));
    MT_TRY(MT_ALLOCATE(l->is_usable, l->n_expert, "experts of a layer"));
    MT_TRY(mt_memory_allocate_items((int64_t)sizeof(void *), l->n_expert, "experts of a layer",
                                    (void **)&l->here));
    MT_TRY(copies_init(&l->copies, most_experts, store->max_copy));
    memcpy(l->owner, ownership->owner, (size_t)l->n_expert * sizeof(*l->owner));
    MT_TRY(mt_linear_prepare(store->device, l->width, l->hidden));
    return mt_linear_prepare(store->device, l->hidden, l->width);
}

/* What making plans needs. */
static enum mt_status create_planner(struct mt_store *store, int64_t stage_bytes)
{
    const int64_t max_copy = store->max_copy;
    const int64_t max_chunk = store->is_cut ? mt_pieces_max_chunk(store) : store->most_experts;
    const int64_t max_holder = store->is_cut ? mt_pieces_max_holder(store) : max_copy;
    MT_TRY(copies_init(&store->moving, max_chunk, max_holder));
    MT_TRY(MT_ALLOCATE(store->chunk_bytes, max_chunk, "expert offsets"));
    MT_TRY(MT_ALLOCATE(store->home_offset, max_chunk, "expert offsets"));
    MT_TRY(MT_ALLOCATE(store->copy_offset, max_chunk, "expert offsets"));
    if (store->is_cut) {
        return MT_ALLOCATE(store->chunk_owner, max_chunk, "owners of pieces");
    }
    const struct mt_sparse_limits limits = {
        .max_op = MT_CHAIN_OPS, .stage_bytes = stage_bytes, .worth_bytes = MT_RELAY_WORTH_BYTES};
    return mt_sparse_auto_create(&store->comm->topology, store->most_experts, max_copy, &limits,
                                 &store->ways);
}

void mt_store_set_links(struct mt_store *store, const struct mt_links *links)
{
    if (!store->is_cut) {
        mt_sparse_auto_set_links(store->ways, links);
    }
}

static enum mt_status create_layers(struct mt_store *store, const struct mt_store_options *options,
                                    int64_t stage_bytes)
{
    const int n_layer = store->table->n_layer;
    int64_t most_experts = 0;
    for (int layer = 0; layer < n_layer; ++layer) {
        most_experts = mt_max_i64(most_experts, mt_layout_n_expert(&store->layout, layer));
    }
    store->most_experts = most_experts;
    store->max_copy = max_copies(store, most_experts);
    MT_TRY(MT_ALLOCATE(store->layer, n_layer, "layers"));
    int n_expert = 0;
    for (int layer = 0; layer < n_layer; ++layer) {
        MT_TRY(create_layer(store, layer, most_experts, options));
        store->layer[layer].first_piece = n_expert;
        n_expert += store->layer[layer].n_expert;
    }
    MT_TRY(copies_init(&store->spare, most_experts, store->max_copy));
    return create_planner(store, stage_bytes);
}

/* Lays the packs of one expert of this layer's shape into memory. */
static void init_weights(const struct mt_store *store, struct mt_expert_copy *copy,
                         const struct mt_layer *layer, void *memory)
{
    const struct mt_device *device = store->device;
    const bool training = store->training;
    const int64_t gate_bytes = mt_weight_bytes(device, layer->width, layer->hidden, training);
    char *at = memory;
    mt_weight_init(device, &copy->gate, layer->width, layer->hidden, training, at);
    mt_weight_init(device, &copy->up, layer->width, layer->hidden, training, at + gate_bytes);
    mt_weight_init(device, &copy->down, layer->hidden, layer->width, training, at + 2 * gate_bytes);
}

void mt_experts_settle(struct mt_store *store, struct mt_layer *layer, int expert, int index)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(store->device, &store->layout, store->training);
    struct mt_expert_copy *copy = &store->owned[index];
    MT_ASSERT(index >= 0 && index < store->n_capacity);
    copy->value = store->expert_value + index * store->home_stride;
    copy->grad = store->training ? store->expert_grad + index * store->home_stride : NULL;
    init_weights(store, copy, layer, (char *)store->expert_pack + index * pack_bytes);
    copy->is_ready[MT_PASS_FORWARD] = copy->is_ready[MT_PASS_BACKWARD] = true; /* by publish */
    layer->here[expert] = copy;
    layer->is_usable[expert] = true;
}

void mt_experts_use_slot(struct mt_store *store, const struct mt_layer *layer, int index)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(store->device, &store->layout, store->training);
    struct mt_expert_copy *copy = &store->slot[index];
    init_weights(store, copy, layer, (char *)store->slot_pack + index * pack_bytes);
    copy->is_ready[MT_PASS_FORWARD] = copy->is_ready[MT_PASS_BACKWARD] = false;
}

static void place_owned(struct mt_store *store)
{
    int index = 0;
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        struct mt_layer *l = &store->layer[layer];
        for (int e = 0; e < l->n_expert; ++e) {
            if (l->owner[e] == store->comm->rank) {
                mt_experts_settle(store, l, e, index++);
            }
        }
    }
}

static enum mt_status create_slots(struct mt_store *store)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(store->device, &store->layout, store->training);
    const int64_t n_element = store->n_slot * store->stride;
    MT_TRY(MT_ALLOCATE(store->slot, store->n_slot, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->free_slot, store->n_slot, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->slots_used, store->layout.n_rank, "expert slots"));
    MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->slot_value, n_element, "copies of experts"));
    MT_TRY(mt_device_allocate(store->device, store->n_slot * pack_bytes, "packed copies of experts",
                              &store->slot_pack));
    if (store->training) {
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->slot_grad, n_element,
                                  "gradients of copies of experts"));
    }
    store->n_free = store->n_slot;
    for (int i = 0; i < store->n_slot; ++i) {
        store->free_slot[i] = store->n_slot - 1 - i; /* the lowest is taken first */
        store->slot[i].value = store->slot_value + i * store->stride;
        store->slot[i].grad = store->training ? store->slot_grad + i * store->stride : NULL;
    }
    return MT_OK;
}

/* Of a plan for copies of whole experts. */
static int64_t max_copy_op(const struct mt_store *store, int64_t n_held)
{
    const int64_t relayed = mt_plan_sparse_relay_max_op(store->layout.n_rank, n_held);
    const bool has_chains = store->comm->topology.n_node > 1 && n_held > 0;
    return has_chains ? mt_max_i64(relayed, MT_CHAIN_OPS) : relayed;
}

static enum mt_status create_lanes(struct mt_store *store, int64_t stage_bytes)
{
    struct mt_device *device = store->device;
    struct mt_comm *comm = store->comm;
    const int64_t n_held = mt_min_i64(store->n_slot, store->most_experts); /* of a layer, by any */
    const int64_t max_op = store->is_cut ? mt_pieces_max_op(store) : max_copy_op(store, n_held);
    store->n_expert_gather_lane = mt_expert_lane_count(&store->layout, MT_EXPERT_GATHER_LANES);
    for (int i = 0; i < store->n_expert_gather_lane; ++i) {
        MT_TRY(mt_lane_init(&store->expert_gather_lane[i], device, comm, max_op, max_op, 0));
    }
    store->n_expert_late_lane = mt_expert_lane_count(&store->layout, MT_EXPERT_LATE_LANES);
    for (int i = 0; i < store->n_expert_late_lane; ++i) {
        MT_TRY(mt_lane_init(&store->expert_late_lane[i], device, comm, max_op, max_op, 0));
    }
    if (!store->training) {
        return MT_OK;
    }
    store->n_expert_reduce_lane = mt_expert_lane_count(&store->layout, MT_EXPERT_REDUCE_LANES);
    for (int i = 0; i < store->n_expert_reduce_lane; ++i) {
        MT_TRY(
            mt_lane_init(&store->expert_reduce_lane[i], device, comm, max_op, max_op, stage_bytes));
    }
    if (store->is_cut) {
        return MT_OK; /* nothing ever moves */
    }
    /* all owned experts leave and as many come */
    const int64_t max_move = 2 * (int64_t)store->n_capacity;
    return mt_lane_init(&store->move_lane, device, comm, max_move, max_move, 0);
}

enum mt_status mt_experts_create(struct mt_store *store, const struct mt_store_options *options,
                                 const struct mt_sizes *sizes)
{
    store->n_slot = options->n_slot;
    store->n_capacity = mt_size_to_int(sizes->n_capacity);
    store->stride = mt_layout_expert_stride(&store->layout);
    store->home_stride = mt_home_stride(&store->layout, store->is_cut);
    const int64_t n_element = store->n_capacity * store->home_stride;
    store->move_lane.user = -1;
    MT_TRY(create_layers(store, options, sizes->expert_stage_bytes));
    MT_TRY(MT_ALLOCATE(store->owned, store->n_capacity, "experts"));
    MT_TRY(MT_ALLOCATE(store->is_taken, store->n_capacity, "experts"));
    MT_TRY(MT_ALLOCATE(store->rank_count, store->layout.n_rank, "expert counts"));
    MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->expert_value, n_element, "experts"));
    if (!store->is_cut) {
        MT_TRY(mt_device_allocate(store->device, sizes->bytes.expert_pack, "packed experts",
                                  &store->expert_pack));
    }
    if (store->training) {
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->expert_grad, n_element,
                                  "gradients of experts"));
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->expert_avg, n_element,
                                  "optimizer state of experts"));
        MT_TRY(MT_DEVICE_ALLOCATE(store->device, store->expert_avg_sq, n_element,
                                  "optimizer state of experts"));
    }
    if (!store->is_cut) {
        place_owned(store);
    }
    MT_TRY(create_slots(store));
    return create_lanes(store, sizes->expert_stage_bytes);
}

static void clear_lanes(struct mt_store *store)
{
    for (int i = 0; i < store->n_expert_gather_lane; ++i) {
        mt_lane_clear(&store->expert_gather_lane[i]);
    }
    for (int i = 0; i < store->n_expert_late_lane; ++i) {
        mt_lane_clear(&store->expert_late_lane[i]);
    }
    for (int i = 0; i < store->n_expert_reduce_lane; ++i) {
        mt_lane_clear(&store->expert_reduce_lane[i]);
    }
    if (store->move_lane.exec != NULL) {
        mt_lane_clear(&store->move_lane);
    }
}

void mt_experts_destroy(struct mt_store *store)
{
    clear_lanes(store);
    for (int layer = 0; store->layer != NULL && layer < store->table->n_layer; ++layer) {
        mt_memory_free(store->layer[layer].owner);
        mt_memory_free((void *)store->layer[layer].here);
        mt_memory_free(store->layer[layer].is_usable);
        copies_clear(&store->layer[layer].copies);
    }
    copies_clear(&store->spare);
    copies_clear(&store->moving);
    mt_sparse_auto_destroy(store->ways);
    void *const there[] = {store->expert_value, store->expert_pack,   store->expert_grad,
                           store->expert_avg,   store->expert_avg_sq, store->slot_value,
                           store->slot_pack,    store->slot_grad};
    void *const blocks[] = {store->layer,       store->chunk_bytes, store->home_offset,
                            store->copy_offset, store->owned,       store->is_taken,
                            store->rank_count,  store->slot,        store->free_slot,
                            store->slots_used,  store->chunk_owner};
    for (size_t i = 0; i < sizeof(there) / sizeof(there[0]); ++i) {
        mt_device_free(store->device, there[i]);
    }
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); ++i) {
        mt_memory_free(blocks[i]);
    }
}

static void pack_all(struct mt_store *store, const struct mt_layer *layer,
                     struct mt_expert_copy *copy)
{
    const int64_t matrix = layer->width * layer->hidden;
    mt_weight_pack(store->device, &copy->gate, copy->value);
    mt_weight_pack(store->device, &copy->up, copy->value + matrix);
    mt_weight_pack(store->device, &copy->down, copy->value + 2 * matrix);
}

static enum mt_status pack_layer(struct mt_store *store, const struct mt_layer *layer)
{
    for (int e = 0; e < layer->n_expert; ++e) {
        if (layer->owner[e] != store->comm->rank) {
            continue;
        }
        pack_all(store, layer, layer->here[e]);
        MT_TRY(mt_comm_poll(store->comm));
    }
    return MT_OK;
}

enum mt_status mt_experts_pack_owned(struct mt_store *store)
{
    for (int layer = 0; layer < store->table->n_layer && !store->is_cut; ++layer) {
        MT_TRY(pack_layer(store, &store->layer[layer]));
    }
    return MT_OK;
}

void mt_experts_zero_grad(struct mt_store *store)
{
    mt_fill_zero(store->device, store->expert_grad, store->n_capacity * store->home_stride);
}

struct mt_layer *mt_experts_layer(const struct mt_store *store, int layer)
{
    MT_ASSERT(layer >= 0 && layer < store->table->n_layer);
    MT_ASSERT(store->layer[layer].n_expert > 0);
    return &store->layer[layer];
}

const struct mt_expert_copy *mt_store_expert(const struct mt_store *store, int layer, int expert)
{
    const struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(expert >= 0 && expert < l->n_expert);
    return l->is_usable[expert] ? l->here[expert] : NULL;
}

void mt_experts_settle_grad(struct mt_store *store, const struct mt_layer *layer,
                            const struct mt_expert_copy *copy)
{
    if (!copy->is_ready[MT_PASS_BACKWARD]) {
        mt_fill_zero(store->device, copy->grad, layer->n_element);
    }
}

static void make_ready(struct mt_store *store, const struct mt_layer *layer,
                       struct mt_expert_copy *copy, enum mt_pass pass)
{
    const int64_t matrix = layer->width * layer->hidden;
    mt_weight_pack_for(store->device, &copy->gate, pass, copy->value);
    mt_weight_pack_for(store->device, &copy->up, pass, copy->value + matrix);
    mt_weight_pack_for(store->device, &copy->down, pass, copy->value + 2 * matrix);
    if (pass == MT_PASS_BACKWARD) {
        mt_experts_settle_grad(store, layer, copy);
    }
    copy->is_ready[pass] = true;
}

const struct mt_expert_copy *mt_store_use_expert(struct mt_store *store, int layer, int expert,
                                                 enum mt_pass pass)
{
    const struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(expert >= 0 && expert < l->n_expert && l->is_usable[expert]);
    MT_ASSERT(pass == MT_PASS_FORWARD || store->training);
    struct mt_expert_copy *copy = l->here[expert];
    if (!copy->is_ready[pass]) {
        mt_span_begin(MT_PHASE_MATERIALIZE);
        make_ready(store, l, copy, pass);
        mt_span_end(MT_PHASE_MATERIALIZE);
    }
    return copy;
}

int mt_store_capacity(const struct mt_store *store)
{
    return store->n_capacity;
}

const int *mt_store_owners(const struct mt_store *store, int layer)
{
    MT_ASSERT(layer >= 0 && layer < store->table->n_layer);
    return store->layer[layer].owner;
}
