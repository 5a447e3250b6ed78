/* The experts of this rank on the rows that came here: grouped products, one group an instance.
 *
 *   act = silu(x W_gate^T) * (x W_up^T) * row_weight        y = act W_down^T
 *
 * The weight comes before the down product, so that its gradient is a product of activations and no
 * expert's output need be kept. */
#include "moe/context.h"

enum { GATE, UP, DOWN };

/* Fills moe->weight and weight_grad for the route's groups. */
static struct mt_groups prepare_groups(struct mt_moe *moe, int layer, const struct mt_route *route)
{
    const int64_t matrix = moe->inner * moe->width;
    for (int g = 0; g < route->n_group; ++g) {
        const struct mt_expert_copy *copy =
            mt_store_expert(moe->store, layer, route->group_expert[g]);
        MT_ASSERT(copy != NULL);
        moe->weight[GATE][g] = &copy->gate;
        moe->weight[UP][g] = &copy->up;
        moe->weight[DOWN][g] = &copy->down;
        for (int m = 0; m < MT_EXPERT_MATRICES; ++m) {
            moe->weight_grad[m][g] = copy->grad != NULL ? copy->grad + m * matrix : NULL;
        }
    }
    return (struct mt_groups){.n_group = route->n_group, .offset = route->group_offset};
}

/* saved->gate and saved->up from the rows: in forward, and in backward when they were not kept. */
static enum mt_status gate_and_up(struct mt_moe *moe, struct mt_groups groups,
                                  const struct mt_moe_saved *saved)
{
    mt_grouped_forward(moe->device, saved->gate, saved->rows, moe->weight[GATE], groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_forward(moe->device, saved->up, saved->rows, moe->weight[UP], groups);
    return mt_comm_poll(moe->comm);
}

enum mt_status mt_moe_experts_forward(struct mt_moe *moe, int layer,
                                      const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_EXPERT);
    const struct mt_route *route = saved->route;
    if (route->n_row > 0) {
        const struct mt_groups groups = prepare_groups(moe, layer, route);
        MT_TRY(gate_and_up(moe, groups, saved));
        mt_swiglu_forward(moe->device, moe->act, saved->gate, saved->up, saved->row_weight,
                          route->n_row, moe->inner);
        mt_grouped_forward(moe->device, moe->rows, moe->act, moe->weight[DOWN], groups);
        MT_TRY(mt_comm_poll(moe->comm));
    }
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

static enum mt_status backward_groups(struct mt_moe *moe, struct mt_groups groups,
                                      float *d_row_weight, const struct mt_moe_saved *saved)
{
    struct mt_device *device = moe->device;
    const int64_t width = moe->width;
    const int64_t inner = moe->inner;
    if (moe->recompute) {
        MT_TRY(gate_and_up(moe, groups, saved));
    }
    mt_grouped_backward_input(device, moe->act, moe->rows, moe->weight[DOWN], groups, false);
    MT_TRY(mt_comm_poll(moe->comm));
    const struct mt_swiglu_backward swiglu = {.d_gate = saved->gate,
                                              .d_up = saved->up,
                                              .d_row_weight = d_row_weight,
                                              .act = moe->act,
                                              .d_act = moe->act,
                                              .gate = saved->gate,
                                              .up = saved->up,
                                              .row_weight = saved->row_weight};
    mt_swiglu_backward(device, &swiglu, saved->route->n_row, inner);
    mt_grouped_backward_weight(device, moe->weight_grad[DOWN], moe->rows, moe->act, width, inner,
                               groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_backward_input(device, moe->rows, saved->gate, moe->weight[GATE], groups, false);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_backward_input(device, moe->rows, saved->up, moe->weight[UP], groups, true);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_backward_weight(device, moe->weight_grad[GATE], saved->gate, saved->rows, inner,
                               width, groups);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_grouped_backward_weight(device, moe->weight_grad[UP], saved->up, saved->rows, inner, width,
                               groups);
    return mt_comm_poll(moe->comm);
}

enum mt_status mt_moe_experts_backward(struct mt_moe *moe, int layer, float *d_row_weight,
                                       const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_EXPERT_BACKWARD);
    if (saved->route->n_row > 0) {
        const struct mt_groups groups = prepare_groups(moe, layer, saved->route);
        MT_TRY(backward_groups(moe, groups, d_row_weight, saved));
    }
    mt_span_end(MT_PHASE_EXPERT_BACKWARD);
    return MT_OK;
}
