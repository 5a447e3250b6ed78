/* The policies of the table in policy.c: one pure function a file. Each fills `placement`, whose
 * sizes match `input` and whose capacity allows n_expert + n_rank * slots instances. */
#ifndef MT_PLACEMENT_POLICY_H
#define MT_PLACEMENT_POLICY_H

#include "placement/placement.h"

void mt_policy_ep_plan(const struct mt_policy_input *input, struct mt_placement *placement);

#endif
