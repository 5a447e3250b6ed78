/* What findings cost: the share of step time that would be gained without them.
 *
 * The analysis finds ranks and causes, and how long others waited for them. What of that would be
 * gained is another question: without one straggler they wait for the next. So the recorded steps
 * are replayed without it, and that gain is the finding's share, in the finding line and in the
 * what-ifs alike. */
#ifndef MT_PROFILE_PRICING_H
#define MT_PROFILE_PRICING_H

#include "profile/analysis.h"
#include "profile/replay.h"

/* Findings that are priced one by one; the worst by waiting. */
enum { MT_PRICED_FINDINGS = 8 };

/* What has to change for the finding to be gone. */
struct mt_change mt_finding_change(const struct mt_finding *finding);

/* Sets the shares of analysis->finding, orders them anew and drops those that cost less than
 * MT_FINDING_SHARE. Stragglers that are equally slow gain nothing one without the other: the
 * gain without all of them is shared by the waiting that each caused. How far the model is off
 * with transfers of other steps tells how much these vary by chance: a finding about messages costs
 * twice that at least. Where the replay has only
 * part of the analysed steps, gains are carried over by the waiting in both. Without any replayed
 * step nothing is changed. */
enum mt_status mt_findings_price(const struct mt_profile *profile, struct mt_replay *replay,
                                 struct mt_analysis *analysis);

#endif
