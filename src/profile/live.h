/* The worst rank while the run goes on, for the step line.
 *
 * Every rank's sums of a step travel with the metrics; rank 0 keeps them for a window and looks at
 * them as the analysis looks at a profile: a step counts as one meeting, at which each rank arrives
 * when it has been busy as long as it was. Lateness inside a step that evens out is not seen here;
 * profile/ has it. */
#ifndef MT_PROFILE_LIVE_H
#define MT_PROFILE_LIVE_H

#include "profile/analysis.h"

/* One rank's sums of a step: seconds, tokens, rows. Zeros when nothing is recorded. */
enum {
    MT_LIVE_BUSY_S,   /* not waiting, in any phase */
    MT_LIVE_TOKEN_S,  /* of which in phases whose work is tokens */
    MT_LIVE_EXPERT_S, /* of which in experts */
    MT_LIVE_DATA_S,   /* of which reading sequences */
    MT_LIVE_TOKENS,
    MT_LIVE_ROWS,
    MT_N_LIVE
};

struct mt_live {
    struct mt_profile profile; /* the window, a ring; one layer, one collective a step */
    int64_t n;                 /* steps so far */
    struct mt_finding finding; /* of the last look; cause none: nothing */
    double noise_share;        /* of the noisiest looks of late */
    bool is_persistent;        /* as in the look before */
};

/* Of the step that mt_record_step_end closed last. item [MT_N_LIVE] */
void mt_live_measure(double *item);

/* On the rank that shows. window: steps, of which 50 at most are kept. */
enum mt_status mt_live_open(struct mt_live *live, int n_rank, int64_t window);
void mt_live_clear(struct mt_live *live);
/* A step of all ranks: rank r's items at all[r * stride]. Now and then has a look. */
enum mt_status mt_live_add(struct mt_live *live, const double *all, int64_t stride);
/* "  rank 3 slow-device 7.0%", or "" as long as nothing costs 3 % for two looks in a row.
 * text [bytes] */
void mt_live_print(const struct mt_live *live, char *text, size_t bytes);

#endif
