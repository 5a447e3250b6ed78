/* The experts of this rank on the rows that came here, one group an instance (mt_expert_forward).
 *
 *   act = silu(x W_gate^T) * (x W_up^T) * row_weight        y = act W_down^T
 *
 * The weight comes before the down product, so that its gradient is a product of activations and no
 * expert's output need be kept. */
#include "moe/context.h"

enum { GATE, UP, DOWN };

/* Some groups of the slice that arrived: [first, end) of the arrivals. */
struct part {
    struct mt_groups groups;
    const struct mt_weight *const *weight[MT_EXPERT_MATRICES];
    float *const *weight_grad[MT_EXPERT_MATRICES];
};

/* Groups of the arrivals, and the products that they are for. */
struct wanted {
    int first, end;
    enum mt_pass pass;
};

/* Fills moe->weight and weight_grad for these groups. */
static struct part prepare(struct mt_moe *moe, int layer, const struct mt_moe_half *half,
                           struct wanted wanted)
{
    const int first = wanted.first;
    const int end = wanted.end;
    const struct mt_arrivals *arrivals = &half->arrivals;
    const struct mt_route *route = half->saved->route;
    const int64_t matrix = moe->inner * moe->width;
    for (int g = first; g < end; ++g) {
        const int expert = route->group_expert[arrivals->first_group + g];
        const struct mt_expert_copy *copy =
            mt_store_use_expert(moe->store, layer, expert, wanted.pass);
        moe->weight[GATE][g] = &copy->gate;
        moe->weight[UP][g] = &copy->up;
        moe->weight[DOWN][g] = &copy->down;
        for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
            moe->weight_grad[m][g] = copy->grad != NULL ? copy->grad + m * matrix : NULL;
        }
    }
    struct part part = {
        .groups = {.n_group = end - first, .offset = arrivals->group_start + first}};
    for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
        part.weight[m] = moe->weight[m] + first;
        part.weight_grad[m] = moe->weight_grad[m] + first;
    }
    return part;
}

/* Rows of groups [first, end) of the arrivals, by expert. */
static void record_rows(const struct mt_moe_half *half, int first, int end)
{
    const struct mt_arrivals *arrivals = &half->arrivals;
    const int *expert = half->saved->route->group_expert + arrivals->first_group;
    for (int g = first; g < end; ++g) {
        mt_record_add_rows(expert[g], arrivals->group_start[g + 1] - arrivals->group_start[g]);
    }
}

static struct mt_expert_weights weights_of(const struct part *part)
{
    return (struct mt_expert_weights){
        .gate = part->weight[GATE], .up = part->weight[UP], .down = part->weight[DOWN]};
}

static enum mt_status forward_part(struct mt_moe *moe, const struct mt_moe_half *half,
                                   const struct part *part, const struct mt_moe_rows *rows)
{
    const struct mt_expert_weights weights = weights_of(part);
    const struct mt_expert_forward args = {.y = half->rows,
                                           .gate = rows->gate,
                                           .up = rows->up,
                                           .x = rows->x,
                                           .row_weight = rows->weight,
                                           .scratch = moe->expert_scratch};
    mt_expert_forward(moe->device, &args, &weights, part->groups);
    return mt_comm_poll(moe->comm);
}

enum mt_status mt_moe_experts_forward(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                      const struct mt_moe_rows *rows)
{
    const struct mt_arrivals *arrivals = &half->arrivals;
    const int n_resident = arrivals->n_resident;
    mt_span_begin(MT_PHASE_EXPERT);
    const struct part resident =
        prepare(moe, layer, half, (struct wanted){0, n_resident, MT_PASS_FORWARD});
    record_rows(half, 0, n_resident);
    MT_TRY(forward_part(moe, half, &resident, rows));
    mt_span_end(MT_PHASE_EXPERT);
    if (n_resident == arrivals->n_group) {
        return MT_OK;
    }
    if (mt_moe_is_last_half(moe,
                            half)) { /* what the first asked for is there since the second's gate */
        MT_TRY(mt_moe_end_late(moe, layer));
    }
    mt_span_begin(MT_PHASE_EXPERT);
    const struct part late =
        prepare(moe, layer, half, (struct wanted){n_resident, arrivals->n_group, MT_PASS_FORWARD});
    record_rows(half, n_resident, arrivals->n_group);
    MT_TRY(forward_part(moe, half, &late, rows));
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

enum mt_status mt_moe_experts_again(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                    const struct mt_moe_rows *rows)
{
    mt_span_begin(MT_PHASE_EXPERT);
    const struct wanted wanted = {0, half->arrivals.n_group, MT_PASS_FORWARD};
    const struct part part = prepare(moe, layer, half, wanted);
    mt_grouped_forward(moe->device, rows->gate, rows->x, part.weight[GATE], part.groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_forward(moe->device, rows->up, rows->x, part.weight[UP], part.groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

/* Between ranks the gradients of W_gate and W_up wait until those of the rows are on their way back
 * to the tokens: a third of backward, under which they travel and uneven ranks meet again. */
static bool leaves_rest(const struct mt_moe *moe)
{
    return moe->comm->topology.n_rank > 1;
}

static struct part prepare_backward(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    const struct wanted wanted = {0, half->arrivals.n_group, MT_PASS_BACKWARD};
    return prepare(moe, layer, half, wanted);
}

static struct mt_expert_backward backward_args(const struct mt_moe *moe,
                                               const struct mt_moe_half *half,
                                               const struct part *part,
                                               const struct mt_moe_rows *rows)
{
    return (struct mt_expert_backward){.d_x = half->rows,
                                       .d_row_weight = half->d_row_weight,
                                       .gate = rows->gate,
                                       .up = rows->up,
                                       .d_y = half->rows,
                                       .x = rows->x,
                                       .row_weight = rows->weight,
                                       .d_gate_weight = part->weight_grad[GATE],
                                       .d_up_weight = part->weight_grad[UP],
                                       .d_down_weight = part->weight_grad[DOWN],
                                       .scratch = moe->expert_scratch};
}

enum mt_status mt_moe_experts_backward(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                       const struct mt_moe_rows *rows)
{
    mt_span_begin(MT_PHASE_EXPERT_BACKWARD);
    const struct part part = prepare_backward(moe, layer, half);
    const struct mt_expert_weights weights = weights_of(&part);
    struct mt_expert_backward args = backward_args(moe, half, &part, rows);
    if (leaves_rest(moe)) {
        args.d_gate_weight = NULL;
        args.d_up_weight = NULL;
    }
    mt_span_add_work(half->arrivals.n_row, 0);
    mt_expert_backward(moe->device, &args, &weights, part.groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_end(MT_PHASE_EXPERT_BACKWARD);
    return MT_OK;
}

enum mt_status mt_moe_experts_backward_rest(struct mt_moe *moe, int layer, struct mt_moe_half *half,
                                            const struct mt_moe_rows *rows)
{
    if (!leaves_rest(moe)) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_EXPERT_BACKWARD);
    const struct part part = prepare_backward(moe, layer, half);
    const struct mt_expert_weights weights = weights_of(&part);
    const struct mt_expert_backward args = backward_args(moe, half, &part, rows);
    mt_expert_backward_rest(moe->device, &args, &weights, part.groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_end(MT_PHASE_EXPERT_BACKWARD);
    return MT_OK;
}
