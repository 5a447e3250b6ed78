/* Who waits for whom, and why. Pure functions of a profile.
 *
 * An all-reduce makes every rank's step as long as the slowest one's, so durations show nothing:
 * arrivals do. In each collective
 *
 *   rank a   ......begin need|========================|done      waits for c, then for the network
 *   rank b   ..................begin need|============|done
 *   rank c   ...............................begin need|=|done    arrives last
 *                                             ^
 *   a's wait: from need until the last arrival; transfer: the rest until done
 *
 * Each moment of a wait is shared among the ranks that have not arrived at that moment. What a late
 * rank is itself owed by others, because it stood waiting for them before, is handed on to them, so
 * that only busy time is ever blamed. Waits shorter than the clocks' error count for nothing. */
#ifndef MT_PROFILE_ANALYSIS_H
#define MT_PROFILE_ANALYSIS_H

#include "profile/profile.h"

enum mt_cause {
    MT_CAUSE_NONE,          /* late for no reason that is known */
    MT_CAUSE_SLOW_DEVICE,   /* more time for the same work */
    MT_CAUSE_ROUTING_LOAD,  /* more rows */
    MT_CAUSE_LATE_DATA,     /* waiting for sequences */
    MT_CAUSE_CHECKPOINT,    /* a stall of a save */
    MT_CAUSE_COMMUNICATION, /* its messages take longer than those of others */
    MT_N_CAUSE
};
/* As in the finding: "slow-device"; MT_CAUSE_NONE: "unknown". */
const char *mt_cause_name(enum mt_cause cause);

/* Phases whose work is tokens: the same for ranks with the same number of them. */
bool mt_phase_is_of_tokens(enum mt_phase phase);

enum mt_persistence { MT_TRANSIENT, MT_PERIODIC, MT_PERMANENT };
const char *mt_persistence_name(enum mt_persistence persistence); /* "transient", ... */

/* One rank and one cause. */
struct mt_finding {
    int rank;
    enum mt_cause cause; /* MT_CAUSE_NONE in the worst: there is no finding */
    double share;        /* of step time that it costs, 0 .. 1 */
    enum mt_persistence persistence;
    int period; /* steps, when periodic; else 0 */
    int since;  /* when permanent: index of the step since which; else, or from the first on: 0 */
    bool is_everybodys; /* late data, checkpoint: most of it stops every rank, this one longest */
    /* Messages between nodes: to or from `node`, or between it and `to_node`; -1: of the rank. */
    int node, to_node;
    int phase; /* where most of it arose: enum mt_phase; MT_N_PHASE: unknown */
    int layer; /* -1: in no layer more than in others */
    /* Slow device: time at equal work over the median rank's; routing load: rows over the mean. */
    double factor; /* else 0 */
};

struct mt_analysis {
    int first_step, n_step; /* looked at: indices into profile->step */
    int n_detailed;         /* of which all ranks left arrivals */
    int n_rank;
    int64_t error_ns;     /* no wait below this is blamed on anybody: worst pair of clocks */
    int64_t step_ns;      /* mean over the steps, until the next begins */
    int64_t *wait_ns;     /* [R] stood still because others had not arrived */
    int64_t *transfer_ns; /* [R] stood still although all had */
    int64_t *caused_ns;   /* [R] wait of all other ranks together that this one caused */
    /* Of which in busy phase p, last: in none; before a collective of layer l, last: of none. */
    int64_t *caused_by_phase_ns; /* [R, MT_N_PHASE + 1] */
    int64_t *caused_by_layer_ns; /* [R, L + 1] */
    double *share;               /* [R, MT_N_CAUSE] of step time that each costs */
    double *slowdown;            /* [R] time at equal work over the median rank's; 1: as others; of
                                    a rank that is slow now and then: in those steps */
    double *rows_ratio;          /* [R] rows over the mean */
    int64_t *excess_ns; /* [R, MT_N_PHASE] a step: time beyond the median's at equal work */
    int n_node;
    /* [M, M] that node a's ranks waited for messages to or from node b, all others being there. */
    int64_t *link_ns;
    double row_ns, layer_ns;  /* experts of a healthy rank, a layer: layer_ns + row_ns * rows */
    struct mt_finding *worst; /* [R] the worst of each rank, however small */
    int n_finding;
    /* What the median rank costs by being late for no reason that is known: chance, and what the
     * machine does beside the run. */
    double noise_share;
    /* Of waiting that a finding causes at least: MT_FINDING_SHARE, or noise_share if it is more; a
     * device that is slow all the time and messages that take longer: MT_FINDING_SHARE. */
    double least_share;
    struct mt_finding *finding; /* [n_finding] the worst first */
};

/* What costs less of step time than this is not a finding (1 %). */
extern const double MT_FINDING_SHARE;

/* Steps [first, first + n) of the profile; n = 0 and profiles of one rank are allowed. */
enum mt_status mt_analysis_make(const struct mt_profile *profile, int first, int n,
                                struct mt_analysis *analysis);
void mt_analysis_clear(struct mt_analysis *analysis);

/* By share; of equal ones the lower rank first, then the lower cause. */
void mt_analysis_sort_findings(struct mt_analysis *analysis);

/* When in time cost [n], a number a step, arose. *period: steps, when periodic, else 0. */
enum mt_persistence mt_analysis_persistence(const double *cost, int n, int *period);

/* Of a permanent one: index of the step since which it is there; 0: from the beginning. */
int mt_analysis_since(const double *cost, int n);

/* "finding: none" or "finding: rank 3 slow-device 12.3%" (docs/profiling.md). text [bytes] */
void mt_analysis_print_finding(const struct mt_analysis *analysis, char *text, size_t bytes);

#endif
