/* Ownership moves: experts change owners between two steps, with values and optimizer state.
 *
 *     rank 0 owns [a b c]   wanted a, d       stays: a at 0      leaves: b, c      comes: d to 1
 *     rank 1 owns [d e .]   wanted e, b, c    stays: e at 1      leaves: d         comes: b, c
 *
 * What stays keeps its place; what comes takes places that are free or left. A rank may be full, so
 * an expert cannot be written over one that has not left yet: arrivals wait in the gradients'
 * memory, which has one place an expert and nothing in it between two steps. One kind after another
 * (values, first moments, second moments) along the same plan, then the gradients are zero. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "store/internal.h"

#include <string.h>

/* Row of a layer's owners in owner [n_layer, E]: E is the same for all layers that have experts. */
static const int *wanted_row(const struct mt_store *store, const int *owner, int layer)
{
    return owner + layer * store->most_experts;
}

/* Checks the capacity of all ranks; true when anything moves anywhere. */
static bool check_wanted(struct mt_store *store, const int *owner)
{
    bool is_any = false;
    memset(store->rank_count, 0, (size_t)store->layout.n_rank * sizeof(*store->rank_count));
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        const struct mt_layer *l = &store->layer[layer];
        const int *wanted = wanted_row(store, owner, layer);
        MT_ASSERT(l->n_expert == 0 || l->n_expert == store->most_experts);
        for (int e = 0; e < l->n_expert; ++e) {
            MT_ASSERT(wanted[e] >= 0 && wanted[e] < store->layout.n_rank);
            ++store->rank_count[wanted[e]];
            MT_ASSERT(store->rank_count[wanted[e]] <= store->n_capacity);
            is_any = is_any || wanted[e] != l->owner[e];
        }
    }
    return is_any;
}

/* Marks the places of the experts that stay. */
static void mark_staying(struct mt_store *store, const int *owner)
{
    const int rank = store->comm->rank;
    memset(store->is_taken, 0, (size_t)store->n_capacity * sizeof(*store->is_taken));
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        const struct mt_layer *l = &store->layer[layer];
        const int *wanted = wanted_row(store, owner, layer);
        for (int e = 0; e < l->n_expert; ++e) {
            if (l->owner[e] == rank && wanted[e] == rank) {
                store->is_taken[l->here[e] - store->owned] = true;
            }
        }
    }
}

/* One expert that leaves or comes. *place: where the search for a free one goes on. */
static void plan_move(struct mt_store *store, struct mt_layer *l, int expert, int wanted,
                      int *place)
{
    struct mt_plan *plan = &store->move_lane.plan;
    const bool is_coming = wanted == store->comm->rank;
    if (is_coming) {
        while (store->is_taken[*place]) {
            ++*place;
        }
        l->here[expert] = &store->owned[(*place)++];
    }
    const int64_t index = l->here[expert] - store->owned;
    const int64_t offset = index * store->home_stride * (int64_t)sizeof(float);
    const int64_t n_bytes = l->n_element * (int64_t)sizeof(float);
    if (is_coming) {
        mt_plan_recv(plan, 0, l->owner[expert], MT_BUFFER_RECV, offset, n_bytes);
    } else {
        mt_plan_send(plan, 0, wanted, MT_BUFFER_SEND, offset, n_bytes);
    }
}

/* SEND: where experts are; RECV: where they will be. Pairs meet in order of (layer, expert). An
 * arriving expert has its place in l->here from now on. */
static void plan_moves(struct mt_store *store, const int *owner)
{
    const int rank = store->comm->rank;
    int place = 0;
    mt_plan_reset(&store->move_lane.plan, "move_experts", MT_ELEMENT_BYTE);
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        struct mt_layer *l = &store->layer[layer];
        const int *wanted = wanted_row(store, owner, layer);
        for (int e = 0; e < l->n_expert; ++e) {
            if (wanted[e] != l->owner[e] && (l->owner[e] == rank || wanted[e] == rank)) {
                plan_move(store, l, e, wanted[e], &place);
            }
        }
    }
}

/* One kind of block [n_capacity, stride]: all leave and arrive, then the arrivals are put there. */
static enum mt_status move_block(struct mt_store *store, float *block)
{
    const struct mt_plan *plan = &store->move_lane.plan;
    MT_TRY(mt_lane_begin(&store->move_lane, 0, plan, block, store->expert_grad));
    MT_TRY(mt_lane_end(&store->move_lane));
    for (int64_t i = 0; i < plan->n_op; ++i) {
        const struct mt_op *op = &plan->op[i];
        if (op->kind == MT_OP_RECV) {
            mt_device_copy(store->device, (char *)block + op->offset_bytes,
                           (const char *)store->expert_grad + op->offset_bytes, op->n_bytes);
        }
    }
    return MT_OK;
}

static void change_owners(struct mt_store *store, const int *owner)
{
    const int rank = store->comm->rank;
    for (int layer = 0; layer < store->table->n_layer; ++layer) {
        struct mt_layer *l = &store->layer[layer];
        const int *wanted = wanted_row(store, owner, layer);
        for (int e = 0; e < l->n_expert; ++e) {
            const bool was_here = l->owner[e] == rank;
            l->owner[e] = wanted[e];
            if (was_here && wanted[e] != rank) {
                l->here[e] = NULL;
                l->is_usable[e] = false;
            } else if (!was_here && wanted[e] == rank) {
                mt_experts_settle(store, l, e, (int)(l->here[e] - store->owned));
            }
        }
    }
}

enum mt_status mt_store_move_experts(struct mt_store *store, const int *owner)
{
    MT_ASSERT(store->training && !store->is_cut && !mt_experts_have_copies(store));
    store->is_packed = false;
    if (!check_wanted(store, owner)) {
        mt_experts_zero_grad(store);
        return MT_OK;
    }
    mt_store_call_guard(store);
    mt_span_begin(MT_PHASE_MATERIALIZE);
    mt_device_settle(store->device);
    mark_staying(store, owner);
    plan_moves(store, owner);
    MT_TRY(move_block(store, store->expert_value));
    MT_TRY(move_block(store, store->expert_avg));
    MT_TRY(move_block(store, store->expert_avg_sq));
    change_owners(store, owner);
    mt_experts_zero_grad(store);
    mt_parts_list(store);
    mt_span_end(MT_PHASE_MATERIALIZE);
    return MT_OK;
}
