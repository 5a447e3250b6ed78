/* find_windows RUN_DIR SKIP WINDOW: findings of each whole window of a run, after SKIP steps, for
 * straggler_study.py. One line a window:
 *
 *   FIRST_STEP NOISE "finding: ..." then every finding as RANK:CAUSE:SHARE:FACTOR:WHEN, the worst
 *   first
 *
 * NOISE: what the median rank costs for no known reason. */
#include "profile/pricing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static enum mt_status print_window(const struct mt_profile *profile, int first, int n)
{
    struct mt_analysis analysis;
    struct mt_replay *replay = NULL;
    char text[128];
    MT_TRY(mt_analysis_make(profile, first, n, &analysis));
    MT_TRY(mt_replay_create_of(profile, first, n, n, &replay));
    MT_TRY(mt_findings_price(profile, replay, &analysis));
    mt_replay_destroy(replay);
    mt_analysis_print_finding(&analysis, text, sizeof(text));
    (void)printf("%" PRId64 " %.4f \"%s\"", profile->step_number[first], analysis.noise_share,
                 text);
    for (int i = 0; i < analysis.n_finding; ++i) {
        const struct mt_finding *finding = &analysis.finding[i];
        (void)printf(" %d:%s:%.4f:%.3f:%s", finding->rank, mt_cause_name(finding->cause),
                     finding->share, finding->factor, mt_persistence_name(finding->persistence));
    }
    (void)printf("\n");
    mt_analysis_clear(&analysis);
    return MT_OK;
}

static enum mt_status print_windows(const char *run_dir, int skip, int window)
{
    struct mt_profile profile;
    enum mt_status status = MT_OK;
    MT_TRY(mt_profile_read(run_dir, &profile));
    for (int first = skip; first + window <= profile.n_step && status == MT_OK; first += window) {
        status = print_window(&profile, first, window);
    }
    mt_profile_clear(&profile);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: find_windows RUN_DIR SKIP WINDOW\n");
        return MT_ERR_CONFIG;
    }
    const enum mt_status status =
        print_windows(argv[1], (int)strtol(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10));
    if (status != MT_OK) {
        (void)fprintf(stderr, "%s\n", mt_error_last()->text);
    }
    return (int)status;
}
