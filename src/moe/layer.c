/* One Mixture-of-Experts layer of a half of a micro-batch, forward and backward: the picture of
 * moe.h, a stage a line. What a stage leaves travelling, the next one waits for. */
#include "moe/context.h"

/* The rows of one slice, to the experts and their outputs back, of which the last slice's go on
 * travelling. The first slice's rows are kept for backward; the others' are not, so that memory is
 * bounded: backward fetches them again. */
static enum mt_status compute_slice(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                    int slice)
{
    const int64_t mark = mt_arena_mark(half->arena);
    const struct mt_moe_rows rows =
        slice == 0 ? half->saved->rows : mt_moe_cut_rows(moe, half->arena, moe->slice_rows);
    if (slice > 0) {
        MT_TRY(mt_moe_combine_end(moe, half));
        MT_TRY(mt_moe_dispatch_begin(moe, half, slice, half->near));
    }
    MT_TRY(mt_moe_dispatch_end(moe, half, slice, &rows));
    MT_TRY(mt_moe_experts_forward(moe, layer, half, &rows));
    MT_TRY(mt_moe_combine_begin(moe, half, slice));
    mt_arena_release(half->arena, mark);
    return MT_OK;
}

enum mt_status mt_moe_forward_begin(struct mt_moe *moe, int layer, int index,
                                    const struct mt_moe_forward *args)
{
    MT_ASSERT(layer >= moe->first_layer && layer < moe->n_layer);
    MT_ASSERT(index >= 0 && index < moe->n_half && args->n >= 0 && args->n <= moe->max_token);
    struct mt_moe_half *half = &moe->half[index];
    half->arena = args->arena;
    half->mark = mt_arena_mark(args->arena);
    half->plans_mark = mt_arena_mark(&half->plans);
    half->is_kept = args->saved != NULL;
    half->result = args->out;
    half->saved = half->is_kept ? args->saved : &half->scratch;
    *half->saved = (struct mt_moe_saved){.n = args->n, .x = args->x};

    MT_TRY(mt_moe_gate_begin(moe, layer, half));
    MT_TRY(mt_moe_shared_aside(moe, layer, half));
    MT_TRY(mt_moe_gate_end(moe, layer, half));
    MT_TRY(mt_moe_correct(moe, layer, half));
    MT_TRY(mt_moe_route(moe, layer, half));
    mt_moe_pack_rows(moe, half->near, half->saved);
    MT_TRY(mt_moe_dispatch_begin(moe, half, 0, half->near));
    MT_TRY(mt_store_materialize_late_begin(moe->store, layer, &moe->placement[layer]));
    return mt_moe_shared_forward(moe, layer, args->out, half->saved);
}

enum mt_status mt_moe_forward_experts(struct mt_moe *moe, int layer, int index)
{
    struct mt_moe_half *half = &moe->half[index];
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    mt_moe_shared_join(moe);
    if (moe->waits_for_late && mt_moe_is_last_half(moe, half)) {
        MT_TRY(mt_moe_end_late(moe, layer));
    }
    for (int slice = 0; slice < half->saved->route->n_slice; ++slice) {
        MT_TRY(compute_slice(moe, layer, half, slice));
    }
    if (half->is_kept && moe->recompute) {
        mt_arena_release(half->arena, half->saved->kept_mark);
    }
    return mt_moe_is_last_half(moe, half) ? mt_moe_end_forward(moe, layer, half->is_kept) : MT_OK;
}

enum mt_status mt_moe_forward_end(struct mt_moe *moe, int index)
{
    struct mt_moe_half *half = &moe->half[index];
    MT_TRY(mt_moe_combine_end(moe, half));
    mt_moe_combine(moe, half, moe->shared_inner > 0);
    if (!half->is_kept) {
        mt_arena_release(half->arena, half->mark);
        mt_arena_release(&half->plans, half->plans_mark);
    }
    return MT_OK;
}

/* With one slice the gradients of its outputs are on their way already. */
static enum mt_status compute_slice_backward(struct mt_moe *moe, int layer,
                                             struct mt_moe_half *half, int slice)
{
    const int n_slice = half->saved->route->n_slice;
    const int64_t mark = mt_arena_mark(half->arena);
    struct mt_moe_rows rows = half->saved->rows;
    if (slice < n_slice - 1) {
        MT_TRY(mt_moe_dispatch_backward_end(moe, half));
    }
    if (slice > 0) {
        rows = mt_moe_cut_rows(moe, half->arena, moe->slice_rows);
        MT_TRY(mt_moe_dispatch_begin(moe, half, slice, moe->again));
        MT_TRY(mt_moe_dispatch_end(moe, half, slice, &rows));
    }
    if (n_slice > 1) {
        MT_TRY(mt_moe_combine_backward_begin(moe, half, slice));
    }
    MT_TRY(mt_moe_combine_backward_end(moe, half, slice));
    if (slice > 0 || moe->recompute) {
        MT_TRY(mt_moe_experts_again(moe, layer, half, &rows));
    }
    MT_TRY(mt_moe_experts_backward(moe, layer, half, &rows));
    MT_TRY(mt_moe_dispatch_backward_begin(moe, half, slice));
    MT_TRY(mt_moe_experts_backward_rest(moe, layer, half, &rows));
    mt_arena_release(half->arena, mark);
    return MT_OK;
}

enum mt_status mt_moe_backward_begin(struct mt_moe *moe, int layer, int index,
                                     const struct mt_moe_backward *args)
{
    MT_ASSERT(moe->training && layer >= moe->first_layer && layer < moe->n_layer);
    MT_ASSERT(index >= 0 && index < moe->n_half);
    struct mt_moe_half *half = &moe->half[index];
    half->arena = args->arena;
    half->mark = mt_arena_mark(args->arena);
    half->is_kept = true;
    half->result = args->d_x;
    half->scratch = *args->saved;
    half->saved = &half->scratch;
    if (moe->recompute) {
        mt_moe_cut_inner(moe, half->arena, half->saved);
        mt_moe_cut_shared(moe, half->arena, half->saved);
    }
    mt_moe_pack_gradients(moe, half, args->d_out);
    if (half->saved->route->n_slice == 1) {
        MT_TRY(mt_moe_combine_backward_begin(moe, half, 0));
    }
    return mt_moe_shared_backward(moe, layer, args->d_x, args->d_out, half->saved);
}

enum mt_status mt_moe_backward_experts(struct mt_moe *moe, int layer, int index)
{
    struct mt_moe_half *half = &moe->half[index];
    const int n_slice = half->saved->route->n_slice;
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    if (n_slice > 1) {
        mt_moe_pack_rows(moe, moe->again, half->saved);
    }
    for (int slice = n_slice - 1; slice >= 0; --slice) {
        MT_TRY(compute_slice_backward(moe, layer, half, slice));
    }
    mt_arena_release(half->arena, half->mark);
    return mt_moe_is_last_half(moe, half) ? mt_moe_begin_reduce(moe, layer) : MT_OK;
}

enum mt_status mt_moe_backward_end(struct mt_moe *moe, int layer, int index, double token_share)
{
    struct mt_moe_half *half = &moe->half[index];
    MT_TRY(mt_moe_dispatch_backward_end(moe, half));
    mt_moe_dispatch_backward(moe, half, moe->shared_inner > 0);
    return mt_moe_gate_backward(moe, layer, half, token_share);
}
