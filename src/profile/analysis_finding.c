/* What an analysis says in words, and when in time. */
#include "profile/analysis_internal.h"

#include <math.h>
#include <stdio.h>

const char *mt_cause_name(enum mt_cause cause)
{
    static const char *const name[MT_N_CAUSE] = {[MT_CAUSE_NONE] = "unknown",
                                                 [MT_CAUSE_SLOW_DEVICE] = "slow-device",
                                                 [MT_CAUSE_ROUTING_LOAD] = "routing-load",
                                                 [MT_CAUSE_LATE_DATA] = "late-data",
                                                 [MT_CAUSE_CHECKPOINT] = "checkpoint",
                                                 [MT_CAUSE_COMMUNICATION] = "communication"};
    MT_ASSERT((int)cause >= 0 && cause < MT_N_CAUSE);
    return name[cause];
}

const char *mt_persistence_name(enum mt_persistence persistence)
{
    static const char *const name[] = {
        [MT_TRANSIENT] = "transient", [MT_PERIODIC] = "periodic", [MT_PERMANENT] = "permanent"};
    MT_ASSERT((int)persistence >= 0 && persistence <= MT_PERMANENT);
    return name[persistence];
}

void mt_analysis_print_finding(const struct mt_analysis *analysis, char *text, size_t bytes)
{
    if (analysis->n_finding == 0) {
        (void)snprintf(text, bytes, "finding: none");
        return;
    }
    const struct mt_finding *worst = &analysis->finding[0];
    (void)snprintf(text, bytes, "finding: rank %d %s %.1f%%", worst->rank,
                   mt_cause_name(worst->cause), worst->share * 100);
}

/* A step in which it cost at least half of what it costs in a bad one. */
static bool is_bad(double cost, double worst)
{
    return cost > 0.5 * worst;
}

/* Bad steps at every `period`-th step of one remainder, and far more than chance puts there: so
 * many deviations beyond what the rate of bad steps elsewhere makes of as many steps. */
static bool repeats(const double *cost, int n, double worst, int n_bad, int period)
{
    static const double DEVIATIONS = 7;
    static const double LEAST_RATE = 0.02;
    for (int remainder = 0; remainder < period; ++remainder) {
        int n_here = 0;
        int n_hit = 0;
        for (int s = remainder; s < n; s += period) {
            ++n_here;
            n_hit += is_bad(cost[s], worst) ? 1 : 0;
        }
        const double rate = fmax(LEAST_RATE, (double)(n_bad - n_hit) / (n - n_here));
        const double deviation = sqrt(n_here * rate * (1 - rate));
        if (n_here >= 3 && 10 * n_hit >= 8 * n_here &&
            n_hit - n_here * rate > DEVIATIONS * deviation) {
            return true;
        }
    }
    return false;
}

/* What a bad step costs. One step of a million must not decide it: four times the mean is bad
 * enough. */
static double worst_cost(const double *cost, int n)
{
    double worst = 0;
    double sum = 0;
    for (int s = 0; s < n; ++s) {
        sum += cost[s];
        worst = fmax(worst, cost[s]);
    }
    return fmin(worst, n > 0 ? 4 * sum / n : 0.0);
}

enum mt_persistence mt_analysis_persistence(const double *cost, int n, int *period)
{
    const double worst = worst_cost(cost, n);
    int n_bad = 0;
    *period = 0;
    for (int s = 0; s < n; ++s) {
        n_bad += is_bad(cost[s], worst) ? 1 : 0;
    }
    if (2 * n_bad > n) {
        return MT_PERMANENT;
    }
    for (int p = 2; p <= n / 3 && n_bad >= 3; ++p) {
        if (repeats(cost, n, worst, n_bad, p)) {
            *period = p;
            return MT_PERIODIC;
        }
    }
    return MT_TRANSIENT;
}

/* The cut after which bad steps exceed good ones by most. */
int mt_analysis_since(const double *cost, int n)
{
    static const double LEAST_SHARE = 0.1; /* of the steps: what begins before began at once */
    const double worst = worst_cost(cost, n);
    int excess = 0;
    int most = 0;
    int since = 0;
    for (int s = n - 1; s >= 0; --s) {
        excess += is_bad(cost[s], worst) ? 1 : -1;
        if (excess >= most) {
            most = excess;
            since = s;
        }
    }
    return since > LEAST_SHARE * n ? since : 0;
}
