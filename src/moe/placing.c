/* Where the experts of a layer work: the policy's moments, and the copies that follow from them.
 *
 *   before attention    plan from the past, begin SparseAllGather        mt_moe_prefetch
 *   after the gate      exact counts: late copies                        mt_moe_correct
 *   after forward       copies dropped, or kept without                  mt_moe_end_forward
 *                       re-materialization
 *   before backward     the same copies gathered again                   mt_moe_prefetch_backward
 *   after backward      begin and end SparseReduceScatter                mt_moe_begin_reduce, _end_
 *
 * A micro-batch in two halves has one plan before the gate, and the same copies serve both; after
 * the gate each half asks for late ones by its own counts, the second beside those of the first.
 *
 * Without re-materialization copies are sticky: they stay until the step's last backward, and only
 * what the next micro-batch wants beside them travels. */
#include "base/size.h"
#include "moe/context.h"

#include <string.h>

static struct mt_policy_input input_of(const struct mt_moe *moe, int layer)
{
    return (struct mt_policy_input){.cluster = &moe->cluster,
                                    .n_expert = moe->n_expert,
                                    .layer = layer,
                                    .step = moe->step,
                                    .n_micro = moe->n_micro,
                                    .slots = moe->n_slot,
                                    .overlap = moe->overlap,
                                    .calibrate = moe->calibrate,
                                    .is_held = moe->is_held[layer],
                                    .n_history = moe->history.n_step,
                                    .history = mt_history_layer(&moe->history, layer),
                                    .n_recent = moe->recent.n_step,
                                    .recent = mt_history_layer(&moe->recent, layer)};
}

enum mt_status mt_moe_prefetch(struct mt_moe *moe, int layer, bool is_kept)
{
    struct mt_placement *placement = &moe->placement[layer];
    const struct mt_policy_input input = input_of(moe, layer);
    mt_span_begin(MT_PHASE_PLAN);
    if (!moe->is_held[layer]) {
        mt_placement_copy(placement, &moe->planned[layer]);
    } else if (is_kept) {
        mt_placement_copy(&moe->stayed, placement);
    }
    moe->has_stayed = moe->is_held[layer] && is_kept;
    moe->policy->before_gate(&input, &moe->scratch, placement);
    if (is_kept) {
        mt_placement_copy(&moe->planned[layer], placement);
    }
    mt_span_end(MT_PHASE_PLAN);
    if (moe->is_held[layer]) {
        MT_TRY(mt_store_reduce_experts_begin(moe->store, layer, placement));
        MT_TRY(mt_store_reduce_experts_end(moe->store, layer));
    }
    return mt_store_materialize_begin(moe->store, layer, placement);
}

/* What the first half asked for is late still where predictions and metrics look. */
static void mark_first_late(const struct mt_moe *moe, struct mt_placement *placement)
{
    const struct mt_placement *first = &moe->first_late;
    for (int e = 0; e < first->n_expert; ++e) {
        for (int i = first->instance_start[e]; i < first->instance_start[e + 1]; ++i) {
            if (first->is_late[i]) {
                placement->is_late[mt_placement_find(placement, e, first->rank[i])] = true;
            }
        }
    }
}

/* [R,E] of the whole micro-batch, which late copies serve: the first half stands for both. */
static const int64_t *expected_count(const struct mt_moe *moe, const struct mt_moe_half *half)
{
    const int64_t n_pair = (int64_t)moe->n_rank * moe->n_expert;
    const int64_t n_alike = mt_moe_is_last_half(moe, half) ? 1 : moe->n_half;
    if (!half->is_kept) {
        return moe->count; /* of a pass of its own */
    }
    for (int64_t i = 0; i < n_pair; ++i) {
        moe->expected_count[i] = n_alike * moe->seen.count[i];
    }
    return moe->expected_count;
}

enum mt_status mt_moe_correct(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    struct mt_placement *placement = &moe->placement[layer];
    const bool is_first = mt_moe_is_first_half(moe, half);
    if (moe->policy->after_gate == NULL) {
        return MT_OK;
    }
    struct mt_policy_input input = input_of(moe, layer);
    input.count = expected_count(moe, half);
    if (!is_first) { /* to the policy they are there, as those from before the gate */
        MT_TRY(mt_moe_end_late(moe, layer));
        mt_placement_copy(&moe->first_late, placement);
        mt_placement_forget_late(placement);
    }
    mt_span_begin(MT_PHASE_PLAN);
    moe->policy->after_gate(&input, &moe->scratch, placement);
    moe->has_late = false;
    for (int i = 0; i < mt_placement_n_instance(placement); ++i) {
        moe->has_late = moe->has_late || placement->is_late[i];
    }
    if (!is_first) {
        mark_first_late(moe, placement);
    }
    mt_span_end(MT_PHASE_PLAN);
    return MT_OK;
}

enum mt_status mt_moe_end_late(struct mt_moe *moe, int layer)
{
    if (!moe->has_late) {
        return MT_OK;
    }
    moe->has_late = false;
    return mt_store_materialize_late_end(moe->store, layer);
}

enum mt_status mt_moe_end_forward(struct mt_moe *moe, int layer, bool is_kept)
{
    MT_TRY(mt_moe_end_late(moe, layer));
    mt_placement_forget_late(&moe->placement[layer]);
    if (!is_kept || moe->rematerialize) {
        mt_store_drop_copies(moe->store, layer);
    }
    return MT_OK;
}

enum mt_status mt_moe_prefetch_backward(struct mt_moe *moe, int layer)
{
    return mt_store_materialize_begin(moe->store, layer, &moe->placement[layer]);
}

enum mt_status mt_moe_begin_reduce(struct mt_moe *moe, int layer)
{
    moe->is_held[layer] = !moe->rematerialize && !moe->is_last_micro;
    const struct mt_placement *keep = moe->is_held[layer] ? &moe->placement[layer] : NULL;
    return mt_store_reduce_experts_begin(moe->store, layer, keep);
}

enum mt_status mt_moe_end_reduce(struct mt_moe *moe, int layer)
{
    return mt_store_reduce_experts_end(moe->store, layer);
}

/* ---- owners ---- */

static void take_owners(struct mt_moe *moe)
{
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        const int *owner = moe->owner + (int64_t)layer * moe->n_expert;
        struct mt_placement *const both[] = {&moe->planned[layer], &moe->placement[layer]};
        for (int i = 0; i < 2; ++i) {
            memcpy(both[i]->owner, owner, (size_t)moe->n_expert * sizeof(*owner));
            mt_placement_owners_only(both[i]);
        }
    }
}

static int64_t count_moves(const struct mt_moe *moe)
{
    int64_t n = 0;
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        const int *now = moe->planned[layer].owner;
        const int *wanted = moe->owner + (int64_t)layer * moe->n_expert;
        for (int e = 0; e < moe->n_expert; ++e) {
            n += now[e] != wanted[e] ? 1 : 0;
        }
    }
    return n;
}

/* Moves to moe->owner what is elsewhere; placements start anew from there. */
static enum mt_status move_owners(struct mt_moe *moe)
{
    moe->n_move = count_moves(moe);
    if (moe->n_move == 0) {
        return MT_OK;
    }
    MT_TRY(mt_store_move_experts(moe->store, moe->owner));
    take_owners(moe);
    return MT_OK;
}

static bool is_reshard_due(const struct mt_moe *moe)
{
    return moe->policy->reshard != NULL && moe->reshard_interval > 0 && moe->history.n_step > 0 &&
           (moe->step - 1) % moe->reshard_interval == 0;
}

static enum mt_status reshard(struct mt_moe *moe)
{
    moe->n_move = 0;
    if (!is_reshard_due(moe)) {
        return MT_OK;
    }
    const struct mt_reshard_input input = {.cluster = &moe->cluster,
                                           .n_layer = moe->n_layer,
                                           .first_layer = moe->first_layer,
                                           .n_expert = moe->n_expert,
                                           .step = moe->step,
                                           .n_micro = moe->n_micro,
                                           .slots = moe->n_slot,
                                           .overlap = moe->overlap,
                                           .capacity = mt_store_capacity(moe->store),
                                           .history = &moe->history};
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        memcpy(moe->owner + (int64_t)layer * moe->n_expert, moe->planned[layer].owner,
               (size_t)moe->n_expert * sizeof(*moe->owner));
    }
    moe->policy->reshard(&input, &moe->scratch, moe->owner);
    MT_TRY(move_owners(moe));
    return moe->n_move > 0 ? mt_store_publish(moe->store) : MT_OK;
}

enum mt_status mt_moe_plan_step(struct mt_moe *moe, int64_t step, int n_micro)
{
    mt_span_begin(MT_PHASE_PLAN);
    moe->step = step;
    moe->n_micro = n_micro;
    MT_TRY(reshard(moe));
    mt_balance_begin_step(&moe->balance);
    mt_tally_reset(&moe->tally);
    mt_outlook_begin_step(&moe->outlook, n_micro);
    mt_span_end(MT_PHASE_PLAN);
    return MT_OK;
}

void mt_moe_begin_micro(struct mt_moe *moe, int index, bool is_last, int n_half)
{
    MT_ASSERT(n_half >= 1 && n_half <= MT_MAX_HALF && moe->half[n_half - 1].near != NULL);
    for (int half = 0; half < MT_MAX_HALF; ++half) {
        mt_arena_release(&moe->half[half].plans, 0);
    }
    moe->n_half = n_half;
    moe->micro = index;
    moe->is_last_micro = is_last;
}

/* ---- state ---- */

void mt_moe_write_state(struct mt_moe *moe)
{
    const int64_t stride = 1 + (int64_t)moe->planned[moe->first_layer].max_instance;
    moe->place_state[0] = moe->n_rank;
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        mt_placement_write_numbers(&moe->planned[layer], moe->place_state + 1 + layer * stride);
        for (int e = 0; e < moe->n_expert; ++e) {
            moe->owner_state[1 + (int64_t)layer * moe->n_expert + e] = moe->planned[layer].owner[e];
        }
    }
    moe->owner_state[0] = moe->n_rank;
    mt_outlook_write_state(&moe->outlook, moe->n_rank);
}

/* Owners of a checkpoint: in range, and no rank above its capacity. */
static bool are_owners_possible(struct mt_moe *moe)
{
    const int capacity = mt_store_capacity(moe->store);
    memset(moe->load, 0, (size_t)moe->n_rank * sizeof(*moe->load));
    for (int layer = moe->first_layer; layer < moe->n_layer; ++layer) {
        for (int e = 0; e < moe->n_expert; ++e) {
            const int64_t owner = moe->owner_state[1 + (int64_t)layer * moe->n_expert + e];
            if (owner < 0 || owner >= moe->n_rank || ++moe->load[owner] > capacity) {
                return false;
            }
            moe->owner[(int64_t)layer * moe->n_expert + e] = (int)owner;
        }
    }
    return true;
}

/* Steps of a history that came from a file; none of one that has negative rows. */
static int n_step_of(const struct mt_history *history, int64_t n_step)
{
    const int64_t n = (int64_t)history->n_layer * history->window * history->n_expert;
    for (int64_t i = 0; i < n; ++i) {
        if (history->count[i] < 0) {
            return 0;
        }
    }
    return (int)mt_min_i64(mt_max_i64(n_step, 0), history->window);
}

enum mt_status mt_moe_read_state(struct mt_moe *moe)
{
    const int64_t stride = 1 + (int64_t)moe->planned[moe->first_layer].max_instance;
    moe->history.n_step = n_step_of(&moe->history, moe->history_step);
    moe->recent.n_step = n_step_of(&moe->recent, moe->recent_step);
    mt_outlook_read_state(&moe->outlook, moe->n_rank);
    if (moe->owner_state[0] != moe->n_rank || !are_owners_possible(moe)) {
        return MT_OK; /* another number of ranks: owners and placements start anew */
    }
    if (mt_store_is_cut(moe->store) && count_moves(moe) > 0) {
        return MT_OK; /* homes are where they are, whatever other policies did */
    }
    MT_TRY(move_owners(moe));
    for (int layer = moe->first_layer; layer < moe->n_layer && moe->place_state[0] == moe->n_rank;
         ++layer) {
        mt_placement_read_numbers(&moe->planned[layer], moe->place_state + 1 + layer * stride,
                                  moe->n_slot, moe->load);
    }
    return MT_OK;
}
