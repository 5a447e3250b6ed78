/* Hashes of the dense working copies: every rank has all of them, so all ranks have the same. */
#include "store/internal.h"

#include <string.h>
#include <xxhash.h>

static uint64_t hash_range(const float *value, int64_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(value, (size_t)n * sizeof(*value), seed);
}

void mt_store_hash_owners(const struct mt_store *store, uint64_t *hash)
{
    const struct mt_layout *layout = &store->layout;
    memset(hash, 0, (size_t)layout->n_rank * sizeof(*hash));
    for (int b = 0; b < store->table->n_bucket; ++b) {
        MT_ASSERT(store->bucket[b].values == MT_VALUES_READY);
        for (int r = 0; r < layout->n_rank; ++r) {
            const struct mt_range own = mt_layout_owned_range(layout, b, r);
            hash[r] = hash_range(store->dense_value + layout->bucket_start[b] + own.start,
                                 own.end - own.start, hash[r]);
        }
    }
}

void mt_store_hash_tensors(const struct mt_store *store, uint64_t *hash)
{
    for (int t = 0; t < store->table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &store->table->tensor[t];
        hash[t] = 0;
        if (tensor->kind == MT_TENSOR_DENSE) {
            const int64_t n = tensor->dim[0] * mt_tensor_row_elements(tensor);
            hash[t] = hash_range(mt_store_value(store, t), n, 0);
        }
    }
}
