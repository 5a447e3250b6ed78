/* Shared experts see every token: together they are one dense SwiGLU of width Fs, computed while
 * the routed rows travel. */
#include "moe/context.h"

/* saved->shared_gate and saved->shared_up: in forward, and in backward when they were not kept. */
static enum mt_status gate_and_up(struct mt_moe *moe, const struct mt_moe_tensors *tensors,
                                  const float *x, const struct mt_moe_saved *saved)
{
    mt_linear_forward(moe->device, saved->shared_gate, x,
                      mt_store_weight(moe->store, tensors->shared_gate), saved->n);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_linear_forward(moe->device, saved->shared_up, x,
                      mt_store_weight(moe->store, tensors->shared_up), saved->n);
    return mt_comm_poll(moe->comm);
}

enum mt_status mt_moe_shared_forward(struct mt_moe *moe, int layer, float *out, const float *x,
                                     const struct mt_moe_saved *saved)
{
    if (moe->shared_inner == 0) {
        return MT_OK;
    }
    mt_span_begin(MT_PHASE_EXPERT);
    const struct mt_moe_tensors *tensors = &moe->tensors[layer];
    const int64_t n = saved->n;
    MT_TRY(gate_and_up(moe, tensors, x, saved));
    mt_swiglu_forward(moe->device, moe->act, saved->shared_gate, saved->shared_up, NULL, n,
                      moe->shared_inner);
    mt_linear_forward(moe->device, out, moe->act, mt_store_weight(moe->store, tensors->shared_down),
                      n);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_end(MT_PHASE_EXPERT);
    return MT_OK;
}

static enum mt_status backward(struct mt_moe *moe, const struct mt_moe_tensors *tensors, float *d_x,
                               const float *d_out, const struct mt_moe_saved *saved)
{
    struct mt_device *device = moe->device;
    struct mt_store *store = moe->store;
    const int64_t n = saved->n;
    const int64_t width = moe->width;
    const int64_t inner = moe->shared_inner;
    float *d_gate = saved->shared_gate; /* in place: forward's values are used up */
    float *d_up = saved->shared_up;
    mt_linear_backward_input(device, moe->act, d_out, mt_store_weight(store, tensors->shared_down),
                             n, false);
    MT_TRY(mt_comm_poll(moe->comm));
    const struct mt_swiglu_backward swiglu = {.d_gate = d_gate,
                                              .d_up = d_up,
                                              .act = moe->act,
                                              .d_act = moe->act,
                                              .gate = saved->shared_gate,
                                              .up = saved->shared_up};
    mt_swiglu_backward(device, &swiglu, n, inner);
    mt_linear_backward_weight(device, mt_store_grad(store, tensors->shared_down), d_out, moe->act,
                              width, inner, n);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_linear_backward_input(device, d_x, d_gate, mt_store_weight(store, tensors->shared_gate), n,
                             false);
    mt_linear_backward_input(device, d_x, d_up, mt_store_weight(store, tensors->shared_up), n,
                             true);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_linear_backward_weight(device, mt_store_grad(store, tensors->shared_gate), d_gate, saved->x,
                              inner, width, n);
    mt_linear_backward_weight(device, mt_store_grad(store, tensors->shared_up), d_up, saved->x,
                              inner, width, n);
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
        MT_TRY(gate_and_up(moe, &moe->tensors[layer], saved->x, saved));
    }
    MT_TRY(backward(moe, &moe->tensors[layer], d_x, d_out, saved));
    mt_span_end(MT_PHASE_EXPERT_BACKWARD);
    return MT_OK;
}
