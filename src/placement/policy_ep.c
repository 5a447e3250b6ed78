/* Expert parallelism: owners only, whatever the load. No copies move, so nothing is gathered and
 * nothing reduced; the price is that the rank with the hottest experts sets the pace. */
#include "placement/policy.h"

void mt_policy_owners_only(const struct mt_policy_input *input, struct mt_arena *scratch,
                           struct mt_placement *placement)
{
    (void)scratch;
    MT_ASSERT(placement->n_expert == input->n_expert);
    mt_placement_owners_only(placement);
}
