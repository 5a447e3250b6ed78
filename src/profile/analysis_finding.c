/* What an analysis says in words. */
#include "profile/analysis.h"

#include <stdio.h>

const double MT_FINDING_SHARE = 0.01;

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
