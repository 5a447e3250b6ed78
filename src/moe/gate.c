/* The gate: router, softmax, top-k, and the counts that every rank needs of every other. */
#include "moe/context.h"

#include <string.h>

static void cut_saved(const struct mt_moe *moe, struct mt_arena *arena, struct mt_moe_saved *saved)
{
    const int64_t n_choice = saved->n * moe->top_k;
    saved->expert = mt_arena_cut(arena, n_choice * (int64_t)sizeof(int32_t));
    saved->weight = mt_moe_cut_floats(arena, n_choice);
    saved->d_weight = mt_moe_cut_floats(arena, n_choice);
    saved->probability = mt_moe_cut_floats(arena, saved->n * moe->n_expert);
    saved->lse = mt_moe_cut_floats(arena, saved->n);
}

static void sum_over_ranks(int64_t *sum, const int64_t *count, int n_rank, int n_expert)
{
    memcpy(sum, count, (size_t)n_expert * sizeof(int64_t));
    for (int r = 1; r < n_rank; ++r) {
        const int64_t *row = count + (int64_t)r * n_expert;
        for (int e = 0; e < n_expert; ++e) {
            sum[e] += row[e];
        }
    }
}

/* The micro-batch's load joins the recent ones when its last layer has been through the gate. */
static void record_load(struct mt_moe *moe, int layer)
{
    memcpy(moe->micro_count + (int64_t)layer * moe->n_expert, moe->global_count,
           (size_t)moe->n_expert * sizeof(int64_t));
    if (layer == moe->n_layer - 1) {
        mt_history_record(&moe->recent, moe->micro_count);
        moe->recent_step = moe->recent.n_step;
    }
}

enum mt_status mt_moe_gate_forward(struct mt_moe *moe, int layer, const float *x,
                                   struct mt_arena *arena, struct mt_moe_saved *saved, bool is_kept)
{
    mt_span_begin(MT_PHASE_GATE);
    int64_t *own_count = moe->global_count; /* until the others' are known */
    double lse_square_sum = 0.0;
    cut_saved(moe, arena, saved);
    mt_router_forward(moe->device, moe->logits, x,
                      mt_store_value(moe->store, moe->tensors[layer].router), saved->n,
                      moe->n_expert, moe->width);
    /* evaluations ask the model, not the study */
    const bool is_given =
        moe->given.routing != MT_ROUTING_LEARNED && (is_kept || moe->balance.is_counting);
    if (is_given) {
        mt_moe_give_choices(moe, layer, saved->n, saved->expert);
    }
    const struct mt_gate_forward args = {.expert = saved->expert,
                                         .weight = saved->weight,
                                         .probability = saved->probability,
                                         .lse = saved->lse,
                                         .count = own_count,
                                         .probability_sum = moe->probability_sum,
                                         .lse_square_sum = &lse_square_sum,
                                         .logits = moe->logits,
                                         .is_given = is_given};
    mt_gate_forward(moe->device, &args, saved->n, &moe->gate);
    mt_device_settle(moe->device);
    MT_TRY(mt_comm_gather_i64(moe->comm, own_count, moe->n_expert, moe->count));
    sum_over_ranks(moe->global_count, moe->count, moe->n_rank, moe->n_expert);
    mt_balance_add(&moe->balance, layer, moe->global_count, is_kept);
    if (is_kept && !moe->balance.is_counting) {
        const struct mt_tally_gate seen = {.global_count = moe->global_count,
                                           .own_count = moe->count +
                                                        (int64_t)moe->comm->rank * moe->n_expert,
                                           .probability_sum = moe->probability_sum,
                                           .lse_square_sum = lse_square_sum};
        mt_tally_add_gate(&moe->tally, layer, &seen);
        record_load(moe, layer);
    }
    mt_span_end(MT_PHASE_GATE);
    return MT_OK;
}

/* [E] rows of this rank's micro-batch, again from the saved choices. */
static const int64_t *own_counts(struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    int64_t *count = moe->global_count;
    memset(count, 0, (size_t)moe->n_expert * sizeof(int64_t));
    for (int64_t i = 0; i < saved->n * moe->top_k; ++i) {
        ++count[saved->expert[i]];
    }
    return count;
}

enum mt_status mt_moe_gate_backward(struct mt_moe *moe, int layer, float *d_x,
                                    const struct mt_moe_saved *saved, double token_share)
{
    mt_span_begin(MT_PHASE_GATE_BACKWARD);
    const int router = moe->tensors[layer].router;
    const struct mt_gate_backward gate = {
        .d_logits = moe->logits,
        .d_weight = saved->d_weight,
        .expert = saved->expert,
        .weight = saved->weight,
        .probability = saved->probability,
        .lse = saved->lse,
        .f = mt_balance_share(&moe->balance, layer, own_counts(moe, saved)),
        .balance_scale = (float)(moe->loss_coef * moe->n_expert * token_share),
        .z_scale = (float)(2.0 * moe->z_loss_coef * token_share)};
    mt_gate_backward(moe->device, &gate, saved->n, &moe->gate);
    const struct mt_router_backward args = {.d_x = d_x,
                                            .d_w = mt_store_grad(moe->store, router),
                                            .d_logits = moe->logits,
                                            .x = saved->x,
                                            .w = mt_store_value(moe->store, router)};
    mt_router_backward(moe->device, &args, saved->n, moe->n_expert, moe->width);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_end(MT_PHASE_GATE_BACKWARD);
    return MT_OK;
}
