/* The report's tables that come from the replay: what changes would buy, and the critical path. */
#include "profile/report_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "profile/pricing.h"

#include <math.h>
#include <stdlib.h>

/* Changes that gain less are not worth a line, unless the finding asks for them. */
static const double least_gain = 0.005;

/* Ranks and phases that are tried out, by what they cost. */
enum { TRIED_RANKS = 3, TRIED_PHASES = 5 };

static double gain_of(const struct mt_report *report, double step_ns)
{
    return report->unchanged_ns > 0 ? 1 - step_ns / report->unchanged_ns : 0;
}

static bool comes_before(const struct mt_report_change *a, const struct mt_report_change *b)
{
    return a->is_bound != b->is_bound ? b->is_bound : a->gain > b->gain;
}

/* Keeps the list sorted; what comes last falls off its end. */
static void add_change(struct mt_report *report, const struct mt_report_change *change)
{
    int at = report->n_change;
    if (change->gain < least_gain && !change->is_finding) {
        return;
    }
    if (at == MT_REPORT_CHANGES) {
        --at;
        if (!comes_before(change, &report->change[at])) {
            return;
        }
    } else {
        ++report->n_change;
    }
    for (; at > 0 && comes_before(change, &report->change[at - 1]); --at) {
        report->change[at] = report->change[at - 1];
    }
    report->change[at] = *change;
}

/* The entry has its name and what it is. */
static void try_change(struct mt_report *report, const struct mt_change *change,
                       struct mt_report_change *entry)
{
    entry->step_ns = mt_replay_run(report->replay, change);
    entry->gain = gain_of(report, entry->step_ns);
    add_change(report, entry);
}

static void name_change(const struct mt_finding *finding, char *name)
{
    switch (finding->cause) {
    case MT_CAUSE_SLOW_DEVICE:
        (void)snprintf(name, MT_REPORT_LINE_BYTES, "rank %d were as fast as the median rank",
                       finding->rank);
        break;
    case MT_CAUSE_ROUTING_LOAD:
        (void)snprintf(name, MT_REPORT_LINE_BYTES,
                       "the experts of rank %d had the mean number of rows", finding->rank);
        break;
    case MT_CAUSE_LATE_DATA:
        (void)snprintf(name, MT_REPORT_LINE_BYTES, "data were there when they are needed");
        break;
    case MT_CAUSE_CHECKPOINT:
        (void)snprintf(name, MT_REPORT_LINE_BYTES, "checkpoints stopped nobody");
        break;
    case MT_CAUSE_COMMUNICATION:
    default:
        if (finding->to_node >= 0) {
            (void)snprintf(name, MT_REPORT_LINE_BYTES,
                           "messages between node %d and node %d were as quick as the others",
                           finding->node, finding->to_node);
            break;
        }
        if (finding->node >= 0) {
            (void)snprintf(name, MT_REPORT_LINE_BYTES,
                           "messages to and from node %d were as quick as the others",
                           finding->node);
            break;
        }
        (void)snprintf(name, MT_REPORT_LINE_BYTES,
                       "messages of rank %d took no longer than those of the others",
                       finding->rank);
    }
}

/* Every finding alone, and all together. */
static void try_findings(struct mt_report *report)
{
    const int n = (int)mt_min_i64(report->analysis.n_finding, MT_PRICED_FINDINGS);
    struct mt_change change[MT_PRICED_FINDINGS];
    for (int i = 0; i < n; ++i) {
        const struct mt_finding *finding = &report->analysis.finding[i];
        struct mt_report_change entry = {.is_finding = i == 0};
        change[i] = mt_finding_change(finding);
        name_change(finding, entry.name);
        try_change(report, &change[i], &entry);
    }
    if (n > 1) {
        struct mt_report_change entry = {.is_finding = false};
        (void)snprintf(entry.name, sizeof(entry.name), "nothing of what was found were there");
        entry.step_ns = mt_replay_run_all(report->replay, change, n);
        entry.gain = gain_of(report, entry.step_ns);
        add_change(report, &entry);
    }
}

static bool is_tried(const struct mt_report *report, int rank)
{
    for (int i = 0; i < report->analysis.n_finding; ++i) {
        const struct mt_finding *finding = &report->analysis.finding[i];
        if (finding->rank == rank && finding->cause == MT_CAUSE_SLOW_DEVICE) {
            return true;
        }
    }
    return false;
}

/* The ranks that others wait for most, beside those that were found slow. */
static void try_ranks(struct mt_report *report)
{
    const struct mt_analysis *analysis = &report->analysis;
    int tried[TRIED_RANKS] = {-1, -1, -1};
    for (int i = 0; i < TRIED_RANKS; ++i) {
        int rank = -1;
        for (int r = 0; r < report->n_rank; ++r) {
            const bool is_new = r != tried[0] && r != tried[1] && !is_tried(report, r);
            if (is_new && (rank < 0 || analysis->caused_ns[r] > analysis->caused_ns[rank])) {
                rank = r;
            }
        }
        tried[i] = rank;
        if (rank >= 0) {
            const struct mt_finding as_slow = {.rank = rank, .cause = MT_CAUSE_SLOW_DEVICE};
            const struct mt_change change = mt_finding_change(&as_slow);
            struct mt_report_change entry = {.is_finding = false};
            name_change(&as_slow, entry.name);
            try_change(report, &change, &entry);
        }
    }
}

static void try_one(struct mt_report *report, enum mt_change_kind kind, const char *name)
{
    struct mt_report_change entry = {.is_finding = false};
    (void)snprintf(entry.name, sizeof(entry.name), "%s", name);
    try_change(report, &(struct mt_change){.kind = kind}, &entry);
}

/* The phases that lie longest on the critical path. */
static void try_phases(struct mt_report *report)
{
    bool is_tried[MT_N_PHASE + 1] = {false};
    int n = 0;
    for (int i = 0; i < report->n_critical && n < TRIED_PHASES; ++i) {
        const int phase = report->critical[i].phase;
        if (phase == MT_N_PHASE || is_tried[phase]) {
            continue;
        }
        is_tried[phase] = true;
        ++n;
        struct mt_report_change entry = {.is_bound = true};
        (void)snprintf(entry.name, sizeof(entry.name), "%s were hidden completely",
                       mt_phase_name((enum mt_phase)phase));
        try_change(report, &(struct mt_change){.kind = MT_CHANGE_PHASE, .phase = phase}, &entry);
    }
}

/* ---- the critical path ---- */

static int by_share(const void *left, const void *right)
{
    const struct mt_report_critical *a = left;
    const struct mt_report_critical *b = right;
    if (a->share != b->share) {
        return a->share > b->share ? -1 : 1;
    }
    return (a->phase > b->phase) - (a->phase < b->phase);
}

/* sums [R, MT_N_PHASE + 1], all_ns: of all of them */
static void add_critical(struct mt_report *report, const int64_t *sums, bool is_transfer,
                         double all_ns)
{
    for (int p = 0; p <= MT_N_PHASE; ++p) {
        double phase_ns = 0;
        double most_ns = 0;
        struct mt_report_critical entry = {.phase = p, .is_transfer = is_transfer};
        for (int r = 0; r < report->n_rank; ++r) {
            const double ns = (double)sums[(int64_t)r * (MT_N_PHASE + 1) + p];
            phase_ns += ns;
            entry.rank = ns > most_ns ? r : entry.rank;
            most_ns = fmax(most_ns, ns);
            report->critical_share[r] += ns / all_ns;
        }
        if (phase_ns > 0) {
            entry.share = phase_ns / all_ns;
            entry.step_ns = phase_ns / mt_replay_n_step(report->replay);
            entry.rank_share = most_ns / phase_ns;
            report->critical[report->n_critical++] = entry;
        }
    }
}

static enum mt_status find_critical(struct mt_report *report)
{
    const int64_t n = (int64_t)report->n_rank * (MT_N_PHASE + 1);
    int64_t *sums = NULL;
    double all_ns = 0;
    MT_TRY(MT_ALLOCATE(report->critical_share, report->n_rank, "report"));
    MT_TRY(MT_ALLOCATE(sums, 2 * n, "critical path"));
    mt_replay_critical_sums(report->replay, sums, sums + n);
    for (int64_t i = 0; i < 2 * n; ++i) {
        all_ns += (double)sums[i];
    }
    if (all_ns > 0) {
        add_critical(report, sums, false, all_ns);
        add_critical(report, sums + n, true, all_ns);
    }
    qsort(report->critical, (size_t)report->n_critical, sizeof(*report->critical), by_share);
    mt_memory_free(sums);
    return MT_OK;
}

enum mt_status mt_report_replay(struct mt_report *report)
{
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    if (mt_replay_n_step(report->replay) == 0) {
        return MT_ALLOCATE(report->critical_share, report->n_rank, "report");
    }
    report->model_ns =
        mt_replay_run(report->replay, &(struct mt_change){.kind = MT_CHANGE_OTHER_TRANSFERS});
    report->unchanged_ns = mt_replay_run(report->replay, &nothing);
    MT_TRY(find_critical(report));
    if (report->n_rank > 1) {
        try_findings(report);
        try_ranks(report);
        try_one(report, MT_CHANGE_ALL_RANKS, "no rank were slower than the median rank");
        try_one(report, MT_CHANGE_EXPERTS, "every rank's experts had the mean number of rows");
        try_one(report, MT_CHANGE_COPIES, "copies of experts travelled in no time");
        try_one(report, MT_CHANGE_TRANSFERS, "all messages travelled in no time");
    }
    try_phases(report);
    (void)mt_replay_run(report->replay, &nothing); /* whose timeline is shown */
    return MT_OK;
}
