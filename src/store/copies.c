/* Copies of experts in slots along a placement: out from owners before use, gradients back.
 *
 *     materialize  ->  GATHERING -\                        /-> (gone)        drop
 *     ..._late     ->  LATE ------ end --> PRESENT --------<
 *                                            |  ^           \-> REDUCING --> (gone)   reduce, end
 *                                      keep  v  |
 *                                           KEPT  (drop leaves it alone)
 *
 * Every rank follows the state of all ranks' copies, so each knows alone who sends what to whom,
 * and how many slots are free where. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "store/internal.h"

#include <string.h>

bool mt_experts_have_copies(const struct mt_store *store)
{
    return store->n_free < store->n_slot;
}

/* Copies in these states exist nowhere. */
static bool is_none_in(const struct mt_layer *l, enum mt_copy_state a, enum mt_copy_state b)
{
    return l->copies.n_in[a] == 0 && l->copies.n_in[b] == 0;
}

static int64_t n_copy(const struct mt_layer *l)
{
    return l->copies.start[l->n_expert];
}

/* ---- lists of copies ---- */

/* Begins the layer's next list in store->spare. */
static void list_begin(struct mt_store *store)
{
    memset(store->spare.n_in, 0, sizeof(store->spare.n_in));
    store->spare.start[0] = 0;
}

/* More than slots can hold are counted only: that there is no room for them is found afterwards. */
static void list_add(struct mt_store *store, int64_t *n, int rank, enum mt_copy_state state)
{
    if (*n < store->max_copy) {
        store->spare.rank[*n] = rank;
        store->spare.state[*n] = (unsigned char)state;
    }
    ++store->spare.n_in[state];
    ++*n;
}

static void list_end(struct mt_store *store, struct mt_layer *l)
{
    const struct mt_copies old = l->copies;
    MT_ASSERT(store->spare.start[l->n_expert] <= store->max_copy);
    l->copies = store->spare;
    store->spare = old;
}

/* Lists the held copies of expert e and the wanted ones: instances that are late or not, as `state`
 * says. Whatever is held must be among the instances. */
static void list_wanted(struct mt_store *store, const struct mt_layer *l,
                        const struct mt_placement *placement, int e, enum mt_copy_state state,
                        int64_t *n)
{
    int64_t held = l->copies.start[e];
    const int64_t held_end = l->copies.start[e + 1];
    for (int i = placement->instance_start[e]; i < placement->instance_start[e + 1]; ++i) {
        const int rank = placement->rank[i];
        const bool is_owned = !store->is_cut && rank == l->owner[e];
        if (held < held_end && l->copies.rank[held] == rank) {
            list_add(store, n, rank, (enum mt_copy_state)l->copies.state[held++]);
        } else if (!is_owned && placement->is_late[i] == (state == MT_COPY_LATE)) {
            list_add(store, n, rank, state);
            ++store->rank_count[rank];
        } else {
            MT_ASSERT(is_owned || placement->is_late[i]); /* begun before late ones */
        }
    }
    MT_ASSERT(held == held_end);
}

/* The same verdict on every rank: it looks at the slots of all. */
static enum mt_status check_slots(const struct mt_store *store, int layer)
{
    for (int rank = 0; rank < store->layout.n_rank; ++rank) {
        const int n_free = store->n_slot - store->slots_used[rank];
        if (store->rank_count[rank] > n_free) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "rank %d has no room for the experts placed there in layer %d: %d slots "
                           "wanted, %d of %d free; raise placement.slots or use more ranks",
                           rank, layer, store->rank_count[rank], n_free, store->n_slot);
        }
    }
    return MT_OK;
}

static void take_slots(struct mt_store *store, struct mt_layer *l, enum mt_copy_state state)
{
    for (int e = 0; e < l->n_expert; ++e) {
        for (int64_t i = l->copies.start[e]; i < l->copies.start[e + 1]; ++i) {
            if (l->copies.state[i] != state) {
                continue;
            }
            ++store->slots_used[l->copies.rank[i]];
            if (l->copies.rank[i] == store->comm->rank) {
                const int index = store->free_slot[--store->n_free];
                mt_experts_use_slot(store, l, index);
                l->here[e] = &store->slot[index];
            }
        }
    }
}

/* Lists the layer's copies with the wanted ones, in `state`, and gives those their slots. */
static enum mt_status take(struct mt_store *store, int layer, const struct mt_placement *placement,
                           enum mt_copy_state state)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(placement->n_expert == l->n_expert && placement->n_rank == store->layout.n_rank);
    memset(store->rank_count, 0, (size_t)store->layout.n_rank * sizeof(*store->rank_count));
    list_begin(store);
    int64_t n = 0;
    for (int e = 0; e < l->n_expert; ++e) {
        MT_ASSERT(placement->owner[e] == l->owner[e]);
        const int n_instance = placement->instance_start[e + 1] - placement->instance_start[e];
        MT_ASSERT(n_instance >= 1);
        list_wanted(store, l, placement, e, state, &n);
        store->spare.start[e + 1] = n;
    }
    if (store->spare.n_in[state] == 0) {
        return MT_OK; /* nothing changed */
    }
    MT_TRY(check_slots(store, layer));
    list_end(store, l);
    take_slots(store, l, state);
    return MT_OK;
}

/* Copies in state `from` are in `to` now, on all ranks. */
static void change_state(struct mt_layer *l, enum mt_copy_state from, enum mt_copy_state to)
{
    for (int64_t i = 0; i < n_copy(l); ++i) {
        if (l->copies.state[i] == from) {
            l->copies.state[i] = (unsigned char)to;
        }
    }
    l->copies.n_in[to] += l->copies.n_in[from];
    l->copies.n_in[from] = 0;
}

/* Takes the copies in `state` out of the list; their slots are free. */
static void release(struct mt_store *store, struct mt_layer *l, enum mt_copy_state state)
{
    if (l->copies.n_in[state] == 0) {
        return;
    }
    for (int e = l->n_expert - 1; e >= 0; --e) { /* the lowest slots are on top again */
        for (int64_t i = l->copies.start[e]; i < l->copies.start[e + 1]; ++i) {
            if (l->copies.state[i] != state) {
                continue;
            }
            --store->slots_used[l->copies.rank[i]];
            if (l->copies.rank[i] == store->comm->rank) {
                store->free_slot[store->n_free++] = (int)(l->here[e] - store->slot);
                l->here[e] = NULL;
                l->is_usable[e] = false;
            }
        }
    }
    list_begin(store);
    int64_t n = 0;
    for (int e = 0; e < l->n_expert; ++e) {
        for (int64_t i = l->copies.start[e]; i < l->copies.start[e + 1]; ++i) {
            if (l->copies.state[i] != state) {
                list_add(store, &n, l->copies.rank[i], (enum mt_copy_state)l->copies.state[i]);
            }
        }
        store->spare.start[e + 1] = n;
    }
    list_end(store, l);
}

/* ---- transfers ---- */

/* The copies in `state`, and where this rank has its part of them: offsets are the same in the
 * blocks of values and of gradients. */
static struct mt_sparse describe(struct mt_store *store, const struct mt_layer *l,
                                 enum mt_copy_state state)
{
    const int64_t stride_bytes = store->stride * (int64_t)sizeof(float);
    struct mt_copies *moving = &store->moving;
    int64_t n = 0;
    for (int e = 0; e < l->n_expert; ++e) {
        const bool is_owned = l->owner[e] == store->comm->rank;
        const bool is_copy = !is_owned && l->here[e] != NULL;
        store->chunk_bytes[e] = l->n_element * (int64_t)sizeof(float);
        store->home_offset[e] = is_owned ? (l->here[e] - store->owned) * stride_bytes : 0;
        store->copy_offset[e] = is_copy ? (l->here[e] - store->slot) * stride_bytes : 0;
        moving->start[e] = n;
        for (int64_t i = l->copies.start[e]; i < l->copies.start[e + 1]; ++i) {
            if (l->copies.state[i] == state) {
                moving->rank[n++] = l->copies.rank[i];
            }
        }
    }
    moving->start[l->n_expert] = n;
    return (struct mt_sparse){.n_chunk = l->n_expert,
                              .chunk_bytes = store->chunk_bytes,
                              .owner = l->owner,
                              .holder_start = moving->start,
                              .holder = moving->rank};
}

static struct mt_lane *gather_lane(struct mt_store *store, int layer, enum mt_copy_state state)
{
    return state == MT_COPY_LATE ? &store->expert_late_lane[layer % store->n_expert_late_lane]
                                 : &store->expert_gather_lane[layer % store->n_expert_gather_lane];
}

static void plan_gather(struct mt_store *store, int layer, enum mt_copy_state state,
                        struct mt_plan *plan)
{
    if (store->is_cut) {
        mt_pieces_plan_gather(store, layer, state, plan);
        return;
    }
    const struct mt_sparse sparse = describe(store, &store->layer[layer], state);
    mt_plan_sparse_allgather_auto(plan, store->comm->rank, &sparse, store->ways, store->home_offset,
                                  store->copy_offset);
}

static enum mt_status gather_begin(struct mt_store *store, int layer,
                                   const struct mt_placement *placement, enum mt_copy_state state)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(is_none_in(l, state, MT_COPY_REDUCING));
    MT_TRY(take(store, layer, placement, state));
    if (l->copies.n_in[state] == 0) {
        return MT_OK;
    }
    struct mt_lane *lane = gather_lane(store, layer, state);
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end(lane));
    plan_gather(store, layer, state, &lane->plan);
    MT_TRY(mt_lane_begin(lane, layer, &lane->plan, store->expert_value, store->slot_value));
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

static void receive(const struct mt_store *store, struct mt_layer *l, int expert,
                    enum mt_copy_state state)
{
    for (int64_t i = l->copies.start[expert]; i < l->copies.start[expert + 1]; ++i) {
        if (l->copies.rank[i] == store->comm->rank && l->copies.state[i] == (unsigned char)state) {
            l->is_usable[expert] = true;
        }
    }
}

static enum mt_status gather_end(struct mt_store *store, int layer, enum mt_copy_state state)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    if (l->copies.n_in[state] == 0) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end_user(gather_lane(store, layer, state), layer));
    for (int e = 0; e < l->n_expert; ++e) {
        receive(store, l, e, state);
    }
    change_state(l, state, MT_COPY_PRESENT);
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}

enum mt_status mt_store_materialize_begin(struct mt_store *store, int layer,
                                          const struct mt_placement *placement)
{
    MT_ASSERT(mt_experts_layer(store, layer)->copies.n_in[MT_COPY_LATE] == 0);
    return gather_begin(store, layer, placement, MT_COPY_GATHERING);
}

enum mt_status mt_store_materialize_end(struct mt_store *store, int layer)
{
    return gather_end(store, layer, MT_COPY_GATHERING);
}

enum mt_status mt_store_materialize_late_begin(struct mt_store *store, int layer,
                                               const struct mt_placement *placement)
{
    return gather_begin(store, layer, placement, MT_COPY_LATE);
}

enum mt_status mt_store_materialize_late_end(struct mt_store *store, int layer)
{
    return gather_end(store, layer, MT_COPY_LATE);
}

void mt_store_drop_copies(struct mt_store *store, int layer)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(is_none_in(l, MT_COPY_GATHERING, MT_COPY_LATE));
    MT_ASSERT(l->copies.n_in[MT_COPY_REDUCING] == 0);
    release(store, l, MT_COPY_PRESENT);
}

/* ---- reduce ---- */

static void part_here(struct mt_store *store, struct mt_layer *l, int expert, bool is_kept)
{
    l->is_usable[expert] = is_kept;
    if (!is_kept) {
        mt_experts_settle_grad(store, l, l->here[expert]);
    }
}

/* All copies are KEPT or REDUCING from now on. */
static void part_copies(struct mt_store *store, struct mt_layer *l, const struct mt_placement *keep)
{
    memset(l->copies.n_in, 0, sizeof(l->copies.n_in));
    for (int e = 0; e < l->n_expert; ++e) {
        for (int64_t i = l->copies.start[e]; i < l->copies.start[e + 1]; ++i) {
            const int rank = l->copies.rank[i];
            const bool is_kept = keep != NULL && mt_placement_find(keep, e, rank) >= 0;
            const enum mt_copy_state state = is_kept ? MT_COPY_KEPT : MT_COPY_REDUCING;
            l->copies.state[i] = (unsigned char)state;
            ++l->copies.n_in[state];
            if (rank == store->comm->rank) {
                part_here(store, l, e, is_kept);
            }
        }
    }
}

static void plan_reduce(struct mt_store *store, int layer, struct mt_lane *lane)
{
    if (store->is_cut) {
        mt_pieces_plan_reduce(store, layer, lane);
        return;
    }
    const struct mt_sparse sparse = describe(store, &store->layer[layer], MT_COPY_REDUCING);
    const int64_t *const offset[2] = {store->home_offset, store->copy_offset};
    MT_ASSERT(mt_plan_sparse_relay_stage_bytes(&sparse) <= lane->stage_bytes);
    mt_plan_sparse_reduce_scatter_auto(&lane->plan, store->comm->rank, &sparse, store->ways, offset,
                                       MT_ELEMENT_F32);
}

enum mt_status mt_store_reduce_experts_begin(struct mt_store *store, int layer,
                                             const struct mt_placement *keep)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    MT_ASSERT(store->training && is_none_in(l, MT_COPY_GATHERING, MT_COPY_LATE));
    MT_ASSERT(l->copies.n_in[MT_COPY_REDUCING] == 0);
    MT_ASSERT(keep == NULL || keep->n_expert == l->n_expert);
    part_copies(store, l, keep);
    if (l->copies.n_in[MT_COPY_REDUCING] == 0) {
        return MT_OK;
    }
    struct mt_lane *lane = &store->expert_reduce_lane[layer % store->n_expert_reduce_lane];
    mt_span_begin(MT_PHASE_REDUCE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end(lane));
    plan_reduce(store, layer, lane);
    MT_TRY(mt_lane_begin(lane, layer, &lane->plan, store->slot_grad, store->expert_grad));
    mt_span_end(MT_PHASE_REDUCE);
    return MT_OK;
}

enum mt_status mt_store_reduce_experts_end(struct mt_store *store, int layer)
{
    struct mt_layer *l = mt_experts_layer(store, layer);
    if (l->copies.n_in[MT_COPY_REDUCING] == 0) {
        return MT_OK;
    }
    struct mt_lane *lane = &store->expert_reduce_lane[layer % store->n_expert_reduce_lane];
    mt_span_begin(MT_PHASE_REDUCE);
    mt_device_settle(store->device);
    MT_TRY(mt_lane_end_user(lane, layer));
    release(store, l, MT_COPY_REDUCING);
    mt_span_end(MT_PHASE_REDUCE);
    return MT_OK;
}
