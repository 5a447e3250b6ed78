/* Expert parallelism: owners only, whatever the load. No copies move, so nothing is gathered and
 * nothing reduced; the price is that the rank with the hottest experts sets the pace. */
#include "placement/policy.h"

void mt_policy_ep_plan(const struct mt_policy_input *input, struct mt_placement *placement)
{
    MT_ASSERT(placement->n_rank == input->n_rank && placement->n_expert == input->n_expert);
    mt_placement_owners_only(placement, input->layer);
}
