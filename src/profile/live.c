#include "profile/live.h"

#include "base/memory.h"
#include "base/size.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The step line says nothing of what costs less than 3 %, or less than twice what ranks cost by
 * chance: four ranks on two cores that others use as well cost each other 1 to 14 % (2026-11).
 * Chance comes in bursts: what it cost in earlier looks counts, a tenth less with each look. */
static const double SHOWN_SHARE = 0.03, TIMES_NOISE = 2, KEPT_NOISE = 0.9;
static const double NS_PER_S = 1e9;
enum { MAX_WINDOW = 50, LEAST_STEPS = 10 };

static bool is_of_experts(int phase)
{
    return phase == MT_PHASE_EXPERT || phase == MT_PHASE_EXPERT_BACKWARD;
}

void mt_live_measure(double *item)
{
    memset(item, 0, MT_N_LIVE * sizeof(*item));
    if (!mt_record_is_on()) {
        return;
    }
    const int64_t position = mt_record_n_step();
    const struct mt_recorded_step *step = mt_record_step(position);
    for (int p = 0; p < MT_N_PHASE; ++p) {
        const double busy_s = (double)(step->phase_ns[p] - step->wait_ns[p]) / NS_PER_S;
        item[MT_LIVE_BUSY_S] += busy_s;
        item[MT_LIVE_TOKEN_S] += mt_phase_is_of_tokens((enum mt_phase)p) ? busy_s : 0.0;
        item[MT_LIVE_EXPERT_S] += is_of_experts(p) ? busy_s : 0.0;
        item[MT_LIVE_DATA_S] += p == MT_PHASE_DATA ? busy_s : 0.0;
    }
    for (int l = 0; l < mt_record_n_layer(); ++l) {
        item[MT_LIVE_ROWS] += (double)mt_record_rows(position)[l];
    }
    item[MT_LIVE_TOKENS] = (double)step->n_token;
}

enum mt_status mt_live_open(struct mt_live *live, int n_rank, int64_t window)
{
    enum mt_status status = MT_OK;
    const int n_step = (int)mt_min_i64(window, MAX_WINDOW);
    *live = (struct mt_live){.finding = {.cause = MT_CAUSE_NONE}};
    MT_TRY(mt_profile_init(&live->profile, n_rank, n_step, 1));
    for (int64_t i = 0; i < (int64_t)n_step * n_rank; ++i) {
        MT_TRY_GOTO(mt_profile_reserve_collectives(&live->profile.step[i], 1));
    }
    return MT_OK;
cleanup:
    mt_live_clear(live);
    return status;
}

void mt_live_clear(struct mt_live *live)
{
    mt_profile_clear(&live->profile);
    *live = (struct mt_live){0};
}

static int64_t to_ns(double seconds)
{
    return (int64_t)(seconds * NS_PER_S);
}

static void put_rank(struct mt_profile *profile, int at, int rank, const double *item)
{
    struct mt_profile_step *step = mt_profile_step(profile, at, rank);
    const int64_t busy_ns = to_ns(item[MT_LIVE_BUSY_S]);
    const int64_t data_ns = to_ns(item[MT_LIVE_DATA_S]);
    step->is_there = item[MT_LIVE_BUSY_S] > 0;
    step->n_token = (int64_t)item[MT_LIVE_TOKENS];
    step->phase_ns[MT_PHASE_ATTENTION] = to_ns(item[MT_LIVE_TOKEN_S]);
    step->phase_ns[MT_PHASE_EXPERT] = to_ns(item[MT_LIVE_EXPERT_S]);
    step->phase_ns[MT_PHASE_DATA] = data_ns;
    *mt_profile_by_layer(profile, profile->rows, at, rank) = (int64_t)item[MT_LIVE_ROWS];
    *mt_profile_by_layer(profile, profile->expert_ns, at, rank) = to_ns(item[MT_LIVE_EXPERT_S]);
    step->collective[0] = (struct mt_profile_collective){.busy_phase = MT_PHASE_EXPERT,
                                                         .layer = -1,
                                                         .micro = -1,
                                                         .begin_ns = busy_ns,
                                                         .need_ns = busy_ns,
                                                         .n_source = profile->n_rank - 1,
                                                         .last_peer = -1};
}

static void look(struct mt_live *live, const struct mt_analysis *analysis)
{
    const struct mt_finding none = {.cause = MT_CAUSE_NONE};
    live->noise_share = fmax(analysis->noise_share, KEPT_NOISE * live->noise_share);
    const double least = fmax(SHOWN_SHARE, TIMES_NOISE * live->noise_share);
    const bool is_shown = analysis->n_finding > 0 && analysis->finding[0].share >= least;
    const struct mt_finding now = is_shown ? analysis->finding[0] : none;
    live->is_persistent = now.cause != MT_CAUSE_NONE && now.cause == live->finding.cause &&
                          now.rank == live->finding.rank;
    live->finding = now;
}

enum mt_status mt_live_add(struct mt_live *live, const double *all, int64_t stride)
{
    struct mt_profile *profile = &live->profile;
    const int at = (int)(live->n++ % profile->n_step);
    double longest_s = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        put_rank(profile, at, r, all + r * stride);
        longest_s = all[r * stride] > longest_s ? all[r * stride] : longest_s;
    }
    for (int r = 0; r < profile->n_rank; ++r) { /* all go on when the last has come */
        struct mt_profile_step *step = mt_profile_step(profile, at, r);
        step->collective[0].done_ns = to_ns(longest_s);
        step->end_ns = step->until_ns = to_ns(longest_s);
    }
    /* Looking takes 5 ms for 64 ranks. */
    const int64_t interval = mt_max_i64(LEAST_STEPS, profile->n_rank);
    if (live->n % interval != 0) {
        return MT_OK;
    }
    struct mt_analysis analysis;
    MT_TRY(mt_analysis_make(profile, 0, (int)mt_min_i64(live->n, profile->n_step), &analysis));
    look(live, &analysis);
    mt_analysis_clear(&analysis);
    return MT_OK;
}

void mt_live_print(const struct mt_live *live, char *text, size_t bytes)
{
    text[0] = '\0';
    if (live->is_persistent) {
        (void)snprintf(text, bytes, "  rank %d %s %.1f%%", live->finding.rank,
                       mt_cause_name(live->finding.cause), live->finding.share * 100);
    }
}
