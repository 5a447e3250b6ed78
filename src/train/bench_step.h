/* The trainer's own step, timed phase by phase against what the machine can do. Writes nothing but
 * its table: no run directory, no checkpoint. */
#ifndef MT_TRAIN_BENCH_STEP_H
#define MT_TRAIN_BENCH_STEP_H

#include "base/status.h"
#include "config/config.h"
#include "device/account.h"

#include <stdio.h>

struct mt_bench_step {
    const struct mt_config *config;
    int64_t n_warm, n_step; /* steps that are not timed, then steps that are; n_step >= 1 */
    bool as_json;           /* one JSON object instead of the table */
};

/* Collective, agreed; rank 0 prints. */
enum mt_status mt_bench_step(const struct mt_bench_step *bench, FILE *out);

/* ---- What was measured: bench_step.c fills it, bench_step_report.c prints it ---- */

/* One phase on the mean rank; the last row is what lies between phases. */
struct mt_step_row {
    double time_s;
    double work_s[MT_N_WORK]; /* in operations of each kind; the rest of time_s is in none */
    double flops[MT_N_WORK], bytes[MT_N_WORK];
};

struct mt_step_report {
    const struct mt_config *config;
    const char *isa;
    int n_rank, n_thread;
    int64_t n_warm, n_step, n_token; /* tokens of a step, all ranks */
    double peak_gflops;              /* of the mean rank, all its threads, in the run's dtype */
    double loaded_gflops;            /* the same with a product's loads, the median between steps */
    double copy_gbytes_per_s;        /* likewise */
    struct mt_step_row row[MT_N_ACCOUNT_ROW];
    double step_s, best_s;    /* of the slowest rank: median, shortest */
    double cpu_s, best_cpu_s; /* the processor time in it, all threads; less: others had the core */
    double wait_s;            /* for other ranks, mean */
    double loss;              /* of the last step */
    double model_flops_per_token;
    int64_t peak_bytes;    /* largest resident set of a rank */
    int64_t start_bytes;   /* of it, before there was a model: the program and its libraries */
    int64_t planned_bytes; /* resident, as `moetrain plan` predicts for the rank that holds most */
};

void mt_step_report_table(const struct mt_step_report *report, FILE *out);
void mt_step_report_json(const struct mt_step_report *report, FILE *out);

#endif
