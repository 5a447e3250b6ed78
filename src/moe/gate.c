/* The gate: router, softmax, top-k, and the counts that every rank needs of every other. */
#include "device/memory.h"
#include "moe/context.h"

#include <string.h>

static void cut_saved(const struct mt_moe *moe, int layer, struct mt_arena *arena,
                      struct mt_moe_saved *saved)
{
    const int64_t n_choice = saved->n * moe->top_k;
    saved->expert = mt_arena_cut(arena, n_choice * (int64_t)sizeof(int32_t));
    saved->weight = mt_moe_cut_floats(arena, n_choice);
    saved->d_weight = mt_moe_cut_floats(arena, n_choice);
    saved->probability = mt_moe_cut_floats(arena, saved->n * moe->n_expert);
    saved->lse = mt_moe_cut_floats(arena, saved->n);
    saved->shared_scale =
        moe->tensors[layer].shared_scale < 0 ? NULL : mt_moe_cut_floats(arena, saved->n);
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

/* The half joins the halves before it. */
static void add_to_seen(struct mt_moe *moe, int layer, bool is_first)
{
    const int64_t n_expert = moe->n_expert;
    const int64_t n_pair = moe->n_rank * n_expert;
    struct mt_moe_seen *seen = &moe->seen;
    if (is_first) {
        memset(seen->count, 0, (size_t)n_pair * sizeof(int64_t));
        memset(seen->probability_sum, 0, (size_t)n_expert * sizeof(double));
        seen->lse_square_sum = 0.0;
    }
    for (int64_t i = 0; i < n_pair; ++i) {
        seen->count[i] += moe->count[i];
    }
    for (int64_t e = 0; e < n_expert; ++e) {
        seen->probability_sum[e] += moe->probability_sum[e];
    }
    seen->lse_square_sum += moe->lse_square_sum;
    sum_over_ranks(moe->micro_count + layer * n_expert, seen->count, moe->n_rank, moe->n_expert);
    memcpy(moe->own_count + layer * n_expert, seen->count + moe->comm->rank * n_expert,
           (size_t)n_expert * sizeof(int64_t));
}

/* All halves of the micro-batch have been through the layer's gate. Its load joins the recent ones
 * when its last layer has been. */
static void record(struct mt_moe *moe, int layer)
{
    const int64_t row = (int64_t)layer * moe->n_expert;
    const struct mt_tally_gate gate = {.global_count = moe->micro_count + row,
                                       .own_count = moe->own_count + row,
                                       .probability_sum = moe->seen.probability_sum,
                                       .lse_square_sum = moe->seen.lse_square_sum};
    mt_tally_add_gate(&moe->tally, layer, &gate);
    if (layer == moe->n_layer - 1) {
        mt_history_record(&moe->recent, moe->micro_count);
        moe->recent_step = moe->recent.n_step;
    }
}

int32_t *mt_moe_choices(const struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    return mt_device_room(moe->device, saved->expert, moe->choice);
}

static int64_t choice_bytes(const struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    return saved->n * moe->top_k * (int64_t)sizeof(int32_t);
}

static void give_choices(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    const struct mt_moe_saved *saved = half->saved;
    int32_t *choice = mt_moe_choices(moe, saved);
    mt_moe_give_choices(moe, layer, mt_moe_half_index(moe, half), saved->n, choice);
    mt_device_upload(moe->device, saved->expert, choice, choice_bytes(moe, saved));
}

/* What the host sees of the gate beside the counts of all ranks. */
static void fetch_gate(struct mt_moe *moe, const struct mt_moe_saved *saved)
{
    mt_device_fetch(moe->device, moe->probability_sum, moe->gate_sum,
                    moe->n_expert * (int64_t)sizeof(double));
    mt_device_fetch(moe->device, &moe->lse_square_sum, moe->gate_sum + moe->n_expert,
                    (int64_t)sizeof(moe->lse_square_sum));
    mt_device_fetch(moe->device, mt_moe_choices(moe, saved), saved->expert,
                    choice_bytes(moe, saved));
}

enum mt_status mt_moe_gate_begin(struct mt_moe *moe, int layer, struct mt_moe_half *half)
{
    mt_span_begin(MT_PHASE_GATE);
    struct mt_moe_saved *saved = half->saved;
    cut_saved(moe, layer, half->arena, saved);
    mt_router_forward(moe->device, moe->logits, saved->x,
                      mt_store_value(moe->store, moe->tensors[layer].router), saved->n,
                      moe->n_expert, moe->width);
    /* evaluations ask the model, not the study */
    const bool is_given =
        moe->given.routing != MT_ROUTING_LEARNED && (half->is_kept || moe->balance.is_counting);
    if (is_given) {
        give_choices(moe, layer, half);
    }
    const struct mt_gate_forward args = {.expert = saved->expert,
                                         .weight = saved->weight,
                                         .probability = saved->probability,
                                         .lse = saved->lse,
                                         .count = moe->counts.own,
                                         .probability_sum = moe->gate_sum,
                                         .lse_square_sum = moe->gate_sum + moe->n_expert,
                                         .logits = moe->logits,
                                         .is_given = is_given};
    mt_gate_forward(moe->device, &args, saved->n, &moe->gate);
    MT_TRY(mt_counts_begin(&moe->counts));
    fetch_gate(moe, saved);
    return MT_OK;
}

enum mt_status mt_moe_gate_end(struct mt_moe *moe, int layer, const struct mt_moe_half *half)
{
    MT_TRY(mt_counts_end(&moe->counts, moe->count));
    sum_over_ranks(moe->global_count, moe->count, moe->n_rank, moe->n_expert);
    mt_balance_add(&moe->balance, layer, moe->global_count, half->is_kept);
    if (half->is_kept && !moe->balance.is_counting) {
        add_to_seen(moe, layer, mt_moe_is_first_half(moe, half));
        if (mt_moe_is_last_half(moe, half)) {
            record(moe, layer);
        }
    }
    mt_span_add_work(half->saved->n, 0);
    mt_span_end(MT_PHASE_GATE);
    return MT_OK;
}

enum mt_status mt_moe_gate_backward(struct mt_moe *moe, int layer, const struct mt_moe_half *half,
                                    double token_share)
{
    mt_span_begin(MT_PHASE_GATE_BACKWARD);
    const struct mt_moe_saved *saved = half->saved;
    const int64_t *own_count = moe->own_count + (int64_t)layer * moe->n_expert;
    const int router = moe->tensors[layer].router;
    const int64_t f_bytes = moe->n_expert * (int64_t)sizeof(float);
    const float *f = mt_balance_share(&moe->balance, layer, own_count);
    const struct mt_gate_backward gate = {.d_logits = moe->logits,
                                          .d_weight = saved->d_weight,
                                          .expert = saved->expert,
                                          .weight = saved->weight,
                                          .probability = saved->probability,
                                          .lse = saved->lse,
                                          .f = mt_device_lend(moe->device, f, f_bytes),
                                          .balance_scale =
                                              (float)(moe->loss_coef * moe->n_expert * token_share),
                                          .z_scale = (float)(2.0 * moe->z_loss_coef * token_share)};
    mt_gate_backward(moe->device, &gate, saved->n, &moe->gate);
    const struct mt_router_backward args = {.d_x = half->result,
                                            .d_w = mt_store_grad(moe->store, router),
                                            .d_logits = moe->logits,
                                            .x = saved->x,
                                            .w = mt_store_value(moe->store, router)};
    mt_router_backward(moe->device, &args, saved->n, moe->n_expert, moe->width);
    MT_TRY(mt_comm_poll(moe->comm));
    mt_span_add_work(saved->n, 0);
    mt_span_end(MT_PHASE_GATE_BACKWARD);
    return MT_OK;
}
