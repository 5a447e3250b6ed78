/* A run from its first step to its last. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "train/internal.h"

#include <string.h>

/* Arrays of run state: balance counts and load history of the MoE layers, costs of their plans. */
static void connect_state(struct mt_trainer *trainer)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    int n = 0;
    if (moe != NULL) {
        mt_moe_state(moe, trainer->state_array, &n);
        int64_t *costs = trainer->costs_state;
        MT_ASSERT(n + 4 <= MT_MAX_STATE_ARRAY);
        trainer->state_array[n++] = (struct mt_state_array){"costs", costs, MT_COSTS_STATE_ALONE};
        trainer->state_array[n++] =
            (struct mt_state_array){"costs_alone", costs + MT_COSTS_STATE_ALONE, 1};
        trainer->state_array[n++] = (struct mt_state_array){
            "costs_exchange", costs + MT_COSTS_STATE_EXCHANGE, MT_COSTS_PERCENTS};
    }
    trainer->state_array[n++] =
        (struct mt_state_array){"data", mt_mixture_state(trainer->data), MT_BLEND_STATE};
    trainer->state.n_array = n;
    trainer->state.array = trainer->state_array;
}

static void describe_costs(const struct mt_trainer *trainer, enum mt_costs_origin origin,
                           char *text, size_t bytes)
{
    const struct mt_topology *topology = &trainer->session.comm.topology;
    char device[256];
    mt_device_describe(&trainer->session.device, device, sizeof(device));
    if (origin == MT_COSTS_FILE) {
        (void)snprintf(text, bytes, "from %s", trainer->config->placement.costs);
        return;
    }
    (void)snprintf(text, bytes, "%s (R = %d, M = %d, B = %lld); %s",
                   origin == MT_COSTS_CHECKPOINT ? "from the checkpoint" : "measured",
                   topology->n_rank, topology->n_node, (long long)trainer->split.micro_batch,
                   device);
}

/* Before parameters travel, so that nothing disturbs a measurement. */
static enum mt_status prepare_costs(struct mt_trainer *trainer)
{
    struct mt_moe *moe = mt_model_moe(trainer->session.model);
    struct mt_costs costs;
    enum mt_costs_origin origin = MT_COSTS_MEASURED;
    char text[MT_PATH_BYTES + 64];
    if (moe == NULL) {
        return MT_OK; /* nothing is placed */
    }
    MT_TRY(mt_costs_decide(&trainer->session, trainer->split.micro_batch, trainer->costs_state,
                           &costs, &origin));
    mt_moe_set_costs(moe, &costs);
    describe_costs(trainer, origin, text, sizeof(text));
    mt_log_line(
        "costs %s: a row %.4g us, an instance %.4g us, attention %.4g us; a message %.4g us "
        "and %.4g us a MiB in a node, %.4g and %.4g between nodes, %.4g alone",
        text, (double)costs.row_ps * 1e-6, (double)costs.instance_ps * 1e-6,
        (double)costs.attention_ps * 1e-6, (double)costs.alpha_ps[MT_LEVEL_NODE] * 1e-6,
        (double)costs.kib_ps[MT_LEVEL_NODE] * 1024e-6,
        (double)costs.alpha_ps[MT_LEVEL_NETWORK] * 1e-6,
        (double)costs.kib_ps[MT_LEVEL_NETWORK] * 1024e-6, (double)costs.alone_kib_ps * 1024e-6);
    const bool is_first = trainer->session.comm.rank == 0;
    return mt_job_agree(is_first ? mt_costs_write(trainer->dir.path, &costs, text) : MT_OK);
}

static enum mt_status open_dir(struct mt_trainer *trainer)
{
    mt_run_dir_init(&trainer->dir, trainer->config);
    if (mt_job_rank() != 0) {
        return MT_OK;
    }
    MT_TRY(mt_run_dir_open(&trainer->dir));
    return mt_log_open(trainer->dir.log);
}

static void describe(const struct mt_trainer *trainer)
{
    struct mt_model_size size;
    char device[256];
    const struct mt_topology *topology = &trainer->session.comm.topology;
    mt_model_size(trainer->config, &size);
    mt_device_describe(&trainer->session.device, device, sizeof(device));
    mt_log_line("moetrain %s: %s, %d rank%s on %d node%s, %s", MT_VERSION,
                trainer->config->run.name, topology->n_rank, topology->n_rank == 1 ? "" : "s",
                topology->n_node, topology->n_node == 1 ? "" : "s", device);
    if (trainer->session.device.why_cpu[0] != '\0') {
        mt_log_line("no GPU, so device.kind = \"auto\" is the CPU: %s",
                    trainer->session.device.why_cpu);
    }
    mt_log_line(
        "%.2f M parameters, %.2f M active per token, %.2f MFLOP per token; %lld steps of %lld "
        "sequences of %lld tokens",
        (double)size.n_parameter * 1e-6, (double)size.n_active * 1e-6,
        size.train_flops_per_token * 1e-6, (long long)trainer->config->train.steps,
        (long long)trainer->config->train.global_batch_size,
        (long long)trainer->config->model.max_seq_len);
}

static void tell_of_rehearsal(const struct mt_config *config)
{
    if (config->comm.rehearse_alpha_us > 0) {
        mt_log_line("rehearsal: every message between nodes is %lld us late "
                    "(comm.rehearse_alpha_us)",
                    (long long)config->comm.rehearse_alpha_us);
    }
}

/* A slowdown for a rank that is not there would be a study of nothing. */
static enum mt_status check_slowdown(const struct mt_config *config)
{
    const int n_rank = mt_job_size();
    for (int i = 0; i < config->device.n_slowdown; i++) {
        if (config->device.slowdown_rank[i] >= n_rank) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "device.slowdown names rank %d; this run has ranks 0 to %d; take it out "
                           "or start more ranks",
                           config->device.slowdown_rank[i], n_rank - 1);
        }
    }
    return MT_OK;
}

static bool is_due(int64_t step, int64_t interval)
{
    return interval > 0 && step % interval == 0;
}

/* A long evaluation gives way to a stop: it is then made when the run goes on. */
static enum mt_status evaluate_when_due(struct mt_trainer *trainer)
{
    const struct mt_config *config = trainer->config;
    const bool is_last = trainer->state.step == config->train.steps;
    const int64_t interval = config->train.eval_interval;
    if (trainer->validation.n_set == 0 || interval == 0 ||
        !(is_due(trainer->state.step, interval) || is_last)) {
        return MT_OK;
    }
    const struct mt_evaluation_options options = {.n_sequence = config->train.eval_sequences,
                                                  .micro_batch = trainer->split.micro_batch,
                                                  .wants_stop = mt_metrics_wants_stop,
                                                  .context = trainer};
    struct mt_evaluation evaluation;
    struct mt_span_totals before;
    const int64_t start_ns = mt_clock_ns();
    mt_span_totals(&before);
    MT_TRY(mt_session_evaluate(&trainer->session, &trainer->validation, &options, &evaluation));
    if (evaluation.is_stopped) {
        trainer->stop_requested = true;
        mt_log_line("the evaluation at step %lld gives way to the stop%s",
                    (long long)trainer->state.step,
                    is_last ? "; moetrain eval makes it" : ": it is made when the run goes on");
        return MT_OK;
    }
    return mt_metrics_evaluation(trainer, &evaluation, &before, mt_clock_ns() - start_ns);
}

/* Rank 0: the run goes on from the last step of the metrics, and they have no evaluation of it. */
static enum mt_status look_for_evaluation(const struct mt_trainer *trainer, int64_t *is_missing)
{
    const int64_t step = trainer->state.step;
    int64_t last = 0;
    bool has = false;
    MT_TRY(mt_metrics_last_step(trainer->dir.metrics, &last));
    MT_TRY(mt_metrics_has_evaluation(trainer->dir.metrics, step, &has));
    *is_missing = last == step && !has;
    return MT_OK;
}

/* The evaluation of the step that the run goes on from, if a stop came before it. */
static enum mt_status make_up_evaluation(struct mt_trainer *trainer)
{
    const bool looks = trainer->session.comm.rank == 0 && trainer->state.step > 0;
    int64_t is_missing = 0;
    MT_TRY(mt_job_agree(looks ? look_for_evaluation(trainer, &is_missing) : MT_OK));
    MT_TRY(mt_comm_sum_i64(&trainer->session.comm, &is_missing, 1));
    return is_missing > 0 ? evaluate_when_due(trainer) : MT_OK;
}

static enum mt_status save_when_due(struct mt_trainer *trainer)
{
    struct mt_interval *interval = &trainer->saving.interval;
    const int64_t step = trainer->state.step;
    const bool is_last = step == trainer->config->train.steps && mt_interval_saves(trainer->config);
    if (!is_last && !trainer->stop_requested && !mt_interval_is_due(interval, step)) {
        return MT_OK;
    }
    mt_interval_begin_save(interval, step);
    return mt_save(trainer, is_last || trainer->stop_requested);
}

/* A failure between two agreements is this rank's alone: the others wait for it in a collective. */
static void or_abort(enum mt_status status)
{
    if (status != MT_OK) {
        mt_job_abort(status);
    }
}

static enum mt_status stop(struct mt_trainer *trainer)
{
    mt_log_line("stopped after step %lld, saved: start it again to go on",
                (long long)trainer->state.step);
    MT_TRY(mt_profiling_finish(trainer));
    return MT_STOPPED;
}

static enum mt_status run_steps(struct mt_trainer *trainer)
{
    const int64_t n_step = trainer->config->train.steps;
    or_abort(make_up_evaluation(trainer));
    if (trainer->stop_requested) {
        return stop(trainer);
    }
    while (trainer->state.step < n_step) {
        struct mt_step_result result = {0};
        trainer->state.step++;
        mt_job_set_step(trainer->state.step);
        or_abort(mt_profiling_begin_step(trainer));
        const int64_t start_ns = mt_clock_ns();
        mt_span_reset(); /* a step's line has nothing of the evaluation or save before it */
        mt_comm_reset_traffic(&trainer->session.comm);
        or_abort(mt_traces_begin_step(trainer));
        or_abort(mt_train_step(trainer, &result));
        mt_record_step_end();
        result.step_time_ns = mt_clock_ns() - start_ns;
        or_abort(mt_traces_end_step(trainer, &result));
        or_abort(mt_metrics_step(trainer, &result));
        mt_resume_step_done(trainer);
        MT_TRY(mt_saving_advance(trainer));
        bool is_back = false;
        MT_TRY(mt_nonfinite_check(trainer, &result, &is_back));
        if (is_back) {
            continue;
        }
        or_abort(evaluate_when_due(trainer));
        MT_TRY(save_when_due(trainer));
        if (trainer->stop_requested && trainer->state.step < n_step) {
            return stop(trainer);
        }
    }
    mt_log_line("done: %lld steps, %lld tokens; metrics in %s", (long long)n_step,
                (long long)trainer->state.tokens_seen, trainer->dir.metrics);
    return mt_profiling_finish(trainer);
}

static enum mt_status run(struct mt_trainer *trainer, const struct mt_train_options *options)
{
    bool is_finished = false;
    describe(trainer);
    tell_of_rehearsal(trainer->config);
    connect_state(trainer);
    MT_TRY(mt_resume(trainer, options, &is_finished));
    if (is_finished) {
        mt_log_line(
            "nothing to do: %s has all %lld steps (train.steps); raise it to go on, or choose "
            "another --run-dir",
            trainer->dir.path, (long long)trainer->config->train.steps);
        return MT_OK;
    }
    MT_TRY(prepare_costs(trainer));
    MT_TRY(mt_store_publish(trainer->session.store));
    trainer->first_step = trainer->state.step;
    trainer->rolled_back = -1;
    mt_interval_init(&trainer->saving.interval, trainer->config, trainer->state.step);
    trainer->start_ns = mt_clock_ns();
    enum mt_status status = MT_OK;
    if (trainer->session.comm.rank == 0) {
        status = mt_run_dir_write_config(&trainer->dir, trainer->config);
    }
    MT_TRY(mt_job_agree(status));
    MT_TRY(mt_saving_open(trainer, options->versions));
    MT_TRY(mt_job_agree(mt_metrics_open(trainer)));
    MT_TRY(mt_profiling_open(trainer));
    MT_TRY(mt_traces_open(trainer));
    MT_TRY(mt_job_agree(mt_samples_open(trainer)));
    MT_TRY(mt_job_agree(mt_replicas_open(trainer)));
    /* A GPU has done all that came before: what failed is said now, and no step's time is of it. */
    MT_TRY(mt_job_agree(mt_device_wait(&trainer->session.device)));
    return run_steps(trainer);
}

/* An error that a user will mend and start again: nothing has been trained, nothing is left. */
static bool came_to_nothing(const struct mt_trainer *trainer, enum mt_status status)
{
    return status != MT_OK && status != MT_STOPPED && trainer->state.step == trainer->first_step;
}

enum mt_status mt_train(const struct mt_train_options *options)
{
    struct mt_trainer *trainer = NULL;
    enum mt_status status = mt_job_agree(MT_ALLOCATE(trainer, 1, "trainer"));
    if (status != MT_OK) {
        return status;
    }
    trainer->config = options->config;
    trainer->dir.lock_fd = -1;
    MT_TRY_GOTO(mt_job_agree(check_slowdown(trainer->config)));
    MT_TRY_GOTO(mt_job_agree(open_dir(trainer)));
    MT_TRY_GOTO(mt_trainer_open(trainer));
    MT_TRY_GOTO(run(trainer, options));
cleanup:
    mt_replicas_close(trainer);
    mt_resume_ended(trainer, status);
    mt_saving_close(trainer);
    mt_traces_close(trainer);
    mt_samples_close(trainer);
    mt_profiling_close(trainer);
    mt_metrics_close(trainer);
    mt_log_close();
    if (came_to_nothing(trainer, status)) {
        mt_run_dir_take_back(&trainer->dir);
    }
    mt_trainer_close(trainer);
    mt_run_dir_close(&trainer->dir);
    mt_memory_free(trainer);
    return status;
}
