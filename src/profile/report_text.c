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

static void print_rank(const struct mt_report *report, int r, FILE *out)
{
    enum { HOST_COLUMNS = 8 };
    const struct mt_analysis *analysis = &report->analysis;
    const double n = fmax(1, analysis->n_detailed);
    char text[4][MT_REPORT_LINE_BYTES];
    char phase[MT_REPORT_LINE_BYTES];
    mt_report_time(report->work_ns[r], text[0]);
    mt_report_time((double)analysis->wait_ns[r] / n, text[1]);
    mt_report_time((double)analysis->transfer_ns[r] / n, text[2]);
    mt_report_time(mt_report_caused_ns(report, r), text[3]);
    mt_report_phase_name(mt_report_blamed_phase(report, r), false, phase);
    (void)fprintf(out, "%4d %-8s%8s%8s%9s%8s%6.2f%6.*f %s\n", r,
                  mt_report_tail(report->profile.rank[r].host, HOST_COLUMNS), text[0], text[1],
                  text[2], text[3], analysis->slowdown[r], analysis->rows_ratio[r] < 100 ? 2 : 0,
                  analysis->rows_ratio[r], analysis->caused_ns[r] > 0 ? phase : "");
}

static void print_ranks(const struct mt_report *report, FILE *out)
{
    const struct mt_analysis *analysis = &report->analysis;
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
    heading(out, "rank node     at work  waited messages   blame  pace  rows mostly in");
    for (int i = 0; i < n_rank; ++i) {
        print_rank(report, rank[i], out);
    }
    if (report->n_rank > TEXT_RANKS) {
        (void)fprintf(out, "     and %d more ranks that others wait for less\n",
                      report->n_rank - TEXT_RANKS);
    }
    mt_report_print_wrapped(out,
                            "blame: how long each of the others stood still for it, a step; pace: "
                            "its time over the median rank's for the same work; rows: its own over "
                            "the mean",
                            0);
}

/* Where messages between nodes are there last. */
static void print_nodes(const struct mt_report *report, FILE *out)
{
    enum { TEXT_NODES = 16 };
    const struct mt_analysis *analysis = &report->analysis;
    double missed_ns = 0;
    for (int node = 0; node < analysis->n_node; ++node) {
        missed_ns += mt_report_missed_ns(report, node);
    }
    if (analysis->n_node == 1 || analysis->n_node > TEXT_NODES || missed_ns == 0) {
        return;
    }
    heading(out, "messages between nodes: missed when all others were there, by a rank elsewhere");
    for (int node = 0; node < analysis->n_node; ++node) {
        char name[MT_REPORT_LINE_BYTES];
        char missed[MT_REPORT_LINE_BYTES];
        mt_report_node_name(report, node, name);
        mt_report_time(mt_report_missed_ns(report, node), missed);
        (void)fprintf(out, "%9s a step  ", missed);
        mt_report_print_wrapped(out, name, 18);
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
    enum { NAME_AT = 23 };
    char text[MT_REPORT_LINE_BYTES];
    if (mt_replay_n_step(report->replay) == 0) {
        heading(out, "what if: no step was recorded in detail by all ranks");
        return;
    }
    mt_report_time(mt_replay_measured_ns(report->replay), text);
    (void)fprintf(out,
                  "\nwhat if (%d steps replayed, %s each; the model is %.2f %% off)\n"
                  "   shorter     a step  if\n",
                  mt_replay_n_step(report->replay), text, fabs(mt_report_error(report)) * 100);
    for (int i = 0; i < report->n_change; ++i) {
        const struct mt_report_change *change = &report->change[i];
        mt_report_time(change->step_ns, text);
        (void)fprintf(out, "%-3s%5.1f %%  %9s  ", change->is_finding ? "->" : "",
                      change->gain * 100, text);
        mt_report_print_wrapped(out, change->name, NAME_AT);
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
        (void)fprintf(out, "%5.1f %%  %9s  %-31s mostly on rank %d (%.0f %%)\n", entry->share * 100,
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

static void print_homes(const struct mt_report_home *home, int n, FILE *out)
{
    enum { HOMES_AT = 45 };
    char line[MT_REPORT_LINE_BYTES] = "none";
    size_t used = 0;
    for (int h = 0; h < n && used < sizeof(line); ++h) {
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%d (%.0f %%)",
                                 h == 0 ? "" : ", ", home[h].rank, home[h].share * 100);
    }
    (void)fputs("  ", out);
    mt_report_print_wrapped(out, line, HOMES_AT);
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
        print_homes(home, n_home, out);
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
        char line[MT_REPORT_LINE_BYTES];
        mt_report_time(save->mean_ns, mean);
        mt_report_time(save->max_ns, max);
        (void)snprintf(line, sizeof(line),
                       "after step %lld: stood still %.32s, longest %.32s on rank %d",
                       (long long)save->step, mean, max, save->rank);
        mt_report_print_under(out, "checkpoint", line);
    }
}

/* What the page has at its top. */
static void print_head(const struct mt_report *report, FILE *out)
{
    char line[2 * MT_REPORT_LINE_BYTES];
    char step[MT_REPORT_LINE_BYTES];
    char lost[MT_REPORT_LINE_BYTES];
    mt_report_time(report->step_ns, step);
    mt_report_lost(report, lost);
    (void)fprintf(out, "%s\n", report->finding);
    (void)snprintf(line, sizeof(line), "%s.", report->headline);
    mt_report_print_wrapped(out, line, 0);
    mt_report_print_wrapped(out, report->detail, 0);
    (void)fputc('\n', out);
    mt_report_print_wrapped(out, report->run_line, 0);
    (void)snprintf(line, sizeof(line), "%.64s a step, %.64s of the ranks' time waiting for others",
                   step, lost);
    mt_report_print_wrapped(out, line, 0);
}

enum mt_status mt_report_write_text(const struct mt_report *report, FILE *out)
{
    char line[MT_REPORT_LINE_BYTES];
    print_head(report, out);
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
    mt_report_print_placement(report, out);
    (void)fputc('\n', out);
    for (int i = 0; mt_report_source(report, i, line); ++i) {
        mt_report_print_wrapped(out, line, 0);
    }
    for (int i = 0; i < report->profile.n_problem; ++i) {
        (void)fprintf(out, "skipped: ");
        mt_report_print_wrapped(out, report->profile.problem[i], 9);
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
