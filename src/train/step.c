/* One optimizer step. Everything else in this program serves these lines. */
#include "train/internal.h"

#include "base/job.h"

#include <math.h>

static enum mt_status plan_placements(struct mt_trainer *trainer)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    mt_span_begin(MT_PHASE_PLAN);
    mt_store_zero_grad(trainer->session.store);
    if (moe != NULL) {
        MT_TRY(mt_moe_plan_step(moe, trainer->state.step, (int)mt_batch_n_micro(&trainer->split)));
    }
    mt_span_end(MT_PHASE_PLAN);
    return MT_OK;
}

/* window = "exact" needs the counts of every micro-batch before the first backward. With one
 * micro-batch its own forward has them. */
static enum mt_status count_experts(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    const int64_t n_micro = mt_batch_n_micro(&trainer->split);
    if (moe == NULL || n_micro == 1 || config->balance.loss != MT_BALANCE_GLOBAL ||
        config->balance.window != MT_WINDOW_EXACT) {
        return MT_OK;
    }
    mt_moe_set_counting(moe, true);
    for (int64_t micro = 0; micro < n_micro; micro++) {
        struct mt_micro_batch batch;
        MT_TRY(mt_batch_load(trainer, micro, &batch));
        MT_TRY(mt_model_count(trainer->session.model, &batch));
    }
    mt_moe_set_counting(moe, false);
    return MT_OK;
}

/* For messages: what is no number has no sign. x86 makes NaNs with the sign bit set, "-nan". */
static double without_sign(double x)
{
    return isnan(x) ? (double)NAN : x;
}

/* Reduced gradients, their one global norm, and the loss: the same numbers on every rank. */
static enum mt_status finish_gradients(struct mt_trainer *trainer, double loss_sum,
                                       struct mt_step_result *result)
{
    const struct mt_config *config = trainer->config;
    result->n_token = config->train.global_batch_size * config->model.max_seq_len;
    mt_record_set_micro(-1);
    MT_TRY(mt_store_reduce_finish(trainer->session.store));
    mt_span_begin(MT_PHASE_CLIP);
    MT_TRY(mt_optim_grad_norm(trainer->optim, &result->grad_norm));
    MT_TRY(mt_comm_sum_f64(&trainer->session.comm, &loss_sum, 1));
    result->loss = without_sign(loss_sum / (double)result->n_token);
    result->grad_norm = without_sign(result->grad_norm);
    result->n_score = (double)result->n_token * (double)config->model.max_seq_len;
    if (trainer->documents.start != NULL) {
        MT_TRY(mt_comm_sum_f64(&trainer->session.comm, &trainer->n_score, 1));
        result->n_score = trainer->n_score;
    }
    mt_span_end(MT_PHASE_CLIP);
    return MT_OK;
}

/* Owners update their chunks and start handing out the new values; a step whose loss or gradient is
 * not finite is skipped on all ranks alike. */
static enum mt_status clip_and_update(struct mt_trainer *trainer, struct mt_step_result *result)
{
    struct mt_run_state *state = &trainer->state;
    result->lr = mt_schedule_lr(trainer->config, state->step);
    result->skipped = !isfinite(result->grad_norm) || !isfinite(result->loss);
    if (result->skipped) {
        state->n_skipped++;
        state->n_skipped_in_row++;
        return MT_OK;
    }
    state->n_skipped_in_row = 0;
    state->n_update++;
    mt_span_begin(MT_PHASE_UPDATE);
    mt_optim_update(trainer->optim, result->lr,
                    mt_optim_clip_factor(trainer->config, result->grad_norm), state->n_update);
    MT_TRY(mt_store_publish(trainer->session.store));
    mt_span_end(MT_PHASE_UPDATE);
    return MT_OK;
}

static enum mt_status record(struct mt_trainer *trainer, struct mt_step_result *result)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    mt_span_begin(MT_PHASE_METRICS);
    if (moe != NULL) {
        MT_TRY(mt_moe_finish_step(moe, &result->moe));
    }
    MT_TRY(mt_samples_end_step(trainer));
    trainer->state.tokens_seen += result->n_token;
    trainer->state.next_sequence += trainer->config->train.global_batch_size;
    mt_span_end(MT_PHASE_METRICS);
    return MT_OK;
}

enum mt_status mt_train_step(struct mt_trainer *trainer, struct mt_step_result *result)
{
    struct mt_model *model = trainer->session.model;
    struct mt_micro_batch batch;
    double loss_sum = 0;
    MT_TRY(plan_placements(trainer));
    MT_TRY(mt_batch_plan(trainer));
    MT_TRY(count_experts(trainer));
    trainer->n_score = 0;
    for (int64_t micro = 0; micro < mt_batch_n_micro(&trainer->split); micro++) {
        double micro_loss = 0;
        MT_TRY(mt_batch_load(trainer, micro, &batch));
        MT_TRY(mt_model_forward(model, &batch));
        MT_TRY(mt_model_head_and_loss(model, &batch, &micro_loss));
        MT_TRY(mt_model_backward(model, &batch));
        loss_sum += micro_loss;
    }
    MT_TRY(mt_replicas_check(trainer));
    MT_TRY(finish_gradients(trainer, loss_sum, result));
    MT_TRY(clip_and_update(trainer, result));
    return record(trainer, result);
}
