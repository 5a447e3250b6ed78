/* What generation keeps of the tokens so far. */
#include "base/size.h"
#include "device/memory.h"
#include "model/model.h"

#include <string.h>

enum mt_status mt_model_cache_bytes(const struct mt_config *config, int64_t *bytes)
{
    const int64_t width = config->model.num_key_value_heads * config->model.head_dim;
    int64_t token_floats = 0;
    int64_t n_float = 0;
    if (!mt_size_multiply(2 * config->model.num_layers, width, &token_floats) ||
        !mt_size_multiply(token_floats, config->model.max_seq_len, &n_float) ||
        !mt_size_multiply(n_float, (int64_t)sizeof(float), bytes)) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "keys and values of %lld tokens overflow 2^63 bytes; expected a model that "
                       "fits; lower model.max_seq_len",
                       (long long)config->model.max_seq_len);
    }
    return MT_OK;
}

enum mt_status mt_model_cache_init(struct mt_model_cache *cache, struct mt_device *device,
                                   const struct mt_config *config)
{
    int64_t bytes = 0;
    memset(cache, 0, sizeof(*cache));
    MT_TRY(mt_model_cache_bytes(config, &bytes));
    MT_TRY(
        mt_device_allocate(device, bytes, "keys and values of a sequence", (void **)&cache->keys));
    cache->device = device;
    cache->capacity = config->model.max_seq_len;
    cache->width = config->model.num_key_value_heads * config->model.head_dim;
    cache->values = cache->keys + config->model.num_layers * cache->capacity * cache->width;
    return MT_OK;
}

void mt_model_cache_clear(struct mt_model_cache *cache)
{
    mt_device_free(cache->device, cache->keys);
    memset(cache, 0, sizeof(*cache));
}
