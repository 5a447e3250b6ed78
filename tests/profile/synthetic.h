/* Profiles of a run that never was: ranks compute and meet in a simulation whose causes are known.
 *
 *   a step:  data; per layer attention, gather of counts, exchange, experts, exchange; sum
 *
 * Times are in ns; the times of every rank vary at random, a little always and a lot at times, as
 * on a machine that others use. */
#ifndef MT_TEST_PROFILE_SYNTHETIC_H
#define MT_TEST_PROFILE_SYNTHETIC_H

#include "profile/profile.h"

enum { SYNTH_MAX_RANK = 64 };

struct synth {
    int n_rank, n_step, n_layer;
    uint64_t seed;
    double noise;     /* relative standard deviation of each span */
    double hiccup;    /* probability that a span takes 3 ms longer */
    double tail;      /* how heavy: as far beyond 3 ms as a Pareto law says; 0: all take 3 ms */
    int victim;       /* the rank that is meant below */
    double slowdown;  /* its device; 1: none */
    int every;        /* only in each so-manieth step; 0, 1: always */
    int from, until;  /* only in steps [from, until); 0, 0: always */
    double skew;      /* its rows over the mean; 1: balanced */
    double row_noise; /* relative standard deviation of rows */
    int64_t data_ns;  /* that its sequences come late */
    int64_t save_ns;  /* stall of all ranks after every 10th step */
    int64_t stall_ns; /* that it takes longer on the victim */
    int64_t link_ns;  /* that messages to it take longer, each collective */
    int n_node;       /* 0: one; ranks lie on them in turn, uneven where they do not divide */
    int slow_node;    /* its messages take slow_ns longer, each collective; 0, -1: none */
    int slow_to;      /* only those with this node; 0: all */
    int64_t slow_ns;
    bool is_pairwise;  /* exchanges wait for the neighbour below only: lateness travels */
    bool is_tokenless; /* the last rank has no tokens and no rows */
    int64_t error_ns;  /* of the clocks of all ranks but 0 */
};

/* 4 ranks, 50 steps, 2 layers, 1 % noise, nothing wrong. */
struct synth synth_usual(uint64_t seed);
void synth_make(const struct synth *synth, struct mt_profile *profile);

#endif
