/* A profile of a run that never was: R ranks whose speeds, rows and messages are given, so that
 * what the analysis, the replay and the report say can be set against the truth.
 *
 * A step is made like the program's: layers of attention, gate, a meeting about counts, dispatch,
 * experts, combine; the head; the same backward, each layer's dense gradients on their way under
 * the next one's backward; a norm, the update, parameters on their way under the next step's
 * layers; a meeting about metrics. */
#ifndef MT_TEST_PROFILE_MADE_RUN_H
#define MT_TEST_PROFILE_MADE_RUN_H

#include "profile/profile.h"

struct made_run {
    int n_rank, n_node, n_step, n_layer, n_micro;
    int slow_rank; /* -1: none */
    double slowdown;
    int slow_from;      /* index of the first step that is slow */
    int also_slow_rank; /* as slow; -1: none */
    int late_rank;      /* reads its data so much longer, a micro-batch; -1: none */
    int64_t late_ns;
    int stalled_rank; /* saves so much longer; -1: none */
    int64_t stall_ns;
    int hot_rank;  /* -1: every rank has the same rows */
    double hot;    /* its rows over the mean; the others share the rest */
    double jitter; /* work and transfers vary by up to this, seeded; 0: not at all */
    uint64_t seed;
    int owner;            /* alone receives dense gradients, large messages; -1: everybody does */
    bool has_copies;      /* of experts, on their way under attention */
    int checkpoint_every; /* steps; 0: never */
    int detailed_from;    /* steps before have sums only */
    int traced_from;      /* spans from this index on */
    int killed_rank;      /* left nothing after killed_step; -1: nobody */
    int killed_step;
};

/* 4 ranks, 12 steps, 2 layers, all as fast as each other, everything recorded. */
struct made_run made_run_plain(void);

/* Fills the profile; free with mt_profile_clear. */
enum mt_status made_run_profile(const struct made_run *run, struct mt_profile *profile);

/* The true time of a step: from the last rank's first begin to its last end, over the steps. */
double made_run_step_ns(const struct mt_profile *profile, int first, int n);

#endif
