#include "placement/placement.h"

#include "base/memory.h"
#include "base/size.h"

enum mt_status mt_placement_init(struct mt_placement *placement, int n_rank, int n_expert,
                                 int max_instance)
{
    enum mt_status status = MT_OK;
    MT_ASSERT(n_rank >= 1 && n_expert >= 1 && max_instance >= n_expert);
    *placement =
        (struct mt_placement){.n_rank = n_rank, .n_expert = n_expert, .max_instance = max_instance};
    MT_TRY_GOTO(MT_ALLOCATE(placement->owner, n_expert, "placement"));
    MT_TRY_GOTO(MT_ALLOCATE(placement->instance_start, (int64_t)n_expert + 1, "placement"));
    MT_TRY_GOTO(MT_ALLOCATE(placement->rank, max_instance, "placement"));
    mt_placement_owners_only(placement, 0);
    return MT_OK;
cleanup:
    mt_placement_clear(placement);
    return status;
}

void mt_placement_clear(struct mt_placement *placement)
{
    mt_memory_free(placement->owner);
    mt_memory_free(placement->instance_start);
    mt_memory_free(placement->rank);
    *placement = (struct mt_placement){0};
}

/* E % R shares hold one expert more than the others: shares 0 .. E % R - 1. Layer after layer the
 * larger ones go to the next ranks in turn, so that over any run of layers the ranks' numbers of
 * experts differ by at most one (4 experts on 3 ranks: layer 0 gives 2 to rank 0, layer 1 to rank
 * 1):
 *
 *     owner = (share + layer * (E % R)) % R
 *
 * Where E is a multiple of R all layers are alike, and there is nothing to turn. */
void mt_placement_owners_only(struct mt_placement *placement, int layer)
{
    const int n_rank = placement->n_rank;
    const int n_expert = placement->n_expert;
    const int turn = (int)((int64_t)layer * (n_expert % n_rank) % n_rank);
    MT_ASSERT(layer >= 0);
    for (int share = 0; share < n_rank; ++share) {
        const int owner = (share + turn) % n_rank;
        const int first = (int)mt_share_start(n_expert, n_rank, share);
        const int end = (int)mt_share_start(n_expert, n_rank, share + 1);
        for (int expert = first; expert < end; ++expert) {
            placement->owner[expert] = owner;
            placement->instance_start[expert] = expert;
            placement->rank[expert] = owner;
        }
    }
    placement->instance_start[n_expert] = n_expert;
}

void mt_placement_check(const struct mt_placement *placement)
{
    MT_ASSERT(placement->instance_start[0] == 0);
    MT_ASSERT(mt_placement_n_instance(placement) <= placement->max_instance);
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        const int start = placement->instance_start[expert];
        const int end = placement->instance_start[expert + 1];
        bool is_owner_found = false;
        MT_ASSERT(start < end);
        for (int i = start; i < end; ++i) {
            MT_ASSERT(placement->rank[i] >= 0 && placement->rank[i] < placement->n_rank);
            MT_ASSERT(i == start || placement->rank[i - 1] < placement->rank[i]);
            is_owner_found = is_owner_found || placement->rank[i] == placement->owner[expert];
        }
        MT_ASSERT(is_owner_found);
    }
}
