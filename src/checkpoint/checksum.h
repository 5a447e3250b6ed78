/* XXH3 with 64 bits over bytes that come in pieces: a state on the stack, nothing to allocate. */
#ifndef MT_CHECKPOINT_CHECKSUM_H
#define MT_CHECKPOINT_CHECKSUM_H

#define XXH_STATIC_LINKING_ONLY /* the size of a state */
#include <xxhash.h>

#include <stddef.h>
#include <stdint.h>

static inline void mt_checksum_begin(XXH3_state_t *sum)
{
    XXH3_INITSTATE(sum);
    (void)XXH3_64bits_reset(sum);
}

static inline void mt_checksum_add(XXH3_state_t *sum, const void *data, size_t n_byte)
{
    (void)XXH3_64bits_update(sum, data, n_byte);
}

static inline uint64_t mt_checksum_end(const XXH3_state_t *sum)
{
    return XXH3_64bits_digest(sum);
}

#endif
