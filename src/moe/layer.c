/* One Mixture-of-Experts layer, forward and backward: the picture of moe.h, a stage a line. */
#include "moe/context.h"

/* The rows of one slice, to the experts and their outputs back. The first slice's rows are kept for
 * backward; the others' are not, so that memory is bounded: backward fetches them again. */
static enum mt_status compute_slice(struct mt_moe *moe, int layer, int slice,
                                    const struct mt_moe_saved *saved, struct mt_arena *arena)
{
    const struct mt_route *route = saved->route;
    const int64_t mark = mt_arena_mark(arena);
    const struct mt_moe_rows rows =
        slice == 0 ? saved->rows : mt_moe_cut_rows(moe, arena, moe->slice_rows);
    if (slice > 0) {
        MT_TRY(mt_moe_dispatch_begin(moe, route, slice, moe->near));
    }
    MT_TRY(mt_moe_dispatch_end(moe, saved, slice, &rows));
    MT_TRY(mt_moe_experts_forward(moe, layer, route, &rows));
    MT_TRY(mt_moe_combine_slice(moe, route, slice));
    mt_arena_release(arena, mark);
    return MT_OK;
}

enum mt_status mt_moe_forward(struct mt_moe *moe, int layer, float *out, const float *x, int64_t n,
                              struct mt_arena *arena, struct mt_moe_saved *saved)
{
    MT_ASSERT(layer >= moe->first_layer && layer < moe->n_layer);
    MT_ASSERT(n >= 0 && n <= moe->max_token);
    const bool is_kept = saved != NULL;
    const bool has_shared = moe->shared_inner > 0;
    const int64_t mark = mt_arena_mark(arena);
    struct mt_moe_saved scratch;
    struct mt_moe_saved *kept = is_kept ? saved : &scratch;
    *kept = (struct mt_moe_saved){.n = n, .x = x};

    MT_TRY(mt_moe_gate_forward(moe, layer, x, arena, kept, is_kept));
    mt_moe_correct(moe, layer);
    MT_TRY(mt_moe_route(moe, layer, arena, kept, is_kept));
#ifdef MT_CHECK_PLANS
    MT_TRY(mt_moe_check_plan(moe, layer));
#endif
    mt_moe_pack_rows(moe, moe->near, x, kept);
    MT_TRY(mt_moe_dispatch_begin(moe, kept->route, 0, moe->near));
    MT_TRY(mt_store_materialize_late_begin(moe->store, layer, &moe->placement[layer]));
    MT_TRY(mt_moe_shared_forward(moe, layer, out, x, kept)); /* while rows travel */
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    if (moe->waits_for_late) {
        MT_TRY(mt_moe_end_late(moe, layer));
    }
    for (int slice = 0; slice < kept->route->n_slice; ++slice) {
        MT_TRY(compute_slice(moe, layer, slice, kept, arena));
    }
    mt_moe_combine(moe, out, kept, has_shared);
    MT_TRY(mt_moe_end_forward(moe, layer, is_kept));

    if (!is_kept) {
        mt_arena_release(arena, mark);
    } else if (moe->recompute) {
        mt_arena_release(arena, kept->kept_mark);
    }
    return MT_OK;
}

/* With one slice the gradients of its outputs are on their way already. */
static enum mt_status compute_slice_backward(struct mt_moe *moe, int layer, int slice,
                                             const struct mt_moe_saved *saved,
                                             struct mt_arena *arena)
{
    const struct mt_route *route = saved->route;
    const int64_t mark = mt_arena_mark(arena);
    struct mt_moe_rows rows = saved->rows;
    if (slice > 0) {
        rows = mt_moe_cut_rows(moe, arena, moe->slice_rows);
        MT_TRY(mt_moe_dispatch_begin(moe, route, slice, moe->again));
        MT_TRY(mt_moe_dispatch_end(moe, saved, slice, &rows));
    }
    if (route->n_slice > 1) {
        MT_TRY(mt_moe_combine_backward_begin(moe, route, slice));
    }
    MT_TRY(mt_moe_combine_backward_end(moe, route, slice));
    if (slice > 0 || moe->recompute) {
        MT_TRY(mt_moe_experts_again(moe, layer, route, &rows));
    }
    MT_TRY(mt_moe_experts_backward(moe, layer, route, &rows));
    MT_TRY(mt_moe_dispatch_backward_slice(moe, route, slice));
    mt_arena_release(arena, mark);
    return MT_OK;
}

enum mt_status mt_moe_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                               const struct mt_moe_saved *saved, double token_share,
                               struct mt_arena *arena)
{
    MT_ASSERT(moe->training && layer >= moe->first_layer && layer < moe->n_layer);
    const bool has_shared = moe->shared_inner > 0;
    const int n_slice = saved->route->n_slice;
    const int64_t mark = mt_arena_mark(arena);
    struct mt_moe_saved again = *saved; /* with gate and up anew, when they were not kept */
    if (moe->recompute) {
        mt_moe_cut_inner(moe, arena, &again);
    }

    mt_moe_pack_gradients(moe, d_out, saved);
    if (n_slice == 1) {
        MT_TRY(mt_moe_combine_backward_begin(moe, saved->route, 0));
    } else {
        mt_moe_pack_rows(moe, moe->again, saved->x, saved);
    }
    MT_TRY(mt_moe_shared_backward(moe, layer, d_x, d_out, &again)); /* while gradients travel */
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    for (int slice = n_slice - 1; slice >= 0; --slice) {
        MT_TRY(compute_slice_backward(moe, layer, slice, &again, arena));
    }
    MT_TRY(mt_moe_begin_reduce(moe, layer));
    mt_arena_release(arena, mark);
    mt_moe_dispatch_backward(moe, d_x, saved, has_shared);
    return mt_moe_gate_backward(moe, layer, d_x, saved, token_share);
}
