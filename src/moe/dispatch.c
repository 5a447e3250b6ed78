/* Rows on their way to experts and back: split, route, pack, exchange, permute.
 *
 *   forward    near --wide--> far:    row and weight          far --narrow--> near: weighted output
 *   backward   near --narrow--> far:  gradient of output      far --wide--> near: gradients of both
 */
#include "moe/context.h"

enum direction { TO_EXPERTS, TO_TOKENS };

/* Starts the exchange of all blocks; a row takes row_floats. */
static enum mt_status exchange_begin(struct mt_moe *moe, const struct mt_route *route,
                                     enum direction direction, int64_t row_floats)
{
    const int64_t row_bytes = row_floats * (int64_t)sizeof(float);
    const bool is_outward = direction == TO_EXPERTS;
    const int64_t *send = is_outward ? route->send_count : route->recv_count;
    const int64_t *recv = is_outward ? route->recv_count : route->send_count;
    for (int r = 0; r < moe->n_rank; ++r) {
        moe->send_bytes[r] = send[r] * row_bytes;
        moe->recv_bytes[r] = recv[r] * row_bytes;
    }
    mt_plan_alltoallv_direct(&moe->plan, &moe->comm->topology, moe->comm->rank, moe->send_bytes,
                             moe->recv_bytes);
    void *const buffer[MT_N_BUFFER] = {[MT_BUFFER_SEND] = is_outward ? moe->near : moe->far,
                                       [MT_BUFFER_RECV] = is_outward ? moe->far : moe->near};
    mt_device_settle(moe->device);
    return mt_exec_begin(moe->exec, &moe->plan, buffer);
}

static enum mt_status exchange_end(struct mt_moe *moe)
{
    mt_device_settle(moe->device);
    return mt_exec_end(moe->exec);
}

void mt_moe_route(struct mt_moe *moe, int layer, struct mt_arena *arena, struct mt_moe_saved *saved,
                  bool is_kept)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_placement *placement = &moe->placement[layer];
    mt_split(moe->policy->split, &moe->cluster, placement, moe->count, &moe->scratch, moe->quota);
    if (is_kept && !moe->balance.is_counting) {
        mt_split_load(placement, moe->quota, moe->load);
        mt_tally_add_load(&moe->tally, moe->load);
    }
    const struct mt_route_input input = {.rank = moe->comm->rank,
                                         .width = moe->width,
                                         .placement = placement,
                                         .quota = moe->quota,
                                         .expert = saved->expert,
                                         .n_choice = saved->n * moe->top_k};
    saved->route = mt_route_build(&input, arena);
    const int64_t n_row = saved->route->n_row;
    MT_ASSERT(n_row <= moe->max_row);
    saved->rows = mt_moe_cut_floats(arena, n_row * moe->width);
    saved->row_weight = mt_moe_cut_floats(arena, n_row);
    saved->kept_mark = mt_arena_mark(arena);
    mt_moe_cut_inner(moe, arena, saved);
    mt_span_end(MT_PHASE_DISPATCH);
}

enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, const float *x,
                                     const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_route *route = saved->route;
    mt_rows_copy(moe->device, moe->near, route->send_wide, x, moe->token_offset, route->n_choice,
                 moe->width);
    mt_rows_copy(moe->device, moe->near, route->send_weight, saved->weight, NULL, route->n_choice,
                 1);
    MT_TRY(exchange_begin(moe, route, TO_EXPERTS, moe->width + 1));
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_route *route = saved->route;
    MT_TRY(exchange_end(moe));
    mt_rows_copy(moe->device, saved->rows, NULL, moe->far, route->recv_wide, route->n_row,
                 moe->width);
    mt_rows_copy(moe->device, saved->row_weight, NULL, moe->far, route->recv_weight, route->n_row,
                 1);
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_combine(struct mt_moe *moe, float *out, const struct mt_moe_saved *saved,
                              bool accumulate)
{
    mt_span_begin(MT_PHASE_COMBINE);
    const struct mt_route *route = saved->route;
    mt_rows_copy(moe->device, moe->far, route->recv_narrow, moe->rows, NULL, route->n_row,
                 moe->width);
    MT_TRY(exchange_begin(moe, route, TO_TOKENS, moe->width));
    MT_TRY(exchange_end(moe));
    const struct mt_rows_combine args = {.out = out,
                                         .in = moe->near,
                                         .in_offset = route->send_narrow,
                                         .n_choice = moe->top_k,
                                         .width = moe->width,
                                         .accumulate = accumulate};
    mt_rows_combine(moe->device, &args, saved->n);
    mt_span_end(MT_PHASE_COMBINE);
    return MT_OK;
}

enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, const float *d_out,
                                             const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    const struct mt_route *route = saved->route;
    mt_rows_copy(moe->device, moe->near, route->send_narrow, d_out, moe->token_offset,
                 route->n_choice, moe->width);
    MT_TRY(exchange_begin(moe, route, TO_EXPERTS, moe->width));
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    const struct mt_route *route = saved->route;
    MT_TRY(exchange_end(moe));
    mt_rows_copy(moe->device, moe->rows, NULL, moe->far, route->recv_narrow, route->n_row,
                 moe->width);
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_backward(struct mt_moe *moe, float *d_x, const float *d_row_weight,
                                        const struct mt_moe_saved *saved, bool accumulate)
{
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
    const struct mt_route *route = saved->route;
    mt_rows_copy(moe->device, moe->far, route->recv_wide, moe->rows, NULL, route->n_row,
                 moe->width);
    mt_rows_copy(moe->device, moe->far, route->recv_weight, d_row_weight, NULL, route->n_row, 1);
    MT_TRY(exchange_begin(moe, route, TO_TOKENS, moe->width + 1));
    MT_TRY(exchange_end(moe));
    const struct mt_rows_combine args = {.out = d_x,
                                         .in = moe->near,
                                         .in_offset = route->send_wide,
                                         .n_choice = moe->top_k,
                                         .width = moe->width,
                                         .accumulate = accumulate};
    mt_rows_combine(moe->device, &args, saved->n);
    mt_rows_copy(moe->device, saved->d_weight, NULL, moe->near, route->send_weight, route->n_choice,
                 1);
    mt_span_end(MT_PHASE_DISPATCH_BACKWARD);
    return MT_OK;
}
