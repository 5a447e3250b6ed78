#include "profile/pricing.h"

#include "base/memory.h"
#include "base/size.h"

#include <math.h>

/* A finding about messages costs so many times what the model is off by. */
static const double TIMES_ERROR = 2;

struct mt_change mt_finding_change(const struct mt_finding *finding)
{
    struct mt_change change = {.kind = MT_CHANGE_NOTHING, .rank = finding->rank};
    switch (finding->cause) {
    case MT_CAUSE_SLOW_DEVICE:
        change.kind = MT_CHANGE_RANK;
        break;
    case MT_CAUSE_ROUTING_LOAD:
        change.kind = MT_CHANGE_ROWS;
        break;
    case MT_CAUSE_LATE_DATA:
        change.kind = MT_CHANGE_PHASE;
        change.phase = MT_PHASE_DATA;
        break;
    case MT_CAUSE_CHECKPOINT:
        change.kind = MT_CHANGE_PHASE;
        change.phase = MT_PHASE_CHECKPOINT;
        break;
    case MT_CAUSE_COMMUNICATION:
        change.kind = finding->node >= 0 ? MT_CHANGE_NODE_LINKS : MT_CHANGE_LINKS;
        change.node = finding->node;
        change.to_node = finding->to_node;
        break;
    case MT_CAUSE_NONE:
    case MT_N_CAUSE:
    default:
        break;
    }
    return change;
}

/* Of the model: transfers taken from other steps make so much more or less of a step. */
static double model_error(struct mt_replay *replay)
{
    const struct mt_change model = {.kind = MT_CHANGE_OTHER_TRANSFERS};
    const double measured_ns = fmax(1, mt_replay_measured_ns(replay));
    return fabs(mt_replay_run(replay, &model) / measured_ns - 1);
}

/* gain [n]: of each alone, or its part of the gain of all. */
static void find_gains(struct mt_replay *replay, const struct mt_analysis *analysis, int n,
                       double *gain)
{
    const struct mt_change nothing = {.kind = MT_CHANGE_NOTHING};
    struct mt_change change[MT_PRICED_FINDINGS];
    const double before_ns = fmax(1, mt_replay_run(replay, &nothing));
    double waiting = 0;
    for (int i = 0; i < n; ++i) {
        change[i] = mt_finding_change(&analysis->finding[i]);
        gain[i] = 1 - mt_replay_run(replay, &change[i]) / before_ns;
        waiting += analysis->finding[i].share;
    }
    const double joint = n > 0 ? 1 - mt_replay_run_all(replay, change, n) / before_ns : 0;
    for (int i = 0; i < n; ++i) {
        const double part = joint * analysis->finding[i].share / fmax(waiting, 1e-12);
        gain[i] = fmin(1, fmax(0, fmax(gain[i], part)));
    }
}

/* Waiting for a cause in all steps over that in the replayed ones; 1 where these have none. */
static enum mt_status carry_over(const struct mt_profile *profile, const struct mt_replay *replay,
                                 const struct mt_analysis *analysis, int n, double *gain)
{
    struct mt_analysis part;
    const int first = mt_replay_step(replay, 0);
    const int end = mt_replay_step(replay, mt_replay_n_step(replay) - 1) + 1;
    if (mt_replay_n_step(replay) >= analysis->n_detailed) {
        return MT_OK;
    }
    MT_TRY(mt_analysis_make(profile, first, end - first, &part));
    for (int i = 0; i < n; ++i) {
        const struct mt_finding *finding = &analysis->finding[i];
        if (finding->node >= 0) {
            continue; /* the gain in the replayed steps stands for all */
        }
        const double here = part.share[(int64_t)finding->rank * MT_N_CAUSE + (int)finding->cause];
        gain[i] = here > 0 ? fmin(1, gain[i] * finding->share / here) : finding->share;
    }
    mt_analysis_clear(&part);
    return MT_OK;
}

/* Late data and saves are gone on all ranks at once: where they are everybody's, one finding says
 * all. */
static bool is_said(const struct mt_analysis *analysis, const struct mt_finding *finding, int n)
{
    bool is_same = false;
    for (int i = 0; i < n && !is_same; ++i) {
        const struct mt_finding *other = &analysis->finding[i];
        is_same = other->is_everybodys && other->cause == finding->cause;
    }
    return is_same;
}

static void drop_repeated(struct mt_analysis *analysis)
{
    int n_kept = 0;
    for (int i = 0; i < analysis->n_finding; ++i) {
        const struct mt_finding finding = analysis->finding[i];
        if (!is_said(analysis, &finding, n_kept)) {
            analysis->finding[n_kept++] = finding;
        }
    }
    analysis->n_finding = n_kept;
}

/* least_of_messages: share that a finding about messages must cost. */
static void keep_dear(struct mt_analysis *analysis, const double *gain, int n,
                      double least_of_messages)
{
    int n_kept = 0;
    for (int i = 0; i < n; ++i) {
        struct mt_finding finding = analysis->finding[i];
        const bool is_of_messages = finding.cause == MT_CAUSE_COMMUNICATION;
        finding.share = gain[i];
        if (finding.share >= MT_FINDING_SHARE &&
            (!is_of_messages || finding.share >= least_of_messages)) {
            analysis->finding[n_kept++] = finding;
        }
    }
    analysis->n_finding = n_kept;
    mt_analysis_sort_findings(analysis);
    drop_repeated(analysis);
}

enum mt_status mt_findings_price(const struct mt_profile *profile, struct mt_replay *replay,
                                 struct mt_analysis *analysis)
{
    const int n = (int)mt_min_i64(analysis->n_finding, MT_PRICED_FINDINGS);
    double gain[MT_PRICED_FINDINGS];
    if (n == 0 || mt_replay_n_step(replay) == 0) {
        return MT_OK;
    }
    find_gains(replay, analysis, n, gain);
    MT_TRY(carry_over(profile, replay, analysis, n, gain));
    keep_dear(analysis, gain, n, TIMES_ERROR * model_error(replay));
    return MT_OK;
}
