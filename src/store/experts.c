/* Experts: values, gradients and optimizer state at owners; copies in slots along a placement. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "store/internal.h"

#include <string.h>

/* Ranks other than the owner that hold an expert, bounded by the slots of all ranks. */
static int64_t max_holders(const struct mt_store *store, int n_expert)
{
    const int64_t n_rank = store->layout.n_rank;
    return mt_min_i64(n_expert * (n_rank - 1), n_rank * store->n_slot);
}

static enum mt_status create_layer(struct mt_store *store, int layer,
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
    MT_TRY(mt_memory_allocate_items((int64_t)sizeof(void *), l->n_expert, "experts of a layer",
                                    (void **)&l->here));
    MT_TRY(MT_ALLOCATE(l->holder_start, l->n_expert + 1, "holders of experts"));
    MT_TRY(MT_ALLOCATE(l->holder, max_holders(store, l->n_expert), "holders of experts"));
    memcpy(l->owner, ownership->owner, (size_t)l->n_expert * sizeof(*l->owner));
    MT_TRY(mt_linear_prepare(store->device, l->width, l->hidden));
    return mt_linear_prepare(store->device, l->hidden, l->width);
}

/* Lays the packs of one expert of this layer's shape into memory. */
static void init_weights(struct mt_expert_copy *copy, const struct mt_layer *layer, bool training,
                         void *memory)
{
    const int64_t gate_bytes = mt_weight_bytes(layer->width, layer->hidden, training);
    char *at = memory;
    mt_weight_init(&copy->gate, layer->width, layer->hidden, training, at);
    mt_weight_init(&copy->up, layer->width, layer->hidden, training, at + gate_bytes);
    mt_weight_init(&copy->down, layer->hidden, layer->width, training, at + 2 * gate_bytes);
}

static void place_owned(struct mt_store *store)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(&store->layout, store->training);
    int index = 0;
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        struct mt_layer *l = &store->layer[layer];
        for (int e = 0; e < l->n_expert; ++e) {
            if (l->owner[e] != store->comm->rank) {
                continue;
            }
            struct mt_expert_copy *copy = &store->owned[index];
            copy->value = store->expert_value + index * store->stride;
            copy->grad = store->training ? store->expert_grad + index * store->stride : NULL;
            init_weights(copy, l, store->training, (char *)store->expert_pack + index * pack_bytes);
            l->here[e] = copy;
            ++index;
        }
    }
    MT_ASSERT(index == store->n_owned);
}

static enum mt_status create_slots(struct mt_store *store)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(&store->layout, store->training);
    const int64_t n_element = store->n_slot * store->stride;
    MT_TRY(MT_ALLOCATE(store->slot, store->n_slot, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->free_slot, store->n_slot, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->slots_used, store->layout.n_rank, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->slots_wanted, store->layout.n_rank, "expert slots"));
    MT_TRY(MT_ALLOCATE(store->slot_value, n_element, "copies of experts"));
    MT_TRY(mt_memory_allocate(store->n_slot * pack_bytes, "packed copies of experts",
                              &store->slot_pack));
    if (store->training) {
        MT_TRY(MT_ALLOCATE(store->slot_grad, n_element, "gradients of copies of experts"));
    }
    store->n_free = store->n_slot;
    for (int i = 0; i < store->n_slot; ++i) {
        store->free_slot[i] = store->n_slot - 1 - i; /* the lowest is taken first */
        store->slot[i].value = store->slot_value + i * store->stride;
        store->slot[i].grad = store->training ? store->slot_grad + i * store->stride : NULL;
    }
    return MT_OK;
}

/* Each owner's first n_slot experts of a layer at all other ranks. lent [R], zeroed: scratch. */
static void lend_most(const struct mt_layer *l, int n_rank, int n_slot, int *lent,
                      int64_t *holder_start, int *holder)
{
    int64_t n = 0;
    for (int e = 0; e < l->n_expert; ++e) {
        const bool is_lent = lent[l->owner[e]]++ < n_slot;
        for (int rank = 0; is_lent && rank < n_rank; ++rank) {
            if (rank != l->owner[e]) {
                holder[n++] = rank;
            }
        }
        holder_start[e + 1] = n;
    }
}

/* The most ops that any placement of the layer can need here. No rank can hold more than n_slot of
 * another's experts, so lending the first n_slot to all has at least as many sends and adds. */
static enum mt_status count_max_op(struct mt_store *store, const struct mt_layer *l,
                                   int64_t *max_op)
{
    const int n_rank = store->layout.n_rank;
    int *holder = NULL;
    int *lent = NULL;
    int64_t *holder_start = NULL;
    enum mt_status status = MT_OK;
    MT_TRY_GOTO(MT_ALLOCATE(holder, (int64_t)l->n_expert * (n_rank - 1), "plan capacity"));
    MT_TRY_GOTO(MT_ALLOCATE(holder_start, l->n_expert + 1, "plan capacity"));
    MT_TRY_GOTO(MT_ALLOCATE(lent, n_rank, "plan capacity"));
    lend_most(l, n_rank, store->n_slot, lent, holder_start, holder);
    const struct mt_sparse most = {.n_chunk = l->n_expert,
                                   .chunk_bytes = store->chunk_bytes,
                                   .owner = l->owner,
                                   .holder_start = holder_start,
                                   .holder = holder};
    *max_op = mt_max_i64(*max_op, mt_plan_sparse_max_op(store->comm->rank, &most));
cleanup:
    mt_memory_free(holder);
    mt_memory_free(lent);
    mt_memory_free(holder_start);
    return status;
}

static enum mt_status create_lanes(struct mt_store *store, int64_t stage_bytes)
{
    int64_t max_op = 0;
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        MT_TRY(count_max_op(store, &store->layer[layer], &max_op));
    }
    store->n_expert_gather_lane = mt_expert_lane_count(&store->layout, MT_EXPERT_GATHER_LANES);
    for (int i = 0; i < store->n_expert_gather_lane; ++i) {
        MT_TRY(mt_lane_init(&store->expert_gather_lane[i], store->comm, max_op, max_op, 0));
    }
    if (store->training) {
        store->n_expert_reduce_lane = mt_expert_lane_count(&store->layout, MT_EXPERT_REDUCE_LANES);
    }
    for (int i = 0; i < store->n_expert_reduce_lane; ++i) {
        MT_TRY(
            mt_lane_init(&store->expert_reduce_lane[i], store->comm, max_op, max_op, stage_bytes));
    }
    return MT_OK;
}

enum mt_status mt_experts_create(struct mt_store *store, const struct mt_store_options *options,
                                 const struct mt_sizes *sizes)
{
    const int n_layer = store->table->n_layer;
    store->n_slot = options->n_slot;
    store->n_owned = mt_size_to_int(sizes->n_owned);
    store->stride = mt_layout_expert_stride(&store->layout);
    const int64_t n_element = store->n_owned * store->stride;
    MT_TRY(MT_ALLOCATE(store->layer, n_layer, "layers"));
    int64_t most_experts = 0;
    for (int layer = 0; layer < n_layer; ++layer) {
        MT_TRY(create_layer(store, layer, options));
        most_experts = mt_max_i64(most_experts, store->layer[layer].n_expert);
    }
    MT_TRY(MT_ALLOCATE(store->chunk_bytes, most_experts, "expert offsets"));
    MT_TRY(MT_ALLOCATE(store->home_offset, most_experts, "expert offsets"));
    MT_TRY(MT_ALLOCATE(store->copy_offset, most_experts, "expert offsets"));
    MT_TRY(MT_ALLOCATE(store->owned, store->n_owned, "experts"));
    MT_TRY(MT_ALLOCATE(store->expert_value, n_element, "experts"));
    MT_TRY(mt_memory_allocate(sizes->bytes.expert_pack, "packed experts", &store->expert_pack));
    if (store->training) {
        MT_TRY(MT_ALLOCATE(store->expert_grad, n_element, "gradients of experts"));
        MT_TRY(MT_ALLOCATE(store->expert_avg, n_element, "optimizer state of experts"));
        MT_TRY(MT_ALLOCATE(store->expert_avg_sq, n_element, "optimizer state of experts"));
    }
    place_owned(store);
    MT_TRY(create_slots(store));
    return create_lanes(store, sizes->expert_stage_bytes);
}

void mt_experts_destroy(struct mt_store *store)
{
    for (int i = 0; i < store->n_expert_gather_lane; ++i) {
        mt_lane_clear(&store->expert_gather_lane[i]);
    }
    for (int i = 0; i < store->n_expert_reduce_lane; ++i) {
        mt_lane_clear(&store->expert_reduce_lane[i]);
    }
    for (int layer = 0; store->layer != NULL && layer < store->table->n_layer; ++layer) {
        mt_memory_free(store->layer[layer].owner);
        mt_memory_free((void *)store->layer[layer].here);
        mt_memory_free(store->layer[layer].holder_start);
        mt_memory_free(store->layer[layer].holder);
    }
    void *const blocks[] = {store->layer,         store->chunk_bytes,  store->home_offset,
                            store->copy_offset,   store->owned,        store->expert_value,
                            store->expert_pack,   store->expert_grad,  store->expert_avg,
                            store->expert_avg_sq, store->slot,         store->free_slot,
                            store->slots_used,    store->slots_wanted, store->slot_value,
                            store->slot_pack,     store->slot_grad};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); ++i) {
        mt_memory_free(blocks[i]);
    }
}

bool mt_experts_have_copies(const struct mt_store *store)
{
    return store->n_free < store->n_slot;
}

static void pack_expert(struct mt_store *store, const struct mt_layer *layer,
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
        pack_expert(store, layer, layer->here[e]);
        MT_TRY(mt_comm_poll(store->comm));
    }
    return MT_OK;
}

enum mt_status mt_experts_pack_owned(struct mt_store *store)
{
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        MT_TRY(pack_layer(store, &store->layer[layer]));
    }
    return MT_OK;
}

void mt_experts_zero_grad(struct mt_store *store)
{
    mt_fill_zero(store->device, store->expert_grad, store->n_owned * store->stride);
}

static struct mt_layer *layer_of(const struct mt_store *store, int layer)
{
    MT_ASSERT(layer >= 0 && layer < store->table->n_layer);
    MT_ASSERT(store->layer[layer].n_expert > 0);
    return &store->layer[layer];
}

const struct mt_expert_copy *mt_store_expert(const struct mt_store *store, int layer, int expert)
{
    const struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(expert >= 0 && expert < l->n_expert);
    const bool is_owned = l->owner[expert] == store->comm->rank;
    return is_owned || l->state == MT_LAYER_PRESENT ? l->here[expert] : NULL;
}

/* ---- materialise ---- */

/* The same verdict on every rank: it looks at the slots of all. */
static enum mt_status check_slots(struct mt_store *store, int layer,
                                  const struct mt_placement *placement)
{
    const int n_rank = store->layout.n_rank;
    memset(store->slots_wanted, 0, (size_t)n_rank * sizeof(*store->slots_wanted));
    for (int e = 0; e < placement->n_expert; ++e) {
        MT_ASSERT(placement->owner[e] == store->layer[layer].owner[e]);
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            if (placement->rank[i] != placement->owner[e]) {
                ++store->slots_wanted[placement->rank[i]];
            }
        }
    }
    for (int rank = 0; rank < n_rank; ++rank) {
        const int n_free = store->n_slot - store->slots_used[rank];
        if (store->slots_wanted[rank] > n_free) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "rank %d has no room for the experts placed there in layer %d: %d slots "
                           "wanted, %d of %d free; raise placement.slots or use more ranks",
                           rank, layer, store->slots_wanted[rank], n_free, store->n_slot);
        }
    }
    return MT_OK;
}

static void take_slot(struct mt_store *store, struct mt_layer *l, int expert)
{
    const int64_t pack_bytes = mt_expert_pack_bytes(&store->layout, store->training);
    const int index = store->free_slot[--store->n_free];
    struct mt_expert_copy *copy = &store->slot[index];
    init_weights(copy, l, store->training, (char *)store->slot_pack + index * pack_bytes);
    l->here[expert] = copy;
}

/* Remembers who holds what until the copies are dropped; this rank's copies get their slots. */
static void take_slots(struct mt_store *store, struct mt_layer *l,
                       const struct mt_placement *placement)
{
    int64_t n = 0;
    for (int e = 0; e < l->n_expert; ++e) {
        for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
            const int rank = placement->rank[i];
            if (rank == l->owner[e]) {
                continue;
            }
            l->holder[n++] = rank;
            ++store->slots_used[rank];
            if (rank == store->comm->rank) {
                take_slot(store, l, e);
            }
        }
        l->holder_start[e + 1] = n;
    }
}

static void free_slots(struct mt_store *store, struct mt_layer *l)
{
    for (int e = l->n_expert - 1; e >= 0; --e) {
        for (int64_t i = l->holder_start[e]; i < l->holder_start[e + 1]; ++i) {
            --store->slots_used[l->holder[i]];
        }
        if (l->owner[e] != store->comm->rank && l->here[e] != NULL) {
            store->free_slot[store->n_free++] = (int)(l->here[e] - store->slot);
            l->here[e] = NULL;
        }
    }
    memset(l->holder_start, 0, (size_t)(l->n_expert + 1) * sizeof(*l->holder_start));
    l->state = MT_LAYER_OWNED_ONLY;
}

static bool has_holders(const struct mt_layer *l)
{
    return l->holder_start[l->n_expert] > 0;
}

/* The placement in force, and where this rank has its part of it: offsets are the same in the
 * blocks of values and of gradients. */
static struct mt_sparse describe(struct mt_store *store, const struct mt_layer *l)
{
    const int64_t stride_bytes = store->stride * (int64_t)sizeof(float);
    for (int e = 0; e < l->n_expert; ++e) {
        store->chunk_bytes[e] = l->n_element * (int64_t)sizeof(float);
        const bool is_owned = l->owner[e] == store->comm->rank;
        const bool is_copy = !is_owned && l->here[e] != NULL;
        store->home_offset[e] = is_owned ? (l->here[e] - store->owned) * stride_bytes : 0;
        store->copy_offset[e] = is_copy ? (l->here[e] - store->slot) * stride_bytes : 0;
    }
    return (struct mt_sparse){.n_chunk = l->n_expert,
                              .chunk_bytes = store->chunk_bytes,
                              .owner = l->owner,
                              .holder_start = l->holder_start,
                              .holder = l->holder};
}

enum mt_status mt_store_materialize_begin(struct mt_store *store, int layer,
                                          const struct mt_placement *placement)
{
    struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(l->state == MT_LAYER_OWNED_ONLY);
    MT_ASSERT(placement->n_expert == l->n_expert && placement->n_rank == store->layout.n_rank);
    MT_TRY(check_slots(store, layer, placement));
    take_slots(store, l, placement);
    l->state = MT_LAYER_GATHERING;
    if (!has_holders(l)) {
        return MT_OK;
    }
    struct mt_lane *lane = &store->expert_gather_lane[layer % store->n_expert_gather_lane];
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end(lane));
    const struct mt_sparse sparse = describe(store, l);
    mt_plan_sparse_allgather(&lane->plan, store->comm->rank, &sparse, store->home_offset,
                             store->copy_offset);
    MT_TRY(mt_lane_begin(lane, layer, &lane->plan, store->expert_value, store->slot_value));
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

enum mt_status mt_store_materialize_end(struct mt_store *store, int layer)
{
    struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(l->state == MT_LAYER_GATHERING);
    l->state = MT_LAYER_PRESENT;
    if (!has_holders(l)) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    MT_TRY(
        mt_lane_end_user(&store->expert_gather_lane[layer % store->n_expert_gather_lane], layer));
    for (int e = 0; e < l->n_expert; ++e) {
        if (l->owner[e] == store->comm->rank || l->here[e] == NULL) {
            continue;
        }
        pack_expert(store, l, l->here[e]);
        if (store->training) {
            mt_fill_zero(store->device, l->here[e]->grad, l->n_element);
        }
        MT_TRY(mt_comm_poll(store->comm));
    }
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

void mt_store_drop_copies(struct mt_store *store, int layer)
{
    struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(l->state == MT_LAYER_PRESENT || l->state == MT_LAYER_OWNED_ONLY);
    free_slots(store, l);
}

/* ---- reduce ---- */

enum mt_status mt_store_reduce_experts_begin(struct mt_store *store, int layer)
{
    struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(store->training && l->state == MT_LAYER_PRESENT);
    l->state = MT_LAYER_REDUCING;
    if (!has_holders(l)) {
        return MT_OK;
    }
    struct mt_lane *lane = &store->expert_reduce_lane[layer % store->n_expert_reduce_lane];
    mt_span_begin(MT_PHASE_REDUCE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end(lane));
    const struct mt_sparse sparse = describe(store, l);
    MT_ASSERT(mt_plan_sparse_reduce_stage_bytes(store->comm->rank, &sparse) <= lane->stage_bytes);
    mt_plan_sparse_reduce_scatter(&lane->plan, store->comm->rank, &sparse, store->home_offset,
                                  store->copy_offset, MT_ELEMENT_F32);
    MT_TRY(mt_lane_begin(lane, layer, &lane->plan, store->slot_grad, store->expert_grad));
    mt_span_end(MT_PHASE_REDUCE);
    return MT_OK;
}

enum mt_status mt_store_reduce_experts_end(struct mt_store *store, int layer)
{
    struct mt_layer *l = layer_of(store, layer);
    MT_ASSERT(l->state == MT_LAYER_REDUCING);
    if (has_holders(l)) {
        mt_span_begin(MT_PHASE_REDUCE);
        mt_device_settle(store->device);
        MT_TRY(mt_lane_end_user(&store->expert_reduce_lane[layer % store->n_expert_reduce_lane],
                                layer));
        mt_span_end(MT_PHASE_REDUCE);
    }
    free_slots(store, l);
    return MT_OK;
}
