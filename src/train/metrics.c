/* What a step tells: one line of JSON for programs, one line for people.
 *
 * Every rank's numbers travel in one all-gather at the end of the step; stop requests ride along,
 * so that all ranks stop after the same step. */
#include "base/job.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/internal.h"
#include "train/metrics_placement.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* Layout of one rank's block in the all-gather. */
enum {
    ITEM_STOP = 0,
    ITEM_STEP_TIME = 1,
    ITEM_WAIT = 2,
    ITEM_MEMORY = 3,
    ITEM_SAVE = 4,      /* enum mt_save_signal */
    ITEM_BLOCKED = 5,   /* by checkpoints, since the last line */
    ITEM_SAVE_COST = 6, /* the same and the writer's own time */
    ITEM_EVAL_TIME = 7, /* of the last evaluation */
    ITEM_LIVE = 8,      /* profile/live.h */
    ITEM_PHASE = ITEM_LIVE + MT_N_LIVE,
    ITEM_PHASE_WAIT = ITEM_PHASE + MT_N_PHASE,
    ITEM_TRAFFIC = ITEM_PHASE_WAIT + MT_N_PHASE,
    N_ITEM = ITEM_TRAFFIC + MT_MAX_TRAFFIC
};

static const double NS_PER_S = 1e9;

enum mt_status mt_metrics_open(struct mt_trainer *trainer)
{
    const int n_rank = trainer->session.comm.topology.n_rank;
    MT_TRY(MT_ALLOCATE(trainer->mine, N_ITEM, "metrics"));
    MT_TRY(MT_ALLOCATE(trainer->gathered, (int64_t)n_rank * N_ITEM, "metrics"));
    MT_TRY(mt_comm_reserve_small(&trainer->session.comm, N_ITEM));
    if (trainer->session.comm.rank != 0) {
        return MT_OK;
    }
    trainer->metrics = fopen(trainer->dir.metrics, trainer->state.step == 0 ? "w" : "a");
    if (trainer->metrics == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s; expected a writable run directory; choose another with "
                       "--run-dir",
                       trainer->dir.metrics);
    }
    if (trainer->config->run.tensorboard) {
        MT_TRY(mt_events_open(trainer->dir.tensorboard, trainer->state.step, &trainer->events));
    }
    if (fseek(trainer->metrics, 0, SEEK_END) != 0 || ftell(trainer->metrics) > 0) {
        return MT_OK; /* goes on below the lines of the resumed run */
    }
    char start[21];
    char device[256];
    mt_clock_utc(start);
    mt_device_describe(&trainer->session.device, device, sizeof(device));
    json_t *run = json_pack("{s:{s:s,s:s,s:s,s:s,s:i,s:s}}", "run", "name",
                            trainer->config->run.name, "version", MT_VERSION, "revision",
                            MT_REVISION, "start", start, "ranks", n_rank, "device", device);
    (void)json_dumpf(run, trainer->metrics, JSON_COMPACT);
    (void)fputc('\n', trainer->metrics);
    (void)fflush(trainer->metrics);
    json_decref(run);
    return MT_OK;
}

void mt_metrics_close(struct mt_trainer *trainer)
{
    if (trainer->metrics != NULL) {
        (void)fclose(trainer->metrics);
        trainer->metrics = NULL;
    }
    mt_events_close(trainer->events);
    trainer->events = NULL;
    mt_memory_free(trainer->mine);
    mt_memory_free(trainer->gathered);
    trainer->mine = NULL;
    trainer->gathered = NULL;
}

static double item(const struct mt_trainer *trainer, int rank, int index)
{
    return trainer->gathered[(int64_t)rank * N_ITEM + index];
}

static double item_sum(const struct mt_trainer *trainer, int index)
{
    double sum = 0;
    for (int r = 0; r < trainer->session.comm.topology.n_rank; r++) {
        sum += item(trainer, r, index);
    }
    return sum;
}

static double item_max(const struct mt_trainer *trainer, int index)
{
    double largest = item(trainer, 0, index);
    for (int r = 1; r < trainer->session.comm.topology.n_rank; r++) {
        largest = fmax(largest, item(trainer, r, index));
    }
    return largest;
}

static int rank_of(const struct mt_trainer *trainer, int index, double value)
{
    int rank = 0;
    while (item(trainer, rank, index) < value) {
        rank++;
    }
    return rank;
}

static double item_mean(const struct mt_trainer *trainer, int index)
{
    return item_sum(trainer, index) / trainer->session.comm.topology.n_rank;
}

/* Stop when asked, or when the next step would pass the wall-time limit. */
static bool wants_stop(const struct mt_trainer *trainer, const struct mt_step_result *result)
{
    const double limit_s = trainer->config->run.wall_time_minutes * 60.0;
    const double elapsed_s = (double)(mt_clock_ns() - trainer->start_ns) / NS_PER_S;
    const double step_s = (double)result->step_time_ns / NS_PER_S;
    return mt_job_stop_requested() || (limit_s > 0 && elapsed_s + step_s > limit_s);
}

/* Ranks whose item is at least so much. */
static int count(const struct mt_trainer *trainer, int index, double least)
{
    int n = 0;
    for (int r = 0; r < trainer->session.comm.topology.n_rank; r++) {
        n += item(trainer, r, index) >= least;
    }
    return n;
}

static enum mt_status gather_saving(struct mt_trainer *trainer, double *mine)
{
    struct mt_saving *saving = &trainer->saving;
    enum mt_save_signal signal = MT_SIGNAL_NONE;
    MT_TRY(mt_saver_signal(saving->saver, &signal));
    const int64_t blocked_ns = mt_saver_times(saving->saver)->blocked_ns;
    mine[ITEM_SAVE] = signal;
    mine[ITEM_BLOCKED] = (double)(blocked_ns - saving->told_blocked_ns) / NS_PER_S;
    saving->told_blocked_ns = blocked_ns;
    const int64_t cost_ns = blocked_ns + mt_saver_times(saving->saver)->cpu_ns;
    mine[ITEM_SAVE_COST] = (double)(cost_ns - saving->told_cost_ns) / NS_PER_S;
    saving->told_cost_ns = cost_ns;
    return MT_OK;
}

static enum mt_status gather(struct mt_trainer *trainer, const struct mt_step_result *result)
{
    struct mt_comm *comm = &trainer->session.comm;
    struct mt_span_totals totals;
    double *mine = trainer->mine;
    memset(mine, 0, N_ITEM * sizeof(*mine));
    mt_span_totals(&totals);
    mine[ITEM_STOP] = wants_stop(trainer, result) ? 1.0 : 0.0;
    mine[ITEM_STEP_TIME] = (double)result->step_time_ns / NS_PER_S;
    mine[ITEM_WAIT] = (double)totals.exposed_wait_ns / NS_PER_S;
    mine[ITEM_MEMORY] = (double)mt_memory_peak_resident_bytes();
    MT_TRY(gather_saving(trainer, mine));
    mt_live_measure(mine + ITEM_LIVE);
    for (int p = 0; p < MT_N_PHASE; p++) {
        mine[ITEM_PHASE + p] = (double)totals.phase_ns[p] / NS_PER_S;
        mine[ITEM_PHASE_WAIT + p] = (double)totals.wait_ns[p] / NS_PER_S;
    }
    for (int t = 0; t < comm->n_traffic; t++) {
        mine[ITEM_TRAFFIC + t] = (double)comm->traffic[t].sent_bytes;
    }
    mt_span_begin(MT_PHASE_METRICS); /* for the watchdog: ranks meet here */
    MT_TRY(mt_comm_gather_f64(comm, mine, N_ITEM, trainer->gathered));
    mt_span_end(MT_PHASE_METRICS);
    trainer->stop_requested = item_sum(trainer, ITEM_STOP) > 0;
    trainer->saving.n_done = count(trainer, ITEM_SAVE, MT_SIGNAL_DONE);
    trainer->saving.n_failed = count(trainer, ITEM_SAVE, MT_SIGNAL_FAILED);
    mt_interval_add_step(&trainer->saving.interval, item_max(trainer, ITEM_STEP_TIME),
                         item_max(trainer, ITEM_SAVE_COST));
    return MT_OK;
}

int64_t mt_metrics_step_ns(const struct mt_trainer *trainer)
{
    return (int64_t)(item_max(trainer, ITEM_STEP_TIME) * NS_PER_S);
}

/* JSON has no NaN: null says that the number is not finite. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static void set_phases(json_t *object, const struct mt_trainer *trainer)
{
    json_t *mean = json_object();
    json_t *ratio = json_object();
    json_t *wait = json_object();
    for (int p = 0; p < MT_N_PHASE; p++) {
        const double seconds = item_mean(trainer, ITEM_PHASE + p);
        if (seconds > 0) {
            set(mean, mt_phase_name((enum mt_phase)p), real(seconds));
            set(ratio, mt_phase_name((enum mt_phase)p),
                real(item_max(trainer, ITEM_PHASE + p) / seconds));
            set(wait, mt_phase_name((enum mt_phase)p),
                real(item_mean(trainer, ITEM_PHASE_WAIT + p)));
        }
    }
    set(object, "phase_s", mean);
    set(object, "phase_max_over_mean", ratio);
    set(object, "phase_wait_s", wait);
}

static void set_traffic(json_t *object, const struct mt_trainer *trainer)
{
    json_t *bytes = json_object();
    const struct mt_comm *comm = &trainer->session.comm;
    for (int t = 0; t < comm->n_traffic; t++) {
        set(bytes, comm->traffic[t].name,
            json_integer((json_int_t)item_sum(trainer, ITEM_TRAFFIC + t)));
    }
    set(object, "bytes_sent", bytes);
}

/* What each source has given so far, where there are several. */
static void set_sources(json_t *object, const struct mt_trainer *trainer)
{
    const int n = mt_mixture_n_source(trainer->data);
    if (n == 1) {
        return;
    }
    json_t *drawn = json_object();
    for (int k = 0; k < n; k++) {
        const int64_t given = mt_mixture_drawn(trainer->data, k, trainer->state.next_sequence);
        set(drawn, mt_mixture_name(trainer->data, k), json_integer((json_int_t)given));
    }
    set(object, "data_sequences", drawn);
}

static void set_moe(json_t *object, const struct mt_moe_stats *moe)
{
    json_t *layers = json_array();
    for (int l = 0; l < moe->n_moe_layer; l++) {
        (void)json_array_append_new(layers, real(moe->load_max_over_mean_layer[l]));
    }
    set(object, "balance_loss", real(moe->balance_loss));
    set(object, "z_loss", real(moe->z_loss));
    set(object, "expert_load_max_over_mean", real(moe->load_max_over_mean));
    set(object, "expert_load_max_over_mean_by_layer", layers);
    set(object, "rank_load_max_over_mean", real(moe->rank_max_over_mean));
    set(object, "dead_experts", json_integer((json_int_t)moe->n_dead));
    set(object, "dropped_fraction", real(moe->dropped_fraction));
    if (moe->n_moe_layer > 0) {
        set(object, "placement", mt_metrics_placement(moe));
    }
}

static void set_saving(json_t *object, const struct mt_trainer *trainer)
{
    const struct mt_saver_times *times = mt_saver_times(trainer->saving.saver);
    const double largest = item_max(trainer, ITEM_BLOCKED);
    json_t *saving = json_object();
    set(saving, "blocked", real(largest));
    set(saving, "blocked_rank", json_integer(rank_of(trainer, ITEM_BLOCKED, largest)));
    set(saving, "saved", json_integer((json_int_t)times->n_saved));
    set(saving, "overtaken", json_integer((json_int_t)trainer->saving.n_overtaken));
    set(saving, "stage", real((double)times->stage_ns / NS_PER_S));
    set(saving, "write", real((double)times->write_ns / NS_PER_S));
    set(saving, "read_back", real((double)times->read_back_ns / NS_PER_S));
    set(saving, "commit", real((double)times->commit_ns / NS_PER_S));
    set(object, "checkpoint_s", saving);
}

double mt_metrics_flops(const struct mt_trainer *trainer, const struct mt_step_result *result)
{
    const double n_token = (double)result->n_token;
    const double n_full = n_token * (double)trainer->config->model.max_seq_len;
    return n_token * trainer->train_flops_per_token -
           (n_full - result->n_score) * trainer->train_flops_per_score;
}

static json_t *step_line(const struct mt_trainer *trainer, const struct mt_step_result *result)
{
    const double step_s = item_max(trainer, ITEM_STEP_TIME);
    const double tokens_per_s = (double)result->n_token / step_s;
    const double flops_per_s = mt_metrics_flops(trainer, result) / step_s;
    const double peak =
        trainer->config->device.pace_gflops * 1e9 * trainer->session.comm.topology.n_rank;
    json_t *line = json_object();
    set(line, "step", json_integer((json_int_t)trainer->state.step));
    set(line, "tokens_seen", json_integer((json_int_t)trainer->state.tokens_seen));
    set(line, "loss", real(result->loss));
    set(line, "grad_norm", real(result->grad_norm));
    set(line, "lr", real(result->lr));
    set_moe(line, &result->moe);
    set(line, "skipped", json_integer((json_int_t)trainer->state.n_skipped));
    set(line, "step_time_s", real(step_s));
    set(line, "tokens_per_s", real(tokens_per_s));
    set(line, "model_flops_per_s", real(flops_per_s));
    /* Only a paced device states its peak; an ordinary CPU does not. */
    set(line, "mfu", peak > 0 ? real(flops_per_s / peak) : json_null());
    set(line, "memory_peak_bytes", json_integer((json_int_t)item_max(trainer, ITEM_MEMORY)));
    set_phases(line, trainer);
    set(line, "exposed_comm_s", real(item_mean(trainer, ITEM_WAIT)));
    set_traffic(line, trainer);
    set_sources(line, trainer);
    if (trainer->config->checkpoint.interval > 0) {
        set_saving(line, trainer);
    }
    return line;
}

static enum mt_status write_line(struct mt_trainer *trainer, json_t *line)
{
    const bool failed =
        json_dumpf(line, trainer->metrics, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
        fputc('\n', trainer->metrics) == EOF || fflush(trainer->metrics) != 0;
    const enum mt_status status =
        failed ? MT_FAIL(MT_ERR_RESOURCE,
                         "cannot write %s: the disk may be full; expected space for one line a "
                         "step; free some and start again: the last checkpoint is kept",
                         trainer->dir.metrics)
               : mt_events_write(trainer->events, trainer->state.step, line);
    json_decref(line);
    return status;
}

static void show_progress(const struct mt_trainer *trainer, const struct mt_step_result *result)
{
    const struct mt_run_state *state = &trainer->state;
    const int64_t n_step = trainer->config->train.steps;
    const double elapsed_s = (double)(mt_clock_ns() - trainer->start_ns) / NS_PER_S;
    const double per_step_s = elapsed_s / (double)(state->step - trainer->first_step);
    const int64_t left_s = (int64_t)(per_step_s * (double)(n_step - state->step) + 0.5);
    const double step_s = item_max(trainer, ITEM_STEP_TIME);
    char straggler[64] = "";
    if (trainer->profiling.is_on) {
        mt_live_print(&trainer->profiling.live, straggler, sizeof(straggler));
    }
    /* What matters most comes first: a terminal of 80 columns cuts the line. */
    mt_log_progress("step %lld/%lld  left %lld:%02lld:%02lld%s  loss %.4f  grad %.3g  lr %.3g  "
                    "%.0f tok/s  load %.2f  %.3f s/step%s",
                    (long long)state->step, (long long)n_step, (long long)(left_s / 3600),
                    (long long)(left_s / 60 % 60), (long long)(left_s % 60), straggler,
                    result->loss, result->grad_norm, result->lr, (double)result->n_token / step_s,
                    result->moe.rank_max_over_mean, step_s,
                    result->skipped ? "  skipped: not finite" : "");
}

enum mt_status mt_metrics_step(struct mt_trainer *trainer, const struct mt_step_result *result)
{
    enum mt_status status = MT_OK;
    MT_TRY(gather(trainer, result));
    if (trainer->session.comm.rank != 0) {
        return MT_OK;
    }
    if (trainer->profiling.is_on) {
        status = mt_live_add(&trainer->profiling.live, trainer->gathered + ITEM_LIVE, N_ITEM);
    }
    MT_TRY(status);
    status = write_line(trainer, step_line(trainer, result));
    show_progress(trainer, result);
    return status;
}

bool mt_metrics_wants_stop(void *context)
{
    const struct mt_trainer *trainer = context;
    const double limit_s = trainer->config->run.wall_time_minutes * 60.0;
    const double elapsed_s = (double)(mt_clock_ns() - trainer->start_ns) / NS_PER_S;
    return mt_job_stop_requested() || (limit_s > 0 && elapsed_s > limit_s);
}

/* Times of the evaluation in the places of a step's; what else the last step gathered stays. */
static enum mt_status gather_evaluation(struct mt_trainer *trainer,
                                        const struct mt_span_totals *before, int64_t time_ns)
{
    struct mt_span_totals now;
    double *mine = trainer->mine;
    mt_span_totals(&now);
    mine[ITEM_EVAL_TIME] = (double)time_ns / NS_PER_S;
    mine[ITEM_WAIT] = (double)(now.exposed_wait_ns - before->exposed_wait_ns) / NS_PER_S;
    for (int p = 0; p < MT_N_PHASE; p++) {
        mine[ITEM_PHASE + p] = (double)(now.phase_ns[p] - before->phase_ns[p]) / NS_PER_S;
        mine[ITEM_PHASE_WAIT + p] = (double)(now.wait_ns[p] - before->wait_ns[p]) / NS_PER_S;
    }
    return mt_comm_gather_f64(&trainer->session.comm, mine, N_ITEM, trainer->gathered);
}

static void set_losses_by_set(json_t *line, const struct mt_validation *validation,
                              const struct mt_evaluation *evaluation)
{
    json_t *by_set = json_object();
    for (int s = 0; s < validation->n_set; s++) {
        set(by_set, validation->name[s], real(evaluation->set_loss[s]));
        mt_log_line("eval of %s: loss %.4f over %lld tokens", validation->name[s],
                    evaluation->set_loss[s], (long long)evaluation->set_n_token[s]);
    }
    set(line, "eval_loss_by_set", by_set);
}

enum mt_status mt_metrics_evaluation(struct mt_trainer *trainer,
                                     const struct mt_evaluation *evaluation,
                                     const struct mt_span_totals *before, int64_t time_ns)
{
    MT_TRY(gather_evaluation(trainer, before, time_ns));
    if (trainer->session.comm.rank != 0) {
        return MT_OK;
    }
    mt_log_line("eval at step %lld: loss %.4f over %lld tokens", (long long)trainer->state.step,
                evaluation->loss, (long long)evaluation->n_token);
    json_t *line = json_object();
    set(line, "step", json_integer((json_int_t)trainer->state.step));
    set(line, "eval_loss", real(evaluation->loss));
    set(line, "eval_tokens", json_integer((json_int_t)evaluation->n_token));
    if (trainer->validation.is_named) {
        set_losses_by_set(line, &trainer->validation, evaluation);
    }
    set(line, "eval_time_s", real(item_max(trainer, ITEM_EVAL_TIME)));
    set_phases(line, trainer);
    set(line, "exposed_comm_s", real(item_mean(trainer, ITEM_WAIT)));
    return write_line(trainer, line);
}
