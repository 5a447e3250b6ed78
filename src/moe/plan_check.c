/* Every rank makes its own plan from what all know, and nobody asks: so all plans must be the same.
 * Debug builds compare them, layer by layer; a difference would otherwise show as a hang. */
#include "moe/context.h"

#include <xxhash.h>

static uint64_t hash_plan(const struct mt_moe *moe, const struct mt_placement *placement)
{
    const size_t n_expert = (size_t)placement->n_expert;
    const size_t n_instance = (size_t)mt_placement_n_instance(placement);
    const size_t n_quota = n_instance * (size_t)moe->n_rank;
    XXH64_hash_t hash = XXH3_64bits(placement->owner, n_expert * sizeof(int));
    hash = XXH3_64bits_withSeed(placement->instance_start, (n_expert + 1) * sizeof(int), hash);
    hash = XXH3_64bits_withSeed(placement->rank, n_instance * sizeof(int), hash);
    hash = XXH3_64bits_withSeed(placement->is_late, n_instance * sizeof(bool), hash);
    return XXH3_64bits_withSeed(moe->quota, n_quota * sizeof(int64_t), hash);
}

enum mt_status mt_moe_check_plan(struct mt_moe *moe, int layer)
{
    const int64_t own = (int64_t)hash_plan(moe, &moe->placement[layer]);
    MT_TRY(mt_comm_gather_i64(moe->comm, &own, 1, moe->load));
    for (int rank = 1; rank < moe->n_rank; ++rank) {
        if (moe->load[rank] != moe->load[0]) {
            return MT_FAIL(MT_ERR_INTERNAL,
                           "rank %d plans layer %d in another way than rank 0 (%016llx, %016llx); "
                           "expected the same plan everywhere; this is a bug: please report it "
                           "with the configuration and costs.json",
                           rank, layer, (unsigned long long)moe->load[rank],
                           (unsigned long long)moe->load[0]);
        }
    }
    return MT_OK;
}
