/* Shared experts see every token: together they are one dense SwiGLU of width Fs, computed while
 * the routed rows travel, and on a GPU while the counts do. With moe.shared_gate its result for a
 * token is multiplied by sigmoid(x g): the product is the router's with one expert, the weight is
 * the row's. */
#include "base/size.h"
#include "device/memory.h"
#include "moe/context.h"

struct shared {
    const struct mt_weight *gate, *up, *down;
};

static struct shared shared_of(const struct mt_moe *moe, int layer)
{
    const struct mt_moe_tensors *tensors = &moe->tensors[layer];
    return (struct shared){.gate = mt_store_weight(moe->store, tensors->shared_gate),
                           .up = mt_store_weight(moe->store, tensors->shared_up),
                           .down = mt_store_weight(moe->store, tensors->shared_down)};
}

/* saved->shared_gate and saved->shared_up, when they were not kept. */
static enum mt_status gate_and_up(struct mt_moe *moe, int layer, const struct mt_moe_saved *saved)
{
    const struct shared shared = shared_of(moe, layer);
    mt_linear_forward(moe->device, saved->shared_gate, saved->x, shared.gate, saved->n);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_linear_forward(moe->device, saved->shared_up, saved->x, shared.up, saved->n);
    return mt_comm_poll(moe->comm);
}

static void scale_forward(struct mt_moe *moe, int layer, const struct mt_moe_saved *saved)
{
    const int tensor = moe->tensors[layer].shared_scale;
    if (tensor >= 0) {
        mt_router_forward(moe->device, saved->shared_scale, saved->x,
                          mt_store_value(moe->store, tensor), saved->n, 1, moe->width);
        mt_sigmoid_forward(moe->device, saved->shared_scale, saved->shared_scale, saved->n);
    }
}

/* d_scale [N] is used up; d_x [N,D] +=. */
static void scale_backward(struct mt_moe *moe, int layer, float *d_x, float *d_scale,
                           const struct mt_moe_saved *saved)
{
    const int tensor = moe->tensors[layer].shared_scale;
    mt_sigmoid_backward(moe->device, d_scale, d_scale, saved->shared_scale, saved->n);
    const struct mt_router_backward args = {.d_x = d_x,
                                            .d_w = mt_store_grad(moe->store, tensor),
                                            .d_logits = d_scale,
                                            .x = saved->x,
                                            .w = mt_store_value(moe->store, tensor)};
    mt_router_backward(moe->device, &args, saved->n, 1, moe->width);
}

static enum mt_status forward(struct mt_moe *moe, int layer, float *out,
                              const struct mt_moe_saved *saved)
{
    mt_span_begin(MT_PHASE_EXPERT);
    const int64_t offset[2] = {0, saved->n};
    const struct shared shared = shared_of(moe, layer);
    const struct mt_expert_weights weights = {&shared.gate, &shared.up, &shared.down};
    scale_forward(moe, layer, saved);
    const struct mt_expert_forward args = {.y = out,
                                           .gate = saved->shared_gate,
                                           .up = saved->shared_up,
                                           .x = saved->x,
                                           .row_weight = saved->shared_scale,
                                           .scratch = moe->expert_scratch};
    mt_expert_forward(moe->device, &args, &weights, (struct mt_groups){1, offset});
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_add_work(saved->n, 0);
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

enum mt_status mt_moe_reserve_shared(struct mt_moe *moe)
{
    const int64_t width = mt_max_i64(moe->width, moe->shared_inner);
    if (moe->is_shared_aside) {
        mt_device_aside_begin(moe->device);
        const enum mt_status status = mt_device_reserve(moe->device, moe->max_token, width);
        mt_device_aside_end(moe->device);
        MT_TRY(status);
    }
    return mt_device_reserve(moe->device, moe->max_token, moe->shared_inner);
}

enum mt_status mt_moe_shared_aside(struct mt_moe *moe, int layer, struct mt_moe_half *half)
{
    if (!moe->is_shared_aside) {
        return MT_OK;
    }
    const int64_t mark = mt_arena_mark(half->arena);
    mt_moe_cut_shared(moe, half->arena, half->saved);
    mt_device_aside_begin(moe->device);
    MT_TRY(forward(moe, layer, half->result, half->saved));
    mt_device_aside_end(moe->device);
    if (moe->recompute) { /* nothing is written there before the join */
        mt_arena_release(half->arena, mark);
    }
    return MT_OK;
}

void mt_moe_shared_join(struct mt_moe *moe)
{
    if (moe->is_shared_aside) {
        mt_device_aside_join(moe->device);
    }
}

enum mt_status mt_moe_shared_forward(struct mt_moe *moe, int layer, float *out,
                                     const struct mt_moe_saved *saved)
{
    return moe->shared_inner == 0 || moe->is_shared_aside ? MT_OK : forward(moe, layer, out, saved);
}

static enum mt_status backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                               const struct mt_moe_saved *saved)
{
    const int64_t offset[2] = {0, saved->n};
    const struct shared shared = shared_of(moe, layer);
    const struct mt_moe_tensors *tensors = &moe->tensors[layer];
    const struct mt_expert_weights weights = {&shared.gate, &shared.up, &shared.down};
    /* [N]: the logits are free until the gate's backward */
    float *const d_scale = tensors->shared_scale < 0 ? NULL : moe->logits;
    float *const d_gate = mt_store_grad(moe->store, tensors->shared_gate);
    float *const d_up = mt_store_grad(moe->store, tensors->shared_up);
    float *const d_down = mt_store_grad(moe->store, tensors->shared_down);
    const struct mt_expert_backward args = {.d_x = d_x,
                                            .d_row_weight = d_scale,
                                            .gate = saved->shared_gate,
                                            .up = saved->shared_up,
                                            .d_y = d_out,
                                            .x = saved->x,
                                            .row_weight = saved->shared_scale,
                                            .d_gate_weight = &d_gate,
                                            .d_up_weight = &d_up,
                                            .d_down_weight = &d_down,
                                            .scratch = moe->expert_scratch};
    mt_expert_backward(moe->device, &args, &weights, (struct mt_groups){1, offset});
    if (d_scale != NULL) {
        scale_backward(moe, layer, d_x, d_scale, saved);
    }
    return mt_comm_poll(moe->comm);
}

enum mt_status mt_moe_shared_backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                                      const struct mt_moe_saved *saved)
{
    if (moe->shared_inner == 0) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_EXPERT_BACKWARD);
    if (moe->recompute) {
        MT_TRY(gate_and_up(moe, layer, saved));
    }
    MT_TRY(backward(moe, layer, d_x, d_out, saved));
    mt_span_add_work(saved->n, 0);
    mt_span_end(MT_PHASE_EXPERT_BACKWARD);
    return MT_OK;
}
