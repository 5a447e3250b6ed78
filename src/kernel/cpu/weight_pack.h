/* Both packs of a weight, slab by slab of MT_PACK_SLAB rows where its layouts allow it: in an
 * optimizer's pass rows are packed while a core's cache has them.
 *
 * One Zen 4 core, 96 weights of 512 x 256 that no cache holds, 2026-11: the library's own reorder
 * writes both float32 packs at 6 to 8 GB/s, for it walks the values in strides. */
#ifndef MT_KERNEL_CPU_WEIGHT_PACK_H
#define MT_KERNEL_CPU_WEIGHT_PACK_H

#include "kernel/cpu/gemm_pack.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/kernel.h"

struct mt_weight_pack {
    const struct mt_gemm *forward, *backward;
    bool has_slabs; /* both, or those that the weight has */
};
/* Of a prepared shape. */
struct mt_weight_pack mt_weight_pack_find(enum mt_dtype dtype, const struct mt_weight *weight);
int64_t mt_weight_pack_n_slab(const struct mt_weight *weight);
/* One slab of values [n_out, n_in] into the packs that the weight has. */
void mt_weight_pack_slab(const struct mt_weight_pack *pack, const struct mt_weight *weight,
                         const float *values, int64_t slab);

#endif
