/* From a run directory to a report: reading, analysing, replaying, wording. */
#include "profile/report_internal.h"

#include "base/memory.h"
#include "base/size.h"
#include "profile/pricing.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* A run holds its lock (train/run_dir.h) as long as it lives. */
static bool is_locked(const char *run_dir)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/lock", run_dir);
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool is_held = flock(fd, LOCK_SH | LOCK_NB) != 0;
    (void)close(fd); /* gives the lock back */
    return is_held;
}

/* Profiles are on the disk a second after the step at the latest; where metrics are ahead of them
 * by more they were given up. */
static bool is_given_up(const struct mt_report *report)
{
    static const double MOST_S = 3;
    enum { MOST_STEPS = 3 };
    const struct mt_run_metrics *metrics = &report->metrics;
    const int64_t n_ahead = metrics->last_step - report->last_step;
    return n_ahead > MOST_STEPS && (double)n_ahead * metrics->step_time_s > MOST_S;
}

static void look_at_ranks(struct mt_report *report, const char *run_dir)
{
    const struct mt_profile *profile = &report->profile;
    bool has_ended = true;
    for (int r = 0; r < profile->n_rank; ++r) {
        const struct mt_profile_rank *rank = &profile->rank[r];
        has_ended = has_ended && (!rank->is_there || rank->has_ended);
        report->last_step = mt_max_i64(report->last_step, rank->last_step);
        report->n_node = (int)mt_max_i64(report->n_node, rank->node + 1);
    }
    report->n_rank = profile->n_rank;
    report->state = has_ended             ? MT_RUN_FINISHED
                    : is_locked(run_dir)  ? MT_RUN_GOING_ON
                    : is_given_up(report) ? MT_RUN_UNRECORDED
                                          : MT_RUN_BROKEN_OFF;
}

int mt_report_replayed_steps(int n_rank, int64_t n_collective)
{
    enum { MOST_STEPS = 64, LEAST_STEPS = 2 };
    static const double MOST_PAIRS = 4e8; /* 64 steps of 64 ranks with 1,500 collectives */
    const double pairs = (double)n_rank * n_rank * (double)mt_max_i64(1, n_collective);
    return (int)fmax(LEAST_STEPS, fmin(MOST_STEPS, MOST_PAIRS / pairs));
}

static int replayed_steps(const struct mt_profile *profile)
{
    int64_t n_most = 0;
    for (int s = 0; s < profile->n_step; ++s) {
        n_most = mt_max_i64(n_most, mt_profile_step(profile, s, 0)->n_collective);
    }
    return mt_report_replayed_steps(profile->n_rank, n_most);
}

static enum mt_status fill(struct mt_report *report, const char *run_dir)
{
    MT_TRY(mt_run_metrics_read(run_dir, &report->metrics));
    look_at_ranks(report, run_dir);
    MT_TRY(mt_analysis_make(&report->profile, 0, report->profile.n_step, &report->analysis));
    MT_TRY(mt_replay_create(&report->profile, replayed_steps(&report->profile), &report->replay));
    MT_TRY(mt_findings_price(&report->profile, report->replay, &report->analysis));
    MT_TRY(mt_report_sum_up(report));
    MT_TRY(mt_report_replay(report));
    mt_report_word(report);
    return MT_OK;
}

enum mt_status mt_report_create_from(const char *run_dir, struct mt_profile *profile,
                                     struct mt_report **out)
{
    struct mt_report *report = NULL;
    *out = NULL;
    enum mt_status status = MT_ALLOCATE(report, 1, "report");
    if (status != MT_OK) {
        mt_profile_clear(profile);
        return status;
    }
    report->profile = *profile;
    status = fill(report, run_dir);
    if (status != MT_OK) {
        mt_report_destroy(report);
        return status;
    }
    *out = report;
    return MT_OK;
}

enum mt_status mt_report_create(const char *run_dir, struct mt_report **out)
{
    struct mt_profile profile;
    *out = NULL;
    MT_TRY(mt_profile_read(run_dir, &profile));
    return mt_report_create_from(run_dir, &profile, out);
}

void mt_report_destroy(struct mt_report *report)
{
    if (report == NULL) {
        return;
    }
    mt_memory_free(report->expert_count);
    mt_memory_free(report->row_count);
    mt_memory_free(report->row_layer);
    mt_memory_free(report->critical_share);
    mt_memory_free(report->heat);
    mt_memory_free(report->memory_bytes);
    mt_memory_free(report->work_ns);
    mt_replay_destroy(report->replay);
    mt_analysis_clear(&report->analysis);
    mt_run_metrics_clear(&report->metrics);
    mt_profile_clear(&report->profile);
    mt_memory_free(report);
}

const char *mt_report_finding(const struct mt_report *report)
{
    return report->finding;
}

const struct mt_profile *mt_report_profile(const struct mt_report *report)
{
    return &report->profile;
}
