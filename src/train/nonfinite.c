/* What follows when loss or gradients stay non-finite: every rank sees the same numbers, so every
 * rank does the same at the same step. */
#include "base/job.h"
#include "base/log.h"
#include "base/size.h"
#include "train/internal.h"

static enum mt_status give_up(const struct mt_trainer *trainer, const struct mt_step_result *result,
                              const char *why)
{
    return mt_job_agree(MT_FAIL(
        MT_ERR_DIVERGED,
        "training diverged: loss %g and gradient norm %g are not finite for the %lld. step in a "
        "row%s; "
        "expected at most train.nonfinite_patience = %lld; lower optimizer.lr or look at the data, "
        "and start again: the last checkpoint is kept",
        result->loss, result->grad_norm, (long long)trainer->state.n_skipped_in_row, why,
        (long long)trainer->config->train.nonfinite_patience));
}

/* Everything that belongs to the steps that are undone is opened anew. */
static enum mt_status go_on(struct mt_trainer *trainer)
{
    MT_TRY(mt_store_publish(trainer->session.store));
    MT_TRY(mt_job_agree(mt_metrics_open(trainer)));
    MT_TRY(mt_traces_open(trainer));
    MT_TRY(mt_job_agree(mt_samples_open(trainer)));
    trainer->first_step = mt_min_i64(trainer->first_step, trainer->state.step);
    return MT_OK;
}

/* A checkpoint that led here twice will do so again (its data differ, its state does not). */
static enum mt_status roll_back(struct mt_trainer *trainer, const struct mt_step_result *result,
                                bool *is_back)
{
    const int64_t step = trainer->state.step;
    const int64_t n_in_row = trainer->state.n_skipped_in_row;
    bool is_found = false;
    mt_traces_close(trainer);
    mt_samples_close(trainer);
    mt_metrics_close(trainer);
    MT_TRY(mt_resume_newest(trainer, &is_found));
    if (!is_found) {
        return give_up(trainer, result, ", and there is no checkpoint to go back to");
    }
    if (trainer->state.step == trainer->rolled_back) {
        trainer->state.n_skipped_in_row = n_in_row;
        return give_up(trainer, result, ", after going back to the last checkpoint once");
    }
    trainer->rolled_back = trainer->state.step;
    *is_back = true;
    mt_log_line("not finite for %lld steps in a row at step %lld: back to step %lld, on with the "
                "data that follow",
                (long long)n_in_row, (long long)step, (long long)trainer->state.step);
    return go_on(trainer);
}

enum mt_status mt_nonfinite_check(struct mt_trainer *trainer, const struct mt_step_result *result,
                                  bool *is_back)
{
    *is_back = false;
    if (trainer->state.n_skipped_in_row <= trainer->config->train.nonfinite_patience) {
        return MT_OK;
    }
    MT_TRY(mt_saving_finish(trainer)); /* what is being saved is from before */
    if (trainer->config->train.nonfinite_action == MT_NONFINITE_ROLLBACK) {
        return roll_back(trainer, result, is_back);
    }
    return give_up(trainer, result, "");
}
