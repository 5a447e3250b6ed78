/* What the report says in sentences. */
#include "profile/report_internal.h"

#include <math.h>
#include <string.h>

void mt_report_phase_name(int phase, bool is_transfer, char *text)
{
    (void)snprintf(text, MT_REPORT_LINE_BYTES, "%s%s",
                   phase == MT_N_PHASE ? "between phases" : mt_phase_name((enum mt_phase)phase),
                   is_transfer ? ", messages" : "");
}

void mt_report_time(double ns, char *text)
{
    const double size = fabs(ns);
    if (size >= 1e10) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.1f s", ns * 1e-9);
    } else if (size >= 1e9) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.2f s", ns * 1e-9);
    } else if (size >= 1e6) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.*f ms", size >= 1e8 ? 0 : 1, ns * 1e-6);
    } else {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.0f us", ns * 1e-3);
    }
}

void mt_report_lost(const struct mt_report *report, char *text)
{
    if (report->n_rank > 1 && report->analysis.n_detailed == 0) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "an unknown share");
    } else {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.1f %%", report->lost_share * 100);
    }
}

int mt_report_blamed_phase(const struct mt_report *report, int rank)
{
    int worst = MT_N_PHASE;
    const int64_t *caused = &report->analysis.caused_by_phase_ns[(int64_t)rank * (MT_N_PHASE + 1)];
    for (int p = 0; p <= MT_N_PHASE; ++p) {
        worst = caused[p] > caused[worst] ? p : worst;
    }
    return worst;
}

double mt_report_error(const struct mt_report *report)
{
    const double measured_ns = mt_replay_measured_ns(report->replay);
    return measured_ns > 0 ? report->model_ns / measured_ns - 1 : 0;
}

double mt_report_caused_ns(const struct mt_report *report, int rank)
{
    const struct mt_analysis *analysis = &report->analysis;
    return (double)analysis->caused_ns[rank] / fmax(1, analysis->n_detailed) /
           fmax(1, report->n_rank - 1);
}

void mt_report_node_name(const struct mt_report *report, int node, char *text)
{
    const struct mt_profile_rank *rank = report->profile.rank;
    int first = -1;
    int last = -1;
    for (int r = 0; r < report->n_rank; ++r) {
        if (rank[r].node == node) {
            first = first < 0 ? r : first;
            last = r;
        }
    }
    const char *host = first >= 0 ? rank[first].host : "";
    const char *comma = host[0] != '\0' ? ", " : "";
    if (first == last) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "node %d (%s%srank %d)", node, host, comma,
                       first);
    } else {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "node %d (%s%sranks %d to %d)", node, host,
                       comma, first, last);
    }
}

double mt_report_missed_ns(const struct mt_report *report, int node)
{
    const struct mt_analysis *analysis = &report->analysis;
    double ns = 0;
    int elsewhere = 0;
    for (int from = 0; from < analysis->n_node; ++from) {
        ns += (double)analysis->link_ns[(int64_t)from * analysis->n_node + node];
    }
    for (int r = 0; r < report->n_rank; ++r) {
        elsewhere += report->profile.rank[r].node != node ? 1 : 0;
    }
    return ns / fmax(1, elsewhere) / fmax(1, analysis->n_detailed);
}

static void word_link(const struct mt_report *report, const struct mt_finding *worst, char *text)
{
    char node[MT_REPORT_LINE_BYTES];
    char to[MT_REPORT_LINE_BYTES];
    char line[3 * MT_REPORT_LINE_BYTES];
    mt_report_node_name(report, worst->node, node);
    if (worst->to_node < 0) {
        (void)snprintf(line, sizeof(line), "Messages to and from %s take longer than the others'",
                       node);
    } else {
        mt_report_node_name(report, worst->to_node, to);
        (void)snprintf(line, sizeof(line), "Messages between %s and %s take longer than the others",
                       node, to);
    }
    (void)snprintf(text, MT_REPORT_LINE_BYTES, "%.*s", MT_REPORT_LINE_BYTES - 1, line);
}

static void word_headline(const struct mt_finding *worst, char *text)
{
    const int rank = worst->rank;
    const bool is_always = worst->persistence == MT_PERMANENT;
    switch (worst->cause) {
    case MT_CAUSE_SLOW_DEVICE:
        (void)snprintf(
            text, MT_REPORT_LINE_BYTES,
            "Rank %d is slow%s: the same work %stakes it %.2f times as long as the others", rank,
            is_always ? "" : " at times", is_always ? "" : "then ", worst->factor);
        break;
    case MT_CAUSE_ROUTING_LOAD:
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "Rank %d has too much to do: its experts get %.2f times the mean rows", rank,
                       worst->factor);
        break;
    case MT_CAUSE_LATE_DATA:
        if (worst->is_everybodys) {
            (void)snprintf(text, MT_REPORT_LINE_BYTES, "Every rank gets its data late");
            break;
        }
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "Rank %d gets its data late", rank);
        break;
    case MT_CAUSE_CHECKPOINT:
        if (worst->is_everybodys) {
            (void)snprintf(text, MT_REPORT_LINE_BYTES, "Saving checkpoints stops every rank");
            break;
        }
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "Rank %d holds the others up while it saves checkpoints", rank);
        break;
    case MT_CAUSE_COMMUNICATION:
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "Messages of rank %d take longer than those of the others", rank);
        break;
    case MT_CAUSE_NONE:
    case MT_N_CAUSE:
    default:
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "The others wait for rank %d", rank);
    }
}

static void add(char *text, const char *more)
{
    const size_t used = strlen(text);
    (void)snprintf(text + used, MT_REPORT_TEXT_BYTES - used, "%s", more);
}

static void word_when(const struct mt_report *report, const struct mt_finding *finding, char *text)
{
    const int first = report->analysis.first_step;
    switch (finding->persistence) {
    case MT_PERMANENT:
        if (finding->since > 0) {
            (void)snprintf(text, MT_REPORT_LINE_BYTES, "since step %lld",
                           (long long)report->profile.step_number[first + finding->since]);
            break;
        }
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "all the time");
        break;
    case MT_PERIODIC:
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "every %d steps", finding->period);
        break;
    case MT_TRANSIENT:
    default:
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "for a while");
    }
}

/* Where it arises. */
static void add_place(const struct mt_finding *worst, char *detail)
{
    char line[MT_REPORT_LINE_BYTES];
    if (worst->phase == MT_N_PHASE) {
        add(detail, ".");
        return;
    }
    (void)snprintf(line, sizeof(line), ", most of it in %s",
                   mt_phase_name((enum mt_phase)worst->phase));
    add(detail, line);
    if (worst->layer >= 0) {
        (void)snprintf(line, sizeof(line), " of layer %d", worst->layer);
        add(detail, line);
    }
    add(detail, ".");
}

static void add_gain(struct mt_report *report)
{
    char with[MT_REPORT_LINE_BYTES];
    char without[MT_REPORT_LINE_BYTES];
    char line[MT_REPORT_LINE_BYTES * 3];
    for (int i = 0; i < report->n_change; ++i) {
        const struct mt_report_change *change = &report->change[i];
        if (change->is_finding) {
            mt_report_time(report->unchanged_ns, with);
            mt_report_time(change->step_ns, without);
            (void)snprintf(
                line, sizeof(line),
                " Without that a step would take %s instead of %s, give or take %.1f %%.", without,
                with, fabs(mt_report_error(report)) * 100);
            add(report->detail, line);
            return;
        }
    }
}

static void add_others(struct mt_report *report)
{
    for (int i = 1; i < report->analysis.n_finding && i < 4; ++i) {
        char line[MT_REPORT_LINE_BYTES];
        const struct mt_finding *finding = &report->analysis.finding[i];
        (void)snprintf(line, sizeof(line), "%s rank %d %s %.1f %%", i == 1 ? " Also:" : ",",
                       finding->rank, mt_cause_name(finding->cause), finding->share * 100);
        add(report->detail, line);
    }
    if (report->analysis.n_finding > 1) {
        add(report->detail, ".");
    }
}

static void word_detail(struct mt_report *report, const struct mt_finding *worst)
{
    char when[MT_REPORT_LINE_BYTES];
    char line[MT_REPORT_LINE_BYTES * 2];
    const char *host = report->profile.rank[worst->rank].host;
    word_when(report, worst, when);
    if (worst->node >= 0) {
        (void)snprintf(
            line, sizeof(line),
            "It costs %.1f %% of step time, %s: when all other messages are there, these "
            "are still missed.",
            worst->share * 100, when);
        add(report->detail, line);
        add_gain(report);
        add_others(report);
        return;
    }
    (void)snprintf(line, sizeof(line), "It costs %.1f %% of step time, %s: %s rank %d%s%s%s %s",
                   worst->share * 100, when,
                   worst->is_everybodys ? "all stand still," : "the others stand still until",
                   worst->rank, host[0] != '\0' ? " (" : "", host, host[0] != '\0' ? ")" : "",
                   worst->is_everybodys ? "longest" : "has come");
    add(report->detail, line);
    if (worst->is_everybodys) {
        add(report->detail, ".");
    } else {
        add_place(worst, report->detail);
    }
    add_gain(report);
    add_others(report);
}

static void word_nothing(struct mt_report *report)
{
    char line[MT_REPORT_TEXT_BYTES];
    if (report->n_rank == 1) {
        (void)snprintf(report->headline, sizeof(report->headline), "One rank: nobody to wait for");
        return;
    }
    (void)snprintf(report->headline, sizeof(report->headline), "No rank holds the others up");
    if (report->analysis.n_detailed == 0) {
        (void)snprintf(report->headline, sizeof(report->headline), "Nobody's waits are known");
        (void)snprintf(line, sizeof(line), "No step was recorded in detail by every rank.");
    } else {
        (void)snprintf(line, sizeof(line),
                       "Waiting for others takes %.1f %% of the ranks' time, and no rank alone "
                       "makes them wait %.1f %% of step time for a known reason.",
                       report->lost_share * 100, report->analysis.least_share * 100);
    }
    add(report->detail, line);
}

/* Where a run broke off: who stopped recording first was in trouble first. */
static void add_end(struct mt_report *report)
{
    char line[MT_REPORT_LINE_BYTES];
    int first = -1;
    if (report->state == MT_RUN_UNRECORDED) {
        (void)snprintf(line, sizeof(line),
                       " Recording ended with step %lld, the run went on to step %lld at least.",
                       (long long)report->last_step, (long long)report->metrics.last_step);
        add(report->detail, line);
    }
    if (report->state != MT_RUN_BROKEN_OFF) {
        return;
    }
    for (int r = 0; r < report->n_rank; ++r) {
        const struct mt_profile_rank *rank = &report->profile.rank[r];
        if (rank->is_there &&
            (first < 0 || rank->last_step < report->profile.rank[first].last_step)) {
            first = r;
        }
    }
    if (first < 0 || report->profile.rank[first].last_step == report->last_step) {
        (void)snprintf(line, sizeof(line), " The run broke off after step %lld.",
                       (long long)report->last_step);
    } else {
        (void)snprintf(line, sizeof(line),
                       " The run broke off: rank %d recorded nothing after step %lld, others went "
                       "on to step %lld.",
                       first, (long long)report->profile.rank[first].last_step,
                       (long long)report->last_step);
    }
    add(report->detail, line);
}

static void word_run(struct mt_report *report)
{
    static const char *const state[] = {[MT_RUN_FINISHED] = "ended after",
                                        [MT_RUN_GOING_ON] = "is running, now at",
                                        [MT_RUN_BROKEN_OFF] = "broke off at",
                                        [MT_RUN_UNRECORDED] = "was recorded until"};
    const struct mt_profile *profile = &report->profile;
    (void)snprintf(report->run_line, sizeof(report->run_line),
                   "%s: %d rank%s on %d node%s, started %s, %s step %lld; moetrain %s",
                   profile->run, report->n_rank, report->n_rank == 1 ? "" : "s", report->n_node,
                   report->n_node == 1 ? "" : "s", profile->start_utc, state[report->state],
                   (long long)report->last_step, profile->version);
}

void mt_report_word(struct mt_report *report)
{
    const struct mt_finding *worst = mt_report_worst(report);
    mt_analysis_print_finding(&report->analysis, report->finding, sizeof(report->finding));
    word_run(report);
    if (worst == NULL) {
        word_nothing(report);
    } else {
        if (worst->node >= 0) {
            word_link(report, worst, report->headline);
        } else {
            word_headline(worst, report->headline);
        }
        word_detail(report, worst);
    }
    add_end(report);
}

static void word_replay(const struct mt_report *report, char *text)
{
    const int n = mt_replay_n_step(report->replay);
    if (n == 0) {
        (void)snprintf(
            text, MT_REPORT_LINE_BYTES,
            "no step was replayed for what-ifs: none was recorded in detail by all ranks");
    } else {
        char measured[MT_REPORT_LINE_BYTES];
        char modelled[MT_REPORT_LINE_BYTES];
        mt_report_time(mt_replay_measured_ns(report->replay), measured);
        mt_report_time(report->model_ns, modelled);
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "%d steps were replayed for the what-ifs; with the messages of other steps "
                       "%.32s come out of %.32s: the model is %.2f %% off",
                       n, modelled, measured, fabs(mt_report_error(report)) * 100);
    }
}

static void word_noise(const struct mt_analysis *analysis, char *text)
{
    if (analysis->n_detailed == 0 && analysis->n_rank > 1) {
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "who makes others wait for no known reason is not known");
    } else {
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "the median rank makes others wait %.1f %% of step time for no known "
                       "reason: rows, data, saves and slow moments of a rank are named from %.1f "
                       "%% on, slow devices and links from %.0f %%",
                       analysis->noise_share * 100, analysis->least_share * 100,
                       MT_FINDING_SHARE * 100);
    }
}

static void word_metrics(const struct mt_run_metrics *metrics, char *text)
{
    if (metrics->problem[0] != '\0') {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "metrics.jsonl: skipped: %.200s",
                       metrics->problem);
    } else {
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "metrics.jsonl: %lld steps%s",
                       (long long)metrics->n_step,
                       metrics->is_there ? "" : " (the file is not there)");
    }
}

bool mt_report_source(const struct mt_report *report, int i, char *text)
{
    const struct mt_profile *profile = &report->profile;
    int n_there = 0;
    for (int r = 0; r < report->n_rank; ++r) {
        n_there += profile->rank[r].is_there ? 1 : 0;
    }
    switch (i) {
    case 0:
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "profiles of %d of %d ranks: %d steps, of which %d with the arrivals of all "
                       "ranks",
                       n_there, report->n_rank, profile->n_step, report->analysis.n_detailed);
        return true;
    case 1:
        if (report->analysis.error_ns == 0) {
            (void)snprintf(text, MT_REPORT_LINE_BYTES, "all ranks read the same clock");
            return true;
        }
        (void)snprintf(text, MT_REPORT_LINE_BYTES,
                       "clocks of ranks agree to within %.1f us; no shorter wait is blamed on "
                       "anybody",
                       (double)report->analysis.error_ns * 1e-3);
        return true;
    case 2:
        word_replay(report, text);
        return true;
    case 3:
        word_noise(&report->analysis, text);
        return true;
    case 4:
        word_metrics(&report->metrics, text);
        return true;
    case 5:
        (void)snprintf(text, MT_REPORT_LINE_BYTES, "%lld lines of metrics.jsonl are broken",
                       (long long)report->metrics.n_broken);
        return report->metrics.n_broken > 0;
    default:
        return false;
    }
}
