/* Fully sharded data parallelism: every expert everywhere, so that every rank computes the rows of
 * its own tokens and none is exchanged (ZeRO-3, Rajbhandari et al., SC'20). The price is that all
 * experts travel to all ranks.
 *
 * With fewer slots than that takes, a rank holds the experts that follow its own number's share in
 * id order: copies then spread evenly over experts, whatever the load. */
#include "placement/draft.h"

#include "base/size.h"

void mt_policy_fsdp_before_gate(const struct mt_policy_input *input, struct mt_arena *scratch,
                                struct mt_placement *placement)
{
    const int64_t mark = mt_arena_mark(scratch);
    const int n_rank = placement->n_rank;
    const int n_expert = placement->n_expert;
    struct mt_draft draft;
    mt_placement_owners_only(placement);
    mt_draft_init(&draft, input, placement, scratch);
    for (int rank = 0; rank < n_rank; ++rank) {
        const int64_t first = mt_share_start(n_expert, n_rank, rank);
        for (int i = 0; i < n_expert && draft.n_free[rank] > 0; ++i) {
            const int expert = (int)((first + i) % n_expert);
            if (mt_draft_can(&draft, expert, rank)) {
                mt_draft_add(&draft, expert, rank, MT_DRAFT_HERE);
            }
        }
    }
    mt_draft_write(&draft, placement);
    mt_arena_release(scratch, mark);
}
