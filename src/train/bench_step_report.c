/* The table of a timed step, and the same as JSON. */
#include "base/clock.h"
#include "train/bench_step.h"

#include <jansson.h>
#include <math.h>

static const double MIB = 1024.0 * 1024.0;

/* What the table is judged by (docs/performance.md). */
static const double MOST_OUTSIDE = 0.25;
static const double MOST_MEMORY = 1.1;

static const char *row_name(int row)
{
    return row < MT_N_PHASE ? mt_phase_name((enum mt_phase)row) : "between phases";
}

static double sum_work(const double value[MT_N_WORK])
{
    double sum = 0.0;
    for (int work = 0; work < MT_N_WORK; work++) {
        sum += value[work];
    }
    return sum;
}

/* The least time for so much work, and which of the two bounds it. */
struct bound {
    double time_s;
    const char *by;
};

static struct bound bound_of(const struct mt_step_report *report, double flops, double bytes)
{
    const double flops_s = flops * 1e-9 / report->peak_gflops;
    const double bytes_s =
        report->copy_gbytes_per_s > 0.0 ? bytes * 1e-9 / report->copy_gbytes_per_s : 0.0;
    if (flops_s <= 0.0 && bytes_s <= 0.0) {
        return (struct bound){0.0, "-"};
    }
    return flops_s >= bytes_s ? (struct bound){flops_s, "FLOPs"} : (struct bound){bytes_s, "bytes"};
}

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

struct totals {
    double flops; /* of all operations, all ranks */
    double product_flops;
    double product_s; /* products, and the products inside of mixed operations */
    double outside_s; /* the rest of the step */
};

/* A mixed operation's products are counted as fast as the step's other ones: what it takes longer
 * is its other work. */
static struct totals total_of(const struct mt_step_report *report)
{
    struct totals totals = {0};
    double sum_s = 0.0, product_s = 0.0, product_flops = 0.0, mixed_s = 0.0, mixed_flops = 0.0;
    for (int i = 0; i < MT_N_ACCOUNT_ROW; i++) {
        const struct mt_step_row *row = &report->row[i];
        sum_s += row->time_s;
        totals.flops += sum_work(row->flops) * (double)report->n_rank;
        product_s += row->work_s[MT_WORK_PRODUCT];
        product_flops += row->flops[MT_WORK_PRODUCT];
        mixed_s += row->work_s[MT_WORK_MIXED];
        mixed_flops += row->flops[MT_WORK_MIXED];
    }
    const double hidden_s = product_flops > 0.0 ? product_s * mixed_flops / product_flops : mixed_s;
    totals.product_flops = (product_flops + mixed_flops) * (double)report->n_rank;
    totals.product_s = product_s + fmin(mixed_s, hidden_s);
    totals.outside_s = fmax(0.0, sum_s - totals.product_s);
    return totals;
}

static double outside_share(const struct totals *totals)
{
    return ratio(totals->outside_s, totals->outside_s + totals->product_s);
}

static void print_head(const struct mt_step_report *report, FILE *out)
{
    const bool is_bfloat16 = report->config->device.dtype == MT_BFLOAT16;
    (void)fprintf(out,
                  "%s, %s: %d rank%s of %d thread%s, %lld tokens a step; %lld steps, after %lld "
                  "that are not timed\n"
                  "a rank's bounds, measured beside the others: %.1f GFLOP/s (%s), copies %.1f "
                  "GB/s\n",
                  report->config->run.name, is_bfloat16 ? "bfloat16" : "float32", report->n_rank,
                  report->n_rank == 1 ? "" : "s", report->n_thread,
                  report->n_thread == 1 ? "" : "s", (long long)report->n_token,
                  (long long)report->n_step, (long long)report->n_warm, report->peak_gflops,
                  report->isa, report->copy_gbytes_per_s);
    (void)fprintf(out,
                  "with a product's loads, between steps: %.1f GFLOP/s, %.2f of it (less beside a "
                  "busy hyperthread)\n\n",
                  report->loaded_gflops, report->loaded_gflops / report->peak_gflops);
}

static void print_phases(const struct mt_step_report *report, double sum_s, FILE *out)
{
    (void)fprintf(out, "%-22s %8s %6s %9s %8s %9s %-6s %8s\n", "phase", "ms", "share", "GFLOP",
                  "GB", "bound ms", "by", "of bound");
    for (int i = 0; i < MT_N_ACCOUNT_ROW; i++) {
        const struct mt_step_row *row = &report->row[i];
        const double flops = sum_work(row->flops);
        const double bytes = sum_work(row->bytes);
        const struct bound bound = bound_of(report, flops, bytes);
        if (row->time_s > 0.0) {
            (void)fprintf(out, "%-22s %8.2f %6.3f %9.3f %8.3f %9.2f %-6s %8.2f\n", row_name(i),
                          row->time_s * 1e3, row->time_s / sum_s, flops * 1e-9, bytes * 1e-9,
                          bound.time_s * 1e3, bound.by, bound.time_s / row->time_s);
        }
    }
    (void)fprintf(out,
                  "time: median, mean over ranks; bound: the larger of FLOPs / rate and bytes / "
                  "bandwidth. The bytes\nare counted as if no cache held any, so `of bound` may "
                  "exceed 1 where one does.\n\n");
}

/* What is neither a product nor a mixed operation, and what mixed ones take beside their products.
 */
static void print_outside(const struct mt_step_report *report, FILE *out)
{
    (void)fprintf(out, "%-22s %9s %9s %9s %8s %9s %8s %9s\n", "in milliseconds", "products",
                  "mixed", "others", "GB", "bound ms", "of bound", "no kernel");
    for (int i = 0; i < MT_N_ACCOUNT_ROW; i++) {
        const struct mt_step_row *row = &report->row[i];
        const double *work_s = row->work_s;
        const double bytes = row->bytes[MT_WORK_OTHER];
        const double bound_s = bound_of(report, row->flops[MT_WORK_OTHER], bytes).time_s;
        if (row->time_s > 0.0) {
            (void)fprintf(out, "%-22s %9.2f %9.2f %9.2f %8.3f %9.2f %8.2f %9.2f\n", row_name(i),
                          work_s[MT_WORK_PRODUCT] * 1e3, work_s[MT_WORK_MIXED] * 1e3,
                          work_s[MT_WORK_OTHER] * 1e3, bytes * 1e-9, bound_s * 1e3,
                          ratio(bound_s, work_s[MT_WORK_OTHER]),
                          fmax(0.0, row->time_s - sum_work(work_s)) * 1e3);
        }
    }
    (void)fprintf(
        out, "mixed: products and other work in one operation, as attention: what takes longer "
             "than its\nproducts at the rate of `products` is outside matrix products. GB "
             "and bound are of `others`.\n\n");
}

static void print_totals(const struct mt_step_report *report, const struct totals *totals,
                         FILE *out)
{
    const double n_token = (double)report->n_token;
    const double model = report->model_flops_per_token * n_token * 1e-9;
    const double executed = totals->flops * 1e-9;
    const double peak = report->peak_gflops * report->n_rank;
    /* cpu_s is of all threads of one rank, peak_gflops too. */
    const double by_rank = (double)report->n_thread / report->n_rank;
    (void)fprintf(out, "%-34s %10s %10s\n", "", "median", "best");
    (void)fprintf(out, "%-34s %10.2f %10.2f\n", "step, ms", report->step_s * 1e3,
                  report->best_s * 1e3);
    (void)fprintf(out, "%-34s %10.2f %10.2f\n", "  processor time in it, ms", report->cpu_s * 1e3,
                  report->best_cpu_s * 1e3);
    (void)fprintf(out, "%-34s %10.0f %10.0f\n", "tokens/s", n_token / report->step_s,
                  n_token / report->best_s);
    (void)fprintf(out, "%-34s %10.1f %10.1f  %.2f MFLOP a token, T x T\n",
                  "GFLOP/s by the model's count", model / report->step_s, model / report->best_s,
                  report->model_flops_per_token * 1e-6);
    (void)fprintf(out, "%-34s %10.3f %10.3f\n", "  of the measured peak",
                  model / report->step_s / peak, model / report->best_s / peak);
    (void)fprintf(out, "%-34s %10.3f\n", "  of it with a product's loads",
                  model / report->step_s / report->loaded_gflops / report->n_rank);
    (void)fprintf(out, "%-34s %10.3f %10.3f  as if no other program had the cores\n",
                  "  of the peak, by processor time",
                  model / report->cpu_s / report->peak_gflops * by_rank,
                  model / report->best_cpu_s / report->peak_gflops * by_rank);
    (void)fprintf(out, "%-34s %10.1f %10.1f  %.2f MFLOP a token, causal\n", "GFLOP/s as executed",
                  executed / report->step_s, executed / report->best_s,
                  totals->flops / n_token * 1e-6);
    (void)fprintf(out, "%-34s %10.3f %10.3f\n", "  of the measured peak",
                  executed / report->step_s / peak, executed / report->best_s / peak);
    (void)fprintf(out, "%-34s %10.3f %10s  of the step; at most %.2f in float32\n",
                  "outside matrix products", outside_share(totals), "", MOST_OUTSIDE);
    (void)fprintf(out, "%-34s %10.2f\n", "waiting for other ranks, ms", report->wait_s * 1e3);
    (void)fprintf(out, "%-34s %10.1f %10s  of it %.1f before there was a model\n",
                  "peak memory of a rank, MiB", (double)report->peak_bytes / MIB, "",
                  (double)report->start_bytes / MIB);
    (void)fprintf(out, "%-34s %10.1f\n", "  as `moetrain plan` predicts",
                  (double)report->planned_bytes / MIB);
    (void)fprintf(out, "%-34s %10.3f %10s  at most %.2f\n", "  ratio",
                  ratio((double)report->peak_bytes, (double)report->planned_bytes), "",
                  MOST_MEMORY);
    (void)fprintf(out, "%-34s %10.6f\n", "loss of the last step", report->loss);
}

void mt_step_report_table(const struct mt_step_report *report, FILE *out)
{
    const struct totals totals = total_of(report);
    print_head(report, out);
    print_phases(report, totals.product_s + totals.outside_s, out);
    print_outside(report, out);
    print_totals(report, &totals, out);
    (void)fflush(out);
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

/* JSON has no NaN. */
static void set_real(json_t *object, const char *key, double value)
{
    set(object, key, isfinite(value) ? json_real(value) : json_null());
}

static json_t *phase_object(const struct mt_step_report *report, const struct mt_step_row *row)
{
    json_t *object = json_object();
    const double flops = sum_work(row->flops);
    const double bytes = sum_work(row->bytes);
    const double products = row->flops[MT_WORK_PRODUCT] + row->flops[MT_WORK_MIXED];
    set_real(object, "time_s", row->time_s);
    set_real(object, "products_s", row->work_s[MT_WORK_PRODUCT]);
    set_real(object, "mixed_s", row->work_s[MT_WORK_MIXED]);
    set_real(object, "others_s", row->work_s[MT_WORK_OTHER]);
    set_real(object, "flops", flops);
    set_real(object, "product_flops", products);
    set_real(object, "bytes", bytes);
    set_real(object, "bound_s", bound_of(report, flops, bytes).time_s);
    return object;
}

void mt_step_report_json(const struct mt_step_report *report, FILE *out)
{
    const struct totals totals = total_of(report);
    const double model = report->model_flops_per_token * (double)report->n_token;
    json_t *object = json_object();
    json_t *phases = json_object();
    set(object, "name", json_string(report->config->run.name));
    set(object, "dtype",
        json_string(report->config->device.dtype == MT_BFLOAT16 ? "bfloat16" : "float32"));
    set(object, "ranks", json_integer(report->n_rank));
    set(object, "threads", json_integer(report->n_thread));
    set(object, "steps", json_integer((json_int_t)report->n_step));
    set(object, "tokens", json_integer((json_int_t)report->n_token));
    set_real(object, "step_s", report->step_s);
    set_real(object, "best_step_s", report->best_s);
    set_real(object, "cpu_s", report->cpu_s);
    set_real(object, "best_cpu_s", report->best_cpu_s);
    set_real(object, "model_flops", model);
    set_real(object, "executed_flops", totals.flops);
    set_real(object, "product_flops", totals.product_flops);
    set_real(object, "peak_gflops", report->peak_gflops);
    set_real(object, "loaded_gflops", report->loaded_gflops);
    set_real(object, "copy_gbytes_per_s", report->copy_gbytes_per_s);
    set_real(object, "share_of_peak",
             model * 1e-9 / report->step_s / report->peak_gflops / report->n_rank);
    set_real(object, "share_of_loaded",
             model * 1e-9 / report->step_s / report->loaded_gflops / report->n_rank);
    set_real(object, "share_of_peak_by_cpu",
             model * 1e-9 / report->best_cpu_s / report->peak_gflops * report->n_thread /
                 report->n_rank);
    set_real(object, "outside_products", outside_share(&totals));
    set_real(object, "wait_s", report->wait_s);
    set(object, "peak_bytes", json_integer((json_int_t)report->peak_bytes));
    set(object, "start_bytes", json_integer((json_int_t)report->start_bytes));
    set(object, "planned_bytes", json_integer((json_int_t)report->planned_bytes));
    set_real(object, "loss", report->loss);
    for (int i = 0; i < MT_N_ACCOUNT_ROW; i++) {
        if (report->row[i].time_s > 0.0) {
            set(phases, row_name(i), phase_object(report, &report->row[i]));
        }
    }
    set(object, "phases", phases); /* of the mean rank */
    (void)json_dumpf(object, out, JSON_COMPACT | JSON_REAL_PRECISION(17));
    (void)fputc('\n', out);
    (void)fflush(out);
    json_decref(object);
}
