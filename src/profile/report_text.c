/* The report as plain text: the same numbers, for terminals and mail. */
#include "profile/report_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Ranks that are printed; of more, those that others wait for most. */
enum { TEXT_RANKS = 16, TEXT_PATH = 8 };

static void heading(FILE *out, const char *text)
{
    (void)fprintf(out, "\n%s\n", text);
}

static void print_ranks(const struct mt_report *report, FILE *out)
{
    const struct mt_analysis *analysis = &report->analysis;
    const double n = fmax(1, analysis->n_detailed);
    int rank[TEXT_RANKS];
    int n_rank = 0;
    for (int r = 0; r < report->n_rank; ++r) {
        /* insertion by what they caused; of equal ones the lower rank first */
        int at = n_rank < TEXT_RANKS ? n_rank++ : TEXT_RANKS - 1;
        if (at == TEXT_RANKS - 1 && r >= TEXT_RANKS &&
            analysis->caused_ns[rank[at]] >= analysis->caused_ns[r]) {
            continue;
        }
        for (; at > 0 && analysis->caused_ns[rank[at - 1]] < analysis->caused_ns[r]; --at) {
            rank[at] = rank[at - 1];
        }
        rank[at] = r;
    }
    heading(out, "rank  node         at work     waited   messages  made wait  equal work  rows  "
                 "mostly in");
    for (int i = 0; i < n_rank; ++i) {
        const int r = rank[i];
        char text[4][MT_REPORT_LINE_BYTES];
        char phase[MT_REPORT_LINE_BYTES];
        mt_report_time(report->work_ns[r], text[0]);
        mt_report_time((double)analysis->wait_ns[r] / n, text[1]);
        mt_report_time((double)analysis->transfer_ns[r] / n, text[2]);
        mt_report_time(mt_report_caused_ns(report, r), text[3]);
        mt_report_phase_name(mt_report_blamed_phase(report, r), false, phase);
        (void)fprintf(out, "%4d  %-10.10s %9s  %9s  %9s  %9s  %10.2f  %4.2f  %s\n", r,
                      report->profile.rank[r].host, text[0], text[1], text[2], text[3],
                      analysis->slowdown[r], analysis->rows_ratio[r],
                      analysis->caused_ns[r] > 0 ? phase : "");
    }
    if (report->n_rank > TEXT_RANKS) {
        (void)fprintf(out, "      and %d more ranks that others wait for less\n",
                      report->n_rank - TEXT_RANKS);
    }
}

/* Where messages between nodes are there last. */
static void print_nodes(const struct mt_report *report, FILE *out)
{
    enum { TEXT_NODES = 16 };
    const struct mt_analysis *analysis = &report->analysis;
    if (analysis->n_node == 1 || analysis->n_node > TEXT_NODES) {
        return;
    }
    heading(out, "messages between nodes: missed when all others were there, by a rank elsewhere");
    for (int node = 0; node < analysis->n_node; ++node) {
        char name[MT_REPORT_LINE_BYTES];
        char missed[MT_REPORT_LINE_BYTES];
        mt_report_node_name(report, node, name);
        mt_report_time(mt_report_missed_ns(report, node), missed);
        (void)fprintf(out, "%9s a step  %s\n", missed, name);
    }
}

static void print_phases(const struct mt_report *report, FILE *out)
{
    heading(out, "phase                       mean   slowest  ratio  worst rank    waiting");
    for (int i = 0; i < report->n_phase; ++i) {
        const struct mt_report_phase *phase = &report->phase[i];
        char text[3][MT_REPORT_LINE_BYTES];
        char worst[16] = "";
        mt_report_time(phase->mean_ns, text[0]);
        mt_report_time(phase->max_ns, text[1]);
        mt_report_time(phase->wait_ns, text[2]);
        if (phase->is_uneven) {
            (void)snprintf(worst, sizeof(worst), "%d", phase->worst_rank);
        }
        (void)fprintf(out, "%-22s %9s %9s  %5.2f  %10s  %9s\n",
                      mt_phase_name((enum mt_phase)phase->phase), text[0], text[1],
                      phase->mean_ns > 0 ? phase->max_ns / phase->mean_ns : 1.0, worst, text[2]);
    }
}

static void print_changes(const struct mt_report *report, FILE *out)
{
    char measured[MT_REPORT_LINE_BYTES];
    char modelled[MT_REPORT_LINE_BYTES];
    if (mt_replay_n_step(report->replay) == 0) {
        heading(out, "what if: no step was recorded in detail by all ranks");
        return;
    }
    mt_report_time(mt_replay_measured_ns(report->replay), measured);
    mt_report_time(report->model_ns, modelled);
    (void)fprintf(out,
                  "\nwhat if (%d steps replayed, measured %s; with the messages of other steps "
                  "%s: the model is %.2f %% off)\n",
                  mt_replay_n_step(report->replay), measured, modelled,
                  fabs(mt_report_error(report)) * 100);
    for (int i = 0; i < report->n_change; ++i) {
        const struct mt_report_change *change = &report->change[i];
        char text[MT_REPORT_LINE_BYTES];
        mt_report_time(change->step_ns, text);
        (void)fprintf(out, "%5.1f %% less, %9s a step, if %s%s\n", change->gain * 100, text,
                      change->name, change->is_finding ? "  <- the finding" : "");
    }
}

static void print_critical(const struct mt_report *report, FILE *out)
{
    if (report->n_critical == 0) {
        return;
    }
    heading(out, "critical path");
    for (int i = 0; i < report->n_critical && i < TEXT_PATH; ++i) {
        const struct mt_report_critical *entry = &report->critical[i];
        char name[MT_REPORT_LINE_BYTES];
        char text[MT_REPORT_LINE_BYTES];
        mt_report_phase_name(entry->phase, entry->is_transfer, name);
        mt_report_time(entry->step_ns, text);
        (void)fprintf(out, "%5.1f %%  %9s  %-32s mostly on rank %d (%.0f %%)\n", entry->share * 100,
                      text, name, entry->rank, entry->rank_share * 100);
    }
}

static void print_rows(const struct mt_report *report, FILE *out)
{
    if (report->n_row_layer == 0) {
        return;
    }
    heading(out, "rows of experts    mean of ranks    most  on rank   most / mean");
    for (int i = 0; i < report->n_row_layer; ++i) {
        const double *of = &report->row_count[(int64_t)i * report->n_rank];
        double mean = 0;
        int most = 0;
        for (int r = 0; r < report->n_rank; ++r) {
            mean += of[r] / report->n_rank;
            most = of[r] > of[most] ? r : most;
        }
        (void)fprintf(out, "layer %-10d %15.1f  %6.0f  %7d  %12.2f\n", report->row_layer[i], mean,
                      of[most], most, of[most] / mean);
    }
}

/* The busiest expert of each layer, and who computes it. */
static void print_experts(const struct mt_report *report, FILE *out)
{
    if (report->n_expert == 0) {
        return;
    }
    heading(out, "busiest experts    expert    rows   of mean  computed on rank");
    for (int i = 0; i < report->n_row_layer; ++i) {
        const double *of = &report->expert_count[(int64_t)i * report->n_expert];
        const double mean = mt_report_expert_mean(report, i);
        struct mt_report_home home[MT_REPORT_HOMES];
        int most = 0;
        for (int e = 0; e < report->n_expert; ++e) {
            most = of[e] > of[most] ? e : most;
        }
        const int n_home = mt_report_expert_homes(report, i, most, home);
        (void)fprintf(out, "layer %-10d %8d %7.1f  %8.2f", report->row_layer[i], most, of[most],
                      mean > 0 ? of[most] / mean : 1.0);
        for (int h = 0; h < n_home; ++h) {
            (void)fprintf(out, "%s%d (%.0f %%)", h == 0 ? "  " : ", ", home[h].rank,
                          home[h].share * 100);
        }
        (void)fputc('\n', out);
    }
}

static void print_saves(const struct mt_report *report, FILE *out)
{
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (int r = 0; r < report->n_rank; ++r) {
        const int64_t bytes = report->memory_bytes[r];
        least = bytes < least ? bytes : least;
        most = bytes > most ? bytes : most;
    }
    (void)fprintf(out, "\nmemory             %.0f to %.0f MiB a rank, largest\n",
                  (double)least / (1 << 20), (double)most / (1 << 20));
    for (int i = 0; i < report->n_save; ++i) {
        const struct mt_report_save *save = &report->save[i];
        char mean[MT_REPORT_LINE_BYTES];
        char max[MT_REPORT_LINE_BYTES];
        mt_report_time(save->mean_ns, mean);
        mt_report_time(save->max_ns, max);
        (void)fprintf(out,
                      "checkpoint         after step %lld: stood still %s, longest %s on rank "
                      "%d\n",
                      (long long)save->step, mean, max, save->rank);
    }
}

static void print_placement(const struct mt_report *report, FILE *out)
{
    const struct mt_run_metrics *metrics = &report->metrics;
    if (!metrics->has_placement) {
        return;
    }
    (void)fprintf(out,
                  "placement          %.1f copies a step, %.1f of them late; %lld moves in all; "
                  "busiest rank %.2f of the mean, busiest expert %.2f\n",
                  metrics->copies, metrics->late, (long long)metrics->n_move, metrics->rank_load,
                  metrics->expert_load);
}

enum mt_status mt_report_write_text(const struct mt_report *report, FILE *out)
{
    char line[MT_REPORT_LINE_BYTES];
    char step[MT_REPORT_LINE_BYTES];
    mt_report_time(report->step_ns, step);
    mt_report_lost(report, line);
    (void)fprintf(out, "%s\n%s.%s%s\n\n%s\n%s a step, %s of the ranks' time waiting for others\n",
                  report->finding, report->headline, report->detail[0] != '\0' ? "\n" : "",
                  report->detail, report->run_line, step, line);
    if (report->n_rank > 1) {
        print_ranks(report, out);
        print_nodes(report, out);
    }
    print_phases(report, out);
    print_changes(report, out);
    print_critical(report, out);
    print_rows(report, out);
    print_experts(report, out);
    print_saves(report, out);
    print_placement(report, out);
    (void)fputc('\n', out);
    for (int i = 0; mt_report_source(report, i, line); ++i) {
        (void)fprintf(out, "%s\n", line);
    }
    for (int i = 0; i < report->profile.n_problem; ++i) {
        (void)fprintf(out, "skipped: %s\n", report->profile.problem[i]);
    }
    errno = EIO; /* what stdio failed at earlier may be forgotten */
    if (fflush(out) != 0 || ferror(out) != 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write the report's text: %s; expected somebody who takes it, and "
                       "room; write it elsewhere, or a page with -o",
                       strerror(errno));
    }
    return MT_OK;
}
