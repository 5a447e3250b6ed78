/* One Mixture-of-Experts layer, forward and backward: the picture of moe.h, a stage a line. */
#include "moe/context.h"

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

    MT_TRY(mt_store_materialize_begin(moe->store, layer, &moe->placement[layer]));
    MT_TRY(mt_moe_gate_forward(moe, layer, x, arena, kept, is_kept));
    mt_moe_route(moe, layer, arena, kept, is_kept);
    MT_TRY(mt_moe_dispatch_begin(moe, x, kept));
    MT_TRY(mt_moe_shared_forward(moe, layer, out, x, kept)); /* while rows travel */
    MT_TRY(mt_moe_dispatch_end(moe, kept));
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    MT_TRY(mt_moe_experts_forward(moe, layer, kept));
    MT_TRY(mt_moe_combine(moe, out, kept, has_shared));
    mt_store_drop_copies(moe->store, layer);

    if (!is_kept) {
        mt_arena_release(arena, mark);
    } else if (moe->recompute) {
        mt_arena_release(arena, kept->kept_mark);
    }
    return MT_OK;
}

enum mt_status mt_moe_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                               const struct mt_moe_saved *saved, double token_share,
                               struct mt_arena *arena)
{
    MT_ASSERT(moe->training && layer >= moe->first_layer && layer < moe->n_layer);
    const bool has_shared = moe->shared_inner > 0;
    const int64_t mark = mt_arena_mark(arena);
    float *d_row_weight = mt_moe_cut_floats(arena, saved->route->n_row);
    struct mt_moe_saved again; /* the same with gate and up anew */
    if (moe->recompute) {
        again = *saved;
        mt_moe_cut_inner(moe, arena, &again);
        saved = &again;
    }

    MT_TRY(mt_store_materialize_begin(moe->store, layer, &moe->placement[layer]));
    MT_TRY(mt_moe_combine_backward_begin(moe, d_out, saved));
    MT_TRY(mt_moe_shared_backward(moe, layer, d_x, d_out, saved)); /* while gradients travel */
    MT_TRY(mt_moe_combine_backward_end(moe, saved));
    MT_TRY(mt_store_materialize_end(moe->store, layer));
    MT_TRY(mt_moe_experts_backward(moe, layer, d_row_weight, saved));
    MT_TRY(mt_store_reduce_experts_begin(moe->store, layer));
    MT_TRY(mt_moe_dispatch_backward(moe, d_x, d_row_weight, saved, has_shared));
    MT_TRY(mt_moe_gate_backward(moe, layer, d_x, saved, token_share));
    MT_TRY(mt_store_reduce_experts_end(moe->store, layer));

    mt_arena_release(arena, mark);
    return MT_OK;
}
