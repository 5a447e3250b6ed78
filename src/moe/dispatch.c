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
#include "device/memory.h"
#include "moe/context.h"

enum direction { TO_EXPERTS, TO_TOKENS };

/* Offsets are made by the host; operations read them on the device. */
static const int64_t *lend(const struct mt_moe *moe, const int64_t *offset, int64_t n)
{
    return mt_device_lend(moe->device, offset, n * (int64_t)sizeof(*offset));
}

/* Starts the exchange of one slice's blocks between `near` and half->far; a row takes row_floats.
 */
static enum mt_status exchange_begin(struct mt_moe *moe, struct mt_moe_half *half, int slice,
                                     enum direction direction, float *near, int64_t row_floats)
{
    const struct mt_route *route = half->saved->route;
    float *own = near + route->send_start[slice] * row_floats;
    const bool is_back = direction == TO_TOKENS;
    mt_device_settle(moe->device);
    return mt_carrier_begin(&half->carrier, route, slice, is_back, row_floats > moe->width,
                            is_back ? half->far : own, is_back ? own : half->far);
}

static enum mt_status exchange_end(struct mt_moe *moe, struct mt_moe_half *half)
{
    mt_device_settle(moe->device);
    return mt_carrier_end(&half->carrier);
}

/* For the whole micro-batch, of which `half` is the last: moe->quota is its own afterwards. */
static void look_ahead(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    const struct mt_placement *placement = &moe->placement[layer];
    const struct mt_predict_options how = {.rematerialize = moe->rematerialize,
                                           .cuts_experts = moe->policy->cuts_experts,
                                           .is_followed = !moe->is_last_micro,
                                           .held = moe->has_stayed ? &moe->stayed : NULL};
    mt_outlook_shadow(&moe->outlook, layer, moe->seen.count);
    if (mt_outlook_passes(&moe->outlook, &how)) {
        mt_outlook_pass(&moe->outlook, layer, moe->n_expert,
                        moe->micro_count + (int64_t)layer * moe->n_expert);
        return;
    }
    if (!mt_moe_is_first_half(moe, half)) {
        mt_split(mt_policy_split(moe->policy, moe->split), &moe->cluster, placement,
                 moe->seen.count, &moe->scratch, moe->quota);
    }
    mt_outlook_add(&moe->outlook, &moe->cluster, layer, placement, moe->quota, &how, &moe->scratch);
}

/* Rows of the first slice, which forward keeps. */
static int64_t kept_rows(const struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    return mt_min_i64(saved->route->n_row, moe->slice_rows);
}

static void record(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    if (!half->is_kept || moe->balance.is_counting) {
        return;
    }
    mt_split_load(&moe->placement[layer], moe->quota, moe->load);
    mt_tally_add_load(&moe->tally, moe->load);
    if (mt_moe_is_last_half(moe, half)) {
        look_ahead(moe, layer, half);
    }
}

enum mt_status mt_moe_route(struct mt_moe *moe, int layer, struct mt_moe_half *half)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    const struct mt_placement *placement = &moe->placement[layer];
    struct mt_moe_saved *saved = half->saved;
    mt_split(mt_policy_split(moe->policy, moe->split), &moe->cluster, placement, moe->count,
             &moe->scratch, moe->quota);
    const struct mt_route_input input = {.rank = moe->comm->rank,
                                         .width = moe->width,
                                         .slice_rows = moe->slice_rows,
                                         .own_offset = half->rows - half->near,
                                         .own_weight_offset = half->d_row_weight - half->near,
                                         .placement = placement,
                                         .quota = moe->quota,
                                         .expert = mt_moe_choices(moe, saved),
                                         .n_choice = saved->n * moe->top_k};
    saved->route = mt_route_build(&input, &half->plans);
    MT_TRY(mt_carrier_choose(&half->carrier, &moe->cluster, saved->route, &input, &half->plans));
    const int64_t n_row = kept_rows(moe, saved);
    saved->rows.x = mt_moe_cut_floats(half->arena, n_row * moe->width);
    saved->rows.weight = mt_moe_cut_floats(half->arena, n_row);
    saved->kept_mark = mt_arena_mark(half->arena);
    mt_moe_cut_inner(moe, half->arena, saved);
    if (!moe->is_shared_aside) {
        mt_moe_cut_shared(moe, half->arena, saved);
    }
#ifdef MT_CHECK_PLANS
    MT_TRY(mt_moe_check_plan(moe, layer));
#endif
    record(moe, layer, half);
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

void mt_moe_cut_inner(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved)
{
    const int64_t n_row = kept_rows(moe, saved);
    saved->rows.gate = mt_moe_cut_floats(arena, n_row * moe->inner);
    saved->rows.up = mt_moe_cut_floats(arena, n_row * moe->inner);
}

void mt_moe_cut_shared(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved)
{
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

void mt_moe_pack_rows(struct mt_moe *moe, float *near, const struct mt_moe_saved *saved)
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
    const int64_t n = route->n_choice;
    mt_rows_copy(moe->device, near, lend(moe, route->send_wide, n), saved->x, lend(moe, token, n),
                 n, moe->width);
    mt_rows_copy(moe->device, near, lend(moe, route->send_weight, n), saved->weight,
                 lend(moe, choice, n), n, 1);
    mt_span_add_work(route->n_choice, 0);
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
    const int64_t n = route->n_row;
    mt_rows_copy(moe->device, rows->x, NULL, saved->x, lend(moe, token, n), n, moe->width);
    mt_rows_copy(moe->device, rows->weight, NULL, saved->weight, lend(moe, choice, n), n, 1);
}

enum mt_status mt_moe_dispatch_begin(struct mt_moe *moe, struct mt_moe_half *half, int slice,
                                     float *near)
{
    mt_span_begin(MT_PHASE_DISPATCH);
    MT_TRY(exchange_begin(moe, half, slice, TO_EXPERTS, near, moe->width + 1));
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_end(struct mt_moe *moe, struct mt_moe_half *half, int slice,
                                   const struct mt_moe_rows *rows)
{
    const struct mt_route *route = half->saved->route;
    struct mt_arrivals *arrivals = &half->arrivals;
    mt_span_begin(MT_PHASE_DISPATCH);
    mt_route_arrivals(route, slice, arrivals);
    if (route->keeps_own) {
        gather_own(moe, half->saved, rows); /* while the others travel */
    }
    MT_TRY(exchange_end(moe, half));
    const int64_t n = arrivals->n_row;
    mt_rows_copy(moe->device, rows->x, NULL, half->far, lend(moe, arrivals->wide, n), n,
                 moe->width);
    mt_rows_copy(moe->device, rows->weight, NULL, half->far, lend(moe, arrivals->weight, n), n, 1);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_DISPATCH);
    return MT_OK;
}

enum mt_status mt_moe_combine_begin(struct mt_moe *moe, struct mt_moe_half *half, int slice)
{
    const struct mt_arrivals *arrivals = &half->arrivals;
    mt_span_begin(MT_PHASE_COMBINE);
    const int64_t n = arrivals->n_row;
    mt_rows_copy(moe->device, half->far, lend(moe, arrivals->narrow, n), half->rows, NULL, n,
                 moe->width);
    MT_TRY(exchange_begin(moe, half, slice, TO_TOKENS, half->near, moe->width));
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_COMBINE);
    return MT_OK;
}

enum mt_status mt_moe_combine_end(struct mt_moe *moe, struct mt_moe_half *half)
{
    mt_span_begin(MT_PHASE_COMBINE);
    MT_TRY(exchange_end(moe, half));
    mt_span_end(MT_PHASE_COMBINE);
    return MT_OK;
}

void mt_moe_combine(struct mt_moe *moe, struct mt_moe_half *half, bool accumulate)
{
    mt_span_begin(MT_PHASE_COMBINE);
    const struct mt_route *route = half->saved->route;
    const struct mt_rows_combine args = {.out = half->result,
                                         .in = half->near,
                                         .in_offset =
                                             lend(moe, route->send_narrow, route->n_choice),
                                         .n_choice = moe->top_k,
                                         .width = moe->width,
                                         .accumulate = accumulate};
    mt_rows_combine(moe->device, &args, half->saved->n);
    mt_span_add_work(route->n_choice, 0);
    mt_span_end(MT_PHASE_COMBINE);
}

void mt_moe_pack_gradients(struct mt_moe *moe, struct mt_moe_half *half, const float *d_out)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    const struct mt_route *route = half->saved->route;
    const int64_t n = route->n_choice;
    mt_rows_copy(moe->device, half->near, lend(moe, route->send_narrow, n), d_out,
                 lend(moe, moe->token_offset, n), n, moe->width);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
}

enum mt_status mt_moe_combine_backward_begin(struct mt_moe *moe, struct mt_moe_half *half,
                                             int slice)
{
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    MT_TRY(exchange_begin(moe, half, slice, TO_EXPERTS, half->near, moe->width));
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_combine_backward_end(struct mt_moe *moe, struct mt_moe_half *half, int slice)
{
    struct mt_arrivals *arrivals = &half->arrivals;
    mt_span_begin(MT_PHASE_COMBINE_BACKWARD);
    mt_route_arrivals(half->saved->route, slice, arrivals);
    MT_TRY(exchange_end(moe, half));
    const int64_t n = arrivals->n_row;
    mt_rows_copy(moe->device, half->rows, NULL, half->far, lend(moe, arrivals->narrow, n), n,
                 moe->width);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_COMBINE_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_backward_begin(struct mt_moe *moe, struct mt_moe_half *half,
                                              int slice)
{
    const struct mt_arrivals *arrivals = &half->arrivals;
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
    const int64_t n = arrivals->n_row;
    mt_rows_copy(moe->device, half->far, lend(moe, arrivals->wide, n), half->rows, NULL, n,
                 moe->width);
    mt_rows_copy(moe->device, half->far, lend(moe, arrivals->weight, n), half->d_row_weight, NULL,
                 n, 1);
    MT_TRY(exchange_begin(moe, half, slice, TO_TOKENS, half->near, moe->width + 1));
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_DISPATCH_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_dispatch_backward_end(struct mt_moe *moe, struct mt_moe_half *half)
{
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
    MT_TRY(exchange_end(moe, half));
    mt_span_end(MT_PHASE_DISPATCH_BACKWARD);
    return MT_OK;
}

void mt_moe_dispatch_backward(struct mt_moe *moe, struct mt_moe_half *half, bool accumulate)
{
    const struct mt_moe_saved *saved = half->saved;
    const struct mt_route *route = saved->route;
    mt_span_begin(MT_PHASE_DISPATCH_BACKWARD);
    const int64_t n = route->n_choice;
    const struct mt_rows_combine args = {.out = half->result,
                                         .in = half->near,
                                         .in_offset = lend(moe, route->send_wide, n),
                                         .n_choice = moe->top_k,
                                         .width = moe->width,
                                         .accumulate = accumulate};
    mt_rows_combine(moe->device, &args, saved->n);
    mt_rows_copy(moe->device, saved->d_weight, NULL, half->near, lend(moe, route->send_weight, n),
                 n, 1);
    mt_span_add_work(n, 0);
    mt_span_end(MT_PHASE_DISPATCH_BACKWARD);
}
