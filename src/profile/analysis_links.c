/* Whose messages are there last.
 *
 * Of a collective between nodes each rank knows which rank's messages it missed when all others
 * were there, and since when. A slow node is missed by the ranks of all others; a slow link between
 * two nodes by the ranks of these two. Some node is always last: it stands out when it is missed
 * several times as long as the others, in most steps. */
#include "profile/analysis_internal.h"

#include "base/size.h"
#include "base/sort.h"

#include <math.h>

static int n_rank_of(const struct mt_profile *profile, int node)
{
    int n = 0;
    for (int r = 0; r < profile->n_rank; ++r) {
        n += profile->rank[r].node == node ? 1 : 0;
    }
    return n;
}

static int first_rank_of(const struct mt_profile *profile, int node)
{
    int r = 0;
    while (r + 1 < profile->n_rank && profile->rank[r].node != node) {
        ++r;
    }
    return r;
}

/* Share of step time that a rank elsewhere missed messages of this node: the median over steps. */
static double median_share(const struct mt_study *study, int n_node, int node)
{
    const double elsewhere = study->profile->n_rank - n_rank_of(study->profile, node);
    int64_t n = 0;
    for (int s = 0; s < study->n; ++s) {
        if (study->is_detailed[s]) {
            study->scratch[n++] = study->link_ns[(int64_t)s * n_node + node] /
                                  fmax(1.0, (double)mt_study_step_ns(study, s));
        }
    }
    return mt_quantile_f64(study->scratch, n, 0.5) / fmax(1.0, elsewhere);
}

static enum mt_persistence find_persistence(const struct mt_study *study, int n_node, int node,
                                            int *period)
{
    double *when = study->scratch;
    int n = 0;
    for (int s = 0; s < study->n; ++s) {
        if (study->is_detailed[s]) {
            when[n++] = study->link_ns[(int64_t)s * n_node + node];
        }
    }
    const enum mt_persistence persistence = mt_analysis_persistence(when, n, period);
    *period = n > 0 ? *period * ((study->n + n / 2) / n) : 0;
    return persistence;
}

static double median_of_others(const struct mt_study *study, int n_node, int node)
{
    double *share = study->scratch + study->n; /* behind what median_share uses */
    int64_t n = 0;
    for (int other = 0; other < n_node; ++other) {
        if (other != node) {
            share[n++] = median_share(study, n_node, other);
        }
    }
    return mt_quantile_f64(share, n, 0.5);
}

/* Missed by more than half of the other nodes; the end of a slow link is missed by one. */
static bool is_missed_everywhere(const struct mt_study *study, const struct mt_analysis *analysis,
                                 int node)
{
    const int n_node = analysis->n_node;
    double mean = 0;
    int n = 0;
    for (int from = 0; from < n_node; ++from) {
        const double ns = (double)analysis->link_ns[(int64_t)from * n_node + node];
        mean += ns / fmax(1.0, n_rank_of(study->profile, from)) / (n_node - 1);
    }
    for (int from = 0; from < n_node; ++from) {
        const double ns = (double)analysis->link_ns[(int64_t)from * n_node + node];
        n += 2 * ns / fmax(1.0, n_rank_of(study->profile, from)) > mean ? 1 : 0;
    }
    return 2 * n > n_node - 1;
}

static bool find_node(const struct mt_study *study, const struct mt_analysis *analysis,
                      double detailed_ns, struct mt_finding *finding)
{
    const int n_node = analysis->n_node;
    double most = 0;
    for (int node = 0; node < n_node; ++node) {
        const double share = median_share(study, n_node, node);
        finding->node = share > most ? node : finding->node;
        most = fmax(most, share);
    }
    if (most <= MT_STUDY_LEAST_NETWORK ||
        most <= MT_STUDY_SPREADS * median_of_others(study, n_node, finding->node) ||
        !is_missed_everywhere(study, analysis, finding->node)) {
        return false;
    }
    double ns = 0;
    for (int s = 0; s < study->n; ++s) {
        ns += study->link_ns[(int64_t)s * n_node + finding->node];
    }
    const int elsewhere = study->profile->n_rank - n_rank_of(study->profile, finding->node);
    finding->share = ns / fmax(1.0, elsewhere) / fmax(1.0, detailed_ns);
    return true;
}

/* A rank of either node missed messages of the other: share of step time. */
static double share_of_pair(const struct mt_study *study, const struct mt_analysis *analysis,
                            double detailed_ns, int a, int b)
{
    const int64_t n_node = analysis->n_node;
    const int n_rank = n_rank_of(study->profile, a) + n_rank_of(study->profile, b);
    const int64_t ns = analysis->link_ns[a * n_node + b] + analysis->link_ns[b * n_node + a];
    return (double)ns / fmax(1.0, n_rank) / fmax(1.0, detailed_ns);
}

/* Against the pair that is missed longest of those beside it. */
static bool find_pair(const struct mt_study *study, const struct mt_analysis *analysis,
                      double detailed_ns, struct mt_finding *finding)
{
    double next = 0;
    finding->share = 0;
    for (int a = 0; a < analysis->n_node; ++a) {
        for (int b = a + 1; b < analysis->n_node; ++b) {
            const double share = share_of_pair(study, analysis, detailed_ns, a, b);
            if (share > finding->share) {
                next = finding->share;
                finding->share = share;
                finding->node = a;
                finding->to_node = b;
            } else {
                next = fmax(next, share);
            }
        }
    }
    return finding->share > MT_STUDY_LEAST_NETWORK && finding->share > MT_STUDY_SPREADS * next &&
           median_share(study, analysis->n_node, finding->node) > MT_STUDY_LEAST_NETWORK / 2 &&
           median_share(study, analysis->n_node, finding->to_node) > MT_STUDY_LEAST_NETWORK / 2;
}

bool mt_study_find_link(const struct mt_study *study, const struct mt_analysis *analysis,
                        double detailed_ns, struct mt_finding *finding)
{
    enum { LEAST_NODES = 3 }; /* of two nothing can be told about the one */
    *finding = (struct mt_finding){.cause = MT_CAUSE_COMMUNICATION,
                                   .phase = MT_N_PHASE,
                                   .layer = -1,
                                   .node = -1,
                                   .to_node = -1};
    if (analysis->n_node < LEAST_NODES || (!find_node(study, analysis, detailed_ns, finding) &&
                                           !find_pair(study, analysis, detailed_ns, finding))) {
        return false;
    }
    finding->rank = first_rank_of(study->profile, finding->node);
    finding->persistence =
        find_persistence(study, analysis->n_node, finding->node, &finding->period);
    return true;
}
