#include "train/bench_step.h"

#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "base/sort.h"
#include "device/isa.h"
#include "train/costs.h"
#include "train/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double NS_PER_S = 1e9;

/* Of one step on one rank, or of all its steps: only doubles, so that ranks can exchange it as an
 * array. */
struct sample {
    double step_s, cpu_s, wait_s, loaded_gflops;
    double phase_s[MT_N_ACCOUNT_ROW];
    double work_s[MT_N_ACCOUNT_ROW][MT_N_WORK];
    double flops[MT_N_ACCOUNT_ROW][MT_N_WORK]; /* from here on means, before it medians */
    double bytes[MT_N_ACCOUNT_ROW][MT_N_WORK];
};
enum {
    N_SAMPLE = (int)(sizeof(struct sample) / sizeof(double)),
    N_TIME = (int)(offsetof(struct sample, flops) / sizeof(double)),
    N_BEST = (int)(offsetof(struct sample, wait_s) / sizeof(double)) /* those kept at their least */
};

/* What a rank tells about all its steps. */
struct verdict {
    struct sample sample;
    double best_s, best_cpu_s, loss, model_flops, peak_bytes, start_bytes, peak_gflops,
        copy_gbytes_per_s;
};
enum { N_VERDICT = (int)(sizeof(struct verdict) / sizeof(double)) };

struct bench {
    struct mt_config *config;
    struct mt_trainer *trainer;
    struct mt_account account;
    double *sample; /* [n_step, N_SAMPLE] */
    double *column; /* [n_step] */
    struct verdict mine;
    double *all; /* [R, N_VERDICT] */
};

/* The run that is timed: as configured, but it records nothing. */
static enum mt_status prepare(struct bench *b, const struct mt_bench_step *bench)
{
    MT_TRY(MT_ALLOCATE(b->config, 1, "configuration"));
    *b->config = *bench->config;
    b->config->train.steps =
        mt_max_i64(bench->config->train.steps, bench->n_warm + bench->n_step); /* of the schedule */
    b->config->checkpoint.interval = 0;
    MT_TRY(MT_ALLOCATE(b->sample, bench->n_step * N_SAMPLE, "times"));
    MT_TRY(MT_ALLOCATE(b->column, bench->n_step, "times"));
    MT_TRY(MT_ALLOCATE(b->all, (int64_t)mt_job_size() * N_VERDICT, "times of ranks"));
    return MT_ALLOCATE(b->trainer, 1, "trainer");
}

static enum mt_status open_trainer(struct bench *b)
{
    MT_TRY(mt_bench_open(b->trainer, b->config, N_VERDICT));
    b->trainer->session.device.account = &b->account;
    return MT_OK;
}

static void take_sample(const struct bench *b, int64_t elapsed_ns, int64_t cpu_ns, double *values)
{
    struct sample sample = {.step_s = (double)elapsed_ns / NS_PER_S,
                            .cpu_s = (double)cpu_ns / NS_PER_S,
                            .loaded_gflops = mt_measure_loaded_gflops(b->config->device.dtype)};
    struct mt_span_totals totals;
    int64_t rest_ns = elapsed_ns;
    mt_span_totals(&totals);
    sample.wait_s = (double)totals.exposed_wait_ns / NS_PER_S;
    for (int p = 0; p < MT_N_PHASE; p++) {
        sample.phase_s[p] = (double)totals.phase_ns[p] / NS_PER_S;
        rest_ns -= totals.phase_ns[p];
    }
    sample.phase_s[MT_N_PHASE] = (double)mt_max_i64(rest_ns, 0) / NS_PER_S;
    for (int row = 0; row < MT_N_ACCOUNT_ROW; row++) {
        for (int work = 0; work < MT_N_WORK; work++) {
            const struct mt_work_sum *sum = &b->account.sum[row][work];
            sample.work_s[row][work] = (double)sum->time_ns / NS_PER_S;
            sample.flops[row][work] = sum->flops;
            sample.bytes[row][work] = sum->bytes;
        }
    }
    memcpy(values, &sample, sizeof(sample));
}

/* values: NULL for a step that is not timed. */
static enum mt_status make_step(struct bench *b, double *values)
{
    struct mt_trainer *trainer = b->trainer;
    struct mt_step_result result = {0};
    MT_TRY(mt_bench_begin_step(trainer));
    memset(&b->account, 0, sizeof(b->account));
    const int64_t cpu_start_ns = mt_clock_cpu_ns();
    const int64_t start_ns = mt_clock_ns();
    mt_bench_train_step(trainer, &result);
    const int64_t elapsed_ns = mt_clock_ns() - start_ns;
    b->mine.loss = result.loss;
    b->mine.model_flops = mt_metrics_flops(b->trainer, &result);
    if (result.skipped) { /* on every rank */
        return mt_job_agree(
            MT_FAIL(MT_ERR_DIVERGED,
                    "step %lld has loss %g and gradient norm %g, so nothing was updated; "
                    "expected steps that can be timed; lower optimizer.lr",
                    (long long)trainer->state.step, result.loss, result.grad_norm));
    }
    if (values != NULL) {
        take_sample(b, elapsed_ns, mt_clock_cpu_ns() - cpu_start_ns, values);
    }
    return MT_OK;
}

/* Median of column `item` of the samples, or its mean. Leaves the column sorted. */
static double middle(struct bench *b, int64_t n_step, int item)
{
    double sum = 0.0;
    for (int64_t step = 0; step < n_step; step++) {
        b->column[step] = b->sample[step * N_SAMPLE + item];
        sum += b->column[step];
    }
    if (item >= N_TIME) {
        return sum / (double)n_step;
    }
    mt_sort_f64(b->column, n_step);
    return 0.5 * (b->column[(n_step - 1) / 2] + b->column[n_step / 2]);
}

static void sum_up(struct bench *b, int64_t n_step)
{
    double values[N_SAMPLE];
    double best[N_BEST];
    for (int item = 0; item < N_SAMPLE; item++) {
        values[item] = middle(b, n_step, item);
        if (item < N_BEST) {
            best[item] = b->column[0];
        }
    }
    memcpy(&b->mine.sample, values, sizeof(values));
    b->mine.best_s = best[0];
    b->mine.best_cpu_s = best[1];
}

/* What one core does in the type of the run's products. */
static double peak_gflops(const struct bench *b)
{
    return mt_measure_peak_gflops(b->config->device.dtype);
}

static enum mt_status run(struct bench *b, const struct mt_bench_step *bench)
{
    struct mt_comm *comm = &b->trainer->session.comm;
    const double n_thread = (double)b->trainer->session.device.n_thread;
    int64_t nothing = 0; /* a sum of it is a meeting: all ranks measure at once, as they compute */
    for (int64_t step = 0; step < bench->n_warm; step++) {
        MT_TRY(make_step(b, NULL));
    }
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    const double before = peak_gflops(b);
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    for (int64_t step = 0; step < bench->n_step; step++) {
        MT_TRY(make_step(b, b->sample + step * N_SAMPLE));
    }
    sum_up(b, bench->n_step);
    /* Before the bandwidth is measured: its 256 MiB would count. */
    b->mine.peak_bytes = (double)mt_memory_peak_resident_bytes();
    MT_TRY(mt_comm_sum_i64(comm, &nothing, 1));
    b->mine.peak_gflops = n_thread * fmax(before, peak_gflops(b));
    b->mine.copy_gbytes_per_s = n_thread * mt_measure_copy_gbytes_per_s();
    return mt_comm_gather_f64(comm, (const double *)&b->mine, N_VERDICT, b->all);
}

static void add_rank(struct mt_step_report *report, const struct verdict *verdict)
{
    const struct sample *sample = &verdict->sample;
    const double share = 1.0 / (double)report->n_rank;
    report->step_s = fmax(report->step_s, sample->step_s);
    report->best_s = fmax(report->best_s, verdict->best_s);
    report->cpu_s = fmax(report->cpu_s, sample->cpu_s);
    report->best_cpu_s = fmax(report->best_cpu_s, verdict->best_cpu_s);
    report->wait_s += share * sample->wait_s;
    report->peak_gflops += share * verdict->peak_gflops;
    report->loaded_gflops += share * sample->loaded_gflops * report->n_thread;
    report->copy_gbytes_per_s += share * verdict->copy_gbytes_per_s;
    for (int i = 0; i < MT_N_ACCOUNT_ROW; i++) {
        struct mt_step_row *row = &report->row[i];
        row->time_s += share * sample->phase_s[i];
        for (int work = 0; work < MT_N_WORK; work++) {
            row->work_s[work] += share * sample->work_s[i][work];
            row->flops[work] += share * sample->flops[i][work];
            row->bytes[work] += share * sample->bytes[i][work];
        }
    }
    if (verdict->peak_bytes > (double)report->peak_bytes) {
        report->peak_bytes = (int64_t)verdict->peak_bytes;
        report->start_bytes = (int64_t)verdict->start_bytes;
    }
}

static enum mt_status report(const struct bench *b, const struct mt_bench_step *bench, FILE *out)
{
    const struct mt_trainer *trainer = b->trainer;
    struct mt_memory_estimate estimate;
    struct mt_step_report report = {
        .config = b->config,
        .isa = mt_isa_name(mt_isa_detect()),
        .n_rank = trainer->session.comm.topology.n_rank,
        .n_thread = trainer->session.device.n_thread,
        .n_warm = bench->n_warm,
        .n_step = bench->n_step,
        .n_token = b->config->train.global_batch_size * b->config->model.max_seq_len,
        .loss = b->mine.loss,
    };
    report.model_flops_per_token = b->mine.model_flops / (double)report.n_token;
    MT_TRY(
        mt_session_estimate(b->config, report.n_rank, true, trainer->split.micro_batch, &estimate));
    report.planned_bytes = estimate.total + estimate.program;
    for (int rank = 0; rank < report.n_rank; rank++) {
        struct verdict verdict;
        memcpy(&verdict, b->all + (int64_t)rank * N_VERDICT, sizeof(verdict));
        add_rank(&report, &verdict);
    }
    (bench->as_json ? mt_step_report_json : mt_step_report_table)(&report, out);
    return MT_OK;
}

enum mt_status mt_bench_step(const struct mt_bench_step *bench, FILE *out)
{
    struct bench *b = NULL;
    enum mt_status status = MT_OK;
    MT_ASSERT(bench->n_warm >= 0 && bench->n_step >= 1);
    MT_TRY(mt_job_agree(MT_ALLOCATE(b, 1, "step benchmark")));
    b->mine.start_bytes = (double)mt_memory_peak_resident_bytes();
    MT_TRY_GOTO(mt_job_agree(prepare(b, bench)));
    MT_TRY_GOTO(open_trainer(b));
    MT_TRY_GOTO(run(b, bench));
    MT_TRY_GOTO(mt_job_agree(mt_job_rank() == 0 ? report(b, bench, out) : MT_OK));
cleanup:
    mt_bench_close(b->trainer);
    mt_memory_free(b->all);
    mt_memory_free(b->column);
    mt_memory_free(b->sample);
    mt_memory_free(b->config);
    mt_memory_free(b);
    return status;
}
