/* `adaptive` with parts switched off, for studies of what each brings. */
#ifndef MT_PLACEMENT_ADAPTIVE_H
#define MT_PLACEMENT_ADAPTIVE_H

#include "placement/policy.h"

struct mt_adaptive_options {
    bool prefetch; /* copies from history under attention */
    bool repair;   /* late copies from exact counts */
    /* The executor runs rows of resident experts before late ones; if it does not, say so here, and
     * a late copy is priced as delaying its whole rank. */
    bool resident_first;
    bool sticky; /* rows go to copies that were there before, if those have room */
};

void mt_adaptive_before_gate(const struct mt_adaptive_options *options,
                             const struct mt_policy_input *input, struct mt_arena *scratch,
                             struct mt_placement *placement);
void mt_adaptive_after_gate(const struct mt_adaptive_options *options,
                            const struct mt_policy_input *input, struct mt_arena *scratch,
                            struct mt_placement *placement);

/* Rows like those of mt_policies, one switch off each: adaptive-no-prefetch, adaptive-no-repair,
 * adaptive-no-resident-first, adaptive-no-sticky. Not in the table of policies: no configuration
 * names them. `adaptive-no-resident-first` also needs an executor that waits for late copies. */
extern const struct mt_policy mt_adaptive_variants[];
extern const int mt_n_adaptive_variant;

#endif
