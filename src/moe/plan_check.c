/* Every rank makes its own plan from what all know, and nobody asks: so all plans must be the same.
 * Debug builds compare them, layer by layer; a difference would otherwise show as a hang. */
#include "moe/context.h"

/* FNV-1a over the words of a plan. */
static uint64_t add_words(uint64_t hash, const void *words, size_t n_bytes)
{
    static const uint64_t PRIME = 0x100000001b3U;
    const unsigned char *byte = words;
    for (size_t i = 0; i < n_bytes; ++i) {
        hash = (hash ^ byte[i]) * PRIME;
    }
    return hash;
}

static uint64_t hash_plan(const struct mt_moe *moe, const struct mt_placement *placement)
{
    static const uint64_t BASIS = 0xcbf29ce484222325U;
    const size_t n_expert = (size_t)placement->n_expert;
    const size_t n_instance = (size_t)mt_placement_n_instance(placement);
    uint64_t hash = add_words(BASIS, placement->owner, n_expert * sizeof(int));
    hash = add_words(hash, placement->instance_start, (n_expert + 1) * sizeof(int));
    hash = add_words(hash, placement->rank, n_instance * sizeof(int));
    hash = add_words(hash, placement->is_late, n_instance * sizeof(bool));
    return add_words(hash, moe->quota, n_instance * (size_t)moe->n_rank * sizeof(int64_t));
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
