/* What the files of the analysis share. Only they include it.
 *
 *   analysis_blame.c   arrivals -> waits, and whom each is owed to
 *   analysis_work.c    time and rows -> a healthy rank's time, and the excess over it
 *   analysis_pace.c    which ranks are slower than the others at equal work, beyond noise
 *   analysis_links.c   which node's or pair of nodes' messages are there last
 *   analysis.c         both together: shares by rank and cause, findings
 */
#ifndef MT_PROFILE_ANALYSIS_INTERNAL_H
#define MT_PROFILE_ANALYSIS_INTERNAL_H

#include "profile/analysis.h"

/* Waits that a rank caused in one step, ns summed over the ranks that waited. */
struct mt_caused {
    double work;       /* it was busy computing */
    double data;       /* it was busy reading sequences */
    double checkpoint; /* it was busy saving */
    double network;    /* its messages had taken longer than others' */
    double other;      /* it was busy with what is nobody's work in particular */
};

/* What a rank took beyond a healthy rank with mean rows, in one step, ns; >= 0. */
struct mt_excess {
    double device; /* at its own rows and tokens */
    double rows;   /* that its rows explain */
    double data;   /* reading sequences, beyond the median rank */
    double ratio;  /* time over the median rank's at the same work, in this step; 0: it had none */
    double raw;    /* the same over what is usual in all steps */
};

struct mt_study {
    const struct mt_profile *profile;
    int first, n;             /* steps */
    struct mt_caused *caused; /* [n, R] zeros where a step has no detail */
    struct mt_excess *excess; /* [n, R] */
    bool *is_detailed;        /* [n] all ranks left arrivals */
    bool *is_slow;            /* [R] at equal work, beyond noise */
    bool *is_slow_throughout; /* [R] of these in every part of the window, not now and then */
    bool *is_far;             /* [R] its messages take longer, beyond noise */
    double *link_ns; /* [n, M] as in the analysis, of all ranks, for each node waited for */
    double *scratch; /* [n + 2 R] */
};

static inline int64_t mt_study_at(const struct mt_study *study, int step, int rank)
{
    return (int64_t)step * study->profile->n_rank + rank;
}

static inline const struct mt_profile_step *mt_study_step(const struct mt_study *study, int step,
                                                          int rank)
{
    return mt_profile_step(study->profile, study->first + step, rank);
}

/* Of the slowest rank, until the next step begins. */
int64_t mt_study_step_ns(const struct mt_study *study, int step);

/* Fills study->caused, is_detailed and the analysis's waits. */
enum mt_status mt_study_blame(struct mt_study *study, struct mt_analysis *analysis);
/* Fills study->excess, row_ns, layer_ns, rows_ratio. */
enum mt_status mt_study_work(struct mt_study *study, struct mt_analysis *analysis);
/* Fills is_slow, is_far, slowdown, excess_ns. */
enum mt_status mt_study_pace(struct mt_study *study, struct mt_analysis *analysis);
/* The node or the pair of nodes whose messages are there last, beyond noise; false: none stands
 * out. Needs what mt_study_blame fills. */
bool mt_study_find_link(const struct mt_study *study, const struct mt_analysis *analysis,
                        double detailed_ns, struct mt_finding *finding);
/* A rank is far whose share of something is so many times the median of the others', and costs this
 * in most steps; so is a node. */
extern const double MT_STUDY_LEAST_NETWORK, MT_STUDY_SPREADS;
#endif
