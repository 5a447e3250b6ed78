/* Shared experts see every token: together they are one dense SwiGLU of width Fs, computed while
 * the routed rows travel. */
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

enum mt_status mt_moe_shared_forward(struct mt_moe *moe, int layer, float *out, const float *x,
                                     const struct mt_moe_saved *saved)
{
    if (moe->shared_inner == 0) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_EXPERT);
    const int64_t offset[2] = {0, saved->n};
    const struct shared shared = shared_of(moe, layer);
    const struct mt_expert_weights weights = {&shared.gate, &shared.up, &shared.down};
    const struct mt_expert_forward args = {.y = out,
                                           .gate = saved->shared_gate,
                                           .up = saved->shared_up,
                                           .x = x,
                                           .scratch = moe->expert_scratch};
    mt_expert_forward(moe->device, &args, &weights, (struct mt_groups){1, offset});
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_add_work(saved->n, 0);
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

static enum mt_status backward(struct mt_moe *moe, int layer, float *d_x, const float *d_out,
                               const struct mt_moe_saved *saved)
{
    const int64_t offset[2] = {0, saved->n};
    const struct shared shared = shared_of(moe, layer);
    const struct mt_moe_tensors *tensors = &moe->tensors[layer];
    const struct mt_expert_weights weights = {&shared.gate, &shared.up, &shared.down};
    float *const d_gate = mt_store_grad(moe->store, tensors->shared_gate);
    float *const d_up = mt_store_grad(moe->store, tensors->shared_up);
    float *const d_down = mt_store_grad(moe->store, tensors->shared_down);
    const struct mt_expert_backward args = {.d_x = d_x,
                                            .gate = saved->shared_gate,
                                            .up = saved->shared_up,
                                            .d_y = d_out,
                                            .x = saved->x,
                                            .d_gate_weight = &d_gate,
                                            .d_up_weight = &d_up,
                                            .d_down_weight = &d_down,
                                            .scratch = moe->expert_scratch};
    mt_expert_backward(moe->device, &args, &weights, (struct mt_groups){1, offset});
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
