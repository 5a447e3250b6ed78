/* Rows on their way to experts and back: split, route, pack, exchange, permute - slice by slice.
 *
 *   forward    near --wide--> far:    row and weight          far --narrow--> near: weighted output
 *   backward   near --narrow--> far:  gradient of output      far --wide--> near: gradients of both
 *
 * `near` holds all rows that start here, slice after slice, `far` one slice of those computed here.
 * Rows that are computed where they start skip both, as long as there is one slice (moe/route.h):
 * gathered from x straight to where the experts read, and summed from where they write.
 * Answers take the place of what was sent. Forward goes through the slices upwards and backward
 * downwards, because an answer is narrower than what was sent in forward and wider in backward: so
 * it never reaches into a slice that has yet to be sent. */
#include "base/size.h"
#include "moe/context.h"

enum direction { TO_EXPERTS, TO_TOKENS };

/* Starts the exchange of one slice's blocks between `near` and moe->far; a row takes row_floats. */
static enum mt_status exchange_begin(struct mt_moe *moe, const struct mt_route *route, int slice,
                                     enum direction direction, float *near, int64_t row_floats)
{
    float *own = near + route->send_start[slice] * row_floats;
    const bool is_back = direction == TO_TOKENS;
    mt_device_settle(moe->device);
    return mt_carrier_begin(&moe->carrier, route, slice, is_back, row_floats > moe->width,
                            is_back ? moe->far : own, is_back ? own : moe->far);
}

static enum mt_status exchange_end(struct mt_moe *moe)
{
    mt_device_settle(moe->device);
    return mt_carrier_end(&moe->carrier);
}

static void look_ahead(struct mt_moe *moe, int layer)
{
    mt_outlook_shadow(&moe->outlook, layer, moe->count);
    if (!moe->is_last_micro && moe->rematerialize) {
        return; /* the last stands for all */
    }
    const struct mt_predict_options how = {.rematerialize = moe->rematerialize,
                                           .cuts_experts = moe->policy->cuts_experts,
                                           .is_followed = !moe->is_last_micro,
                                           .held = moe->has_stayed ? &moe->stayed : NULL};
    mt_outlook_add(&moe->outlook, &moe->cluster, layer, &moe->placement[layer], moe->quota, &how,
                   &moe->scratch);
}

/* Rows of the first slice, which forward keeps. */
static int64_t kept_rows(const struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    return mt_min_i64(saved->route->n_row, moe->slice_rows);
}

enum mt_status mt_moe_route(struct mt_moe *moe, int layer, struct mt_arena *arena,
                            struct mt_moe_saved *saved, bool is_kept)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_placement *placement = &moe->placement[layer];
    mt_split(moe->policy->split, &moe->cluster, placement, moe->count, &moe->scratch, moe->quota);
    if (is_kept && !moe->balance.is_counting) {
        mt_split_load(placement, moe->quota, moe->load);
        mt_tally_add_load(&moe->tally, moe->load);
        look_ahead(moe, layer);
    }
    const struct mt_route_input input = {.rank = moe->comm->rank,
                                         .width = moe->width,
                                         .slice_rows = moe->slice_rows,
                                         .own_offset = moe->rows - moe->near,
                                         .own_weight_offset = moe->d_row_weight - moe->near,
                                         .placement = placement,
                                         .quota = moe->quota,
                                         .expert = saved->expert,
                                         .n_choice = saved->n * moe->top_k};
    saved->route = mt_route_build(&input, arena);
    MT_TRY(mt_carrier_choose(&moe->carrier, &moe->cluster, saved->route, &input, arena));
    const int64_t n_row = kept_rows(moe, saved);
    saved->rows.x = mt_moe_cut_floats(arena, n_row * moe->width);
    saved->rows.weight = mt_moe_cut_floats(arena, n_row);
    saved->kept_mark = mt_arena_mark(arena);
    mt_moe_cut_inner(moe, arena, saved);
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

void mt_moe_cut_inner(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved)
{
    const int64_t n_row = kept_rows(moe, saved);
    saved->rows.gate = mt_moe_cut_floats(arena, n_row * moe->inner);
    saved->rows.up = mt_moe_cut_floats(arena, n_row * moe->inner);
    saved->shared_gate = mt_moe_cut_floats(arena, saved->n * moe->shared_inner);
    saved->shared_up = mt_moe_cut_floats(arena, saved->n * moe->shared_inner);
}

struct mt_moe_rows mt_moe_cut_rows(const struct mt_moe *moe, struct mt_arena *arena, int64_t n_row)
{
    return (struct mt_moe_rows){.x = mt_moe_cut_floats(arena, n_row * moe->width),
                                .weight = mt_moe_cut_floats(arena, n_row),
                                .gate = mt_moe_cut_floats(arena, n_row * moe->inner),
                                .up = mt_moe_cut_floats(arena, n_row * moe->inner)};
}

void mt_moe_pack_rows(struct mt_moe *moe, float *near, const float *x,
                      const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_route *route = saved->route;
    int64_t *token = moe->row_token;
    int64_t *choice = moe->row_choice;
    for (int64_t c = 0; c < route->n_choice; ++c) {
        const bool is_here = route->keeps_own && route->send_narrow[c] >= route->own_offset;
        token[c] = is_here ? -1 : moe->token_offset[c];
        choice[c] = is_here ? -1 : c;
    }
    mt_rows_copy(moe->device, near, route->send_wide, x, token, route->n_choice, moe->width);
    mt_rows_copy(moe->device, near, route->send_weight, saved->weight, choice, route->n_choice, 1);
    mt_span_end(MT_PHASE_DISPATCH);
}

/* The rows that did not travel: from x [N,D] and its weights. */
static void gather_own(struct mt_moe *moe, const struct mt_moe_saved *saved,
                       const struct mt_moe_rows *rows)
{
    const struct mt_route *route = saved->route;
    int64_t *token = moe->row_token;
    int64_t *choice = moe->row_choice;
    mt_route_own_choices(route, choice);
    for (int64_t r = 0; r < route->n_row; ++r) {
        token[r] = choice[r] < 0 ? -1 : moe->token_offset[choice[r]];
    }
    mt_rows_copy(moe->device, rows->x, NULL, saved->x, token, route->n_row, moe->width);
    mt_rows_copy(moe->device, rows->weight, NULL, saved->weight, choice, route->n_row, 1);
}

enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, const struct mt_route *route, int slice,
                                     float *near)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    MT_TRY(exchange_begin(moe, route, slice, TO_EXPERTS, near, moe->width + 1));
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, const struct mt_moe_saved *saved, int slice,
                                   const struct mt_moe_rows *rows)
{
    const struct mt_route *route = saved->route;
    struct mt_arrivals *arrivals = &moe->arrivals;
    mt_span_begin(MT_PHASE_DISPATCH);
    mt_route_arrivals(route, slice, arrivals);
    if (route->keeps_own) {
        gather_own(moe, saved, rows); /* while the others travel */
    }
    MT_TRY(exchange_end(moe));
    mt_rows_copy(moe->device, rows->x, NULL, moe->far, arrivals->wide, arrivals->n_row, moe->width);
    mt_rows_copy(moe->device, rows->weight, NULL, moe->far, arrivals->weight, arrivals->n_row, 1);
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_combine_slice(struct mt_moe *moe, const struct mt_route *route, int slice)
{
    const struct mt_arrivals *arrivals = &moe->arrivals;
    mt_span_begin(MT_PHASE_COMBINE);
    mt_rows_copy(moe->device, moe->far, arrivals->narrow, moe->rows, NULL, arrivals->n_row,
                 moe->width);
    MT_TRY(exchange_begin(moe, route, slice, TO_TOKENS, moe->near, moe->width));
    MT_TRY(exchange_end(moe));
    mt_span_end(MT_PHASE_COMBINE);
    return MT_OK;
}

void mt_moe_combine(struct mt_moe *moe, float *out, const struct mt_moe_saved *saved,
                    bool accumulate)
{
    mt_span_begin(MT_PHASE_COMBINE);
    const struct mt_rows_combine args = {.out = out,
                                         .in = moe->near,
                                         .in_offset = saved->route->send_narrow,
                                         .n_choice = moe->top_k,
                                         .width = moe->width,
                                         .accumulate = accumulate};
    mt_rows_combine(moe->device, &args, saved->n);
    mt_span_end(MT_PHASE_COMBINE);
}

void mt_moe_pack_gradients(struct mt_moe *moe, const float *d_out, const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    const struct mt_route *route = saved->route;
    mt_rows_copy(moe->device, moe->near, route->send_narrow, d_out, moe->token_offset,
                 route->n_choice, moe->width);
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
}

enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, const struct mt_route *route,
                                             int slice)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    MT_TRY(exchange_begin(moe, route, slice, TO_EXPERTS, moe->near, moe->width));
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, const struct mt_route *route,
                                           int slice)
{
    struct mt_arrivals *arrivals = &moe->arrivals;
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    mt_route_arrivals(route, slice, arrivals);
    MT_TRY(exchange_end(moe));
    mt_rows_copy(moe->device, moe->rows, NULL, moe->far, arrivals->narrow, arrivals->n_row,
                 moe->width);
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_backward_slice(struct mt_moe *moe, const struct mt_route *route,
                                              int slice)
{
    const struct mt_arrivals *arrivals = &moe->arrivals;
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
    mt_rows_copy(moe->device, moe->far, arrivals->wide, moe->rows, NULL, arrivals->n_row,
                 moe->width);
    mt_rows_copy(moe->device, moe->far, arrivals->weight, moe->d_row_weight, NULL, arrivals->n_row,
                 1);
    MT_TRY(exchange_begin(moe, route, slice, TO_TOKENS, moe->near, moe->width + 1));
    MT_TRY(exchange_end(moe));
    mt_span_end(MT_PHASE_DISPATCH_BACKWARD);
    return MT_OK;
}

void mt_moe_dispatch_backward(struct mt_moe *moe, float *d_x, const struct mt_moe_saved *saved,
                              bool accumulate)
{
    const struct mt_route *route = saved->route;
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
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
}
