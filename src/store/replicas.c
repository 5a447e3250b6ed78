/* Hashes of the dense working copies: every rank has all of them, so all ranks have the same. */
#include "base/size.h"
#include "device/memory.h"
#include "store/internal.h"

#include <string.h>
#include <xxhash.h>

/* A piece at a time, each the seed of the next. */
static enum mt_status hash_range(const struct mt_store *store, const float *value, int64_t n,
                                 uint64_t *hash)
{
    for (int64_t at = 0; at < n; at += MT_ROOM_ELEMENTS) {
        const int64_t n_bytes = mt_min_i64(MT_ROOM_ELEMENTS, n - at) * (int64_t)sizeof(*value);
        float *piece = mt_device_room(store->device, (float *)(uintptr_t)(value + at), store->room);
        mt_device_download(store->device, piece, value + at, n_bytes);
        MT_TRY(mt_device_wait(store->device));
        *hash = XXH3_64bits_withSeed(piece, (size_t)n_bytes, *hash);
    }
    return MT_OK;
}

static enum mt_status hash_bucket(const struct mt_store *store, int bucket, uint64_t *hash)
{
    const struct mt_layout *layout = &store->layout;
    const float *value = store->dense_value + layout->bucket_start[bucket];
    MT_ASSERT(store->bucket[bucket].values == MT_VALUES_READY);
    for (int r = 0; r < layout->n_rank; ++r) {
        const struct mt_range own = mt_layout_owned_range(layout, bucket, r);
        MT_TRY(hash_range(store, value + own.start, own.end - own.start, &hash[r]));
    }
    return MT_OK;
}

enum mt_status mt_store_hash_owners(const struct mt_store *store, uint64_t *hash)
{
    memset(hash, 0, (size_t)store->layout.n_rank * sizeof(*hash));
    for (int b = 0; b < store->table->n_bucket; ++b) {
        MT_TRY(hash_bucket(store, b, hash));
    }
    return MT_OK;
}

enum mt_status mt_store_hash_tensors(const struct mt_store *store, uint64_t *hash)
{
    for (int t = 0; t < store->table->n_tensor; ++t) {
        const struct mt_tensor *tensor = &store->table->tensor[t];
        hash[t] = 0;
        if (tensor->kind != MT_TENSOR_DENSE) {
            continue;
        }
        const int64_t n = tensor->dim[0] * mt_tensor_row_elements(tensor);
        MT_TRY(hash_range(store, mt_store_value(store, t), n, &hash[t]));
    }
    return MT_OK;
}
