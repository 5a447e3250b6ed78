/* Packs of a weight written directly, slab by slab, where the library's layout is the one of
 * mt_gemm_has_panels: 64 rows of W at a time, both packs at once, while the rows are in cache.
 * One Zen 4 core, 96 weights of 512 x 256 that no cache holds, 2026-11: the library's own reorder
 * writes both packs at 6 to 8 GB/s, for it walks the values in strides. */
#ifndef MT_KERNEL_CPU_PANELS_H
#define MT_KERNEL_CPU_PANELS_H

#include "kernel/cpu/parallel.h"
#include "kernel/kernel.h"

enum { MT_PANEL = 64 };

/* This weight's packs can be written here: type, layout, shape and instruction set. Prepared. */
bool mt_panels_fit(enum mt_dtype dtype, const struct mt_weight *weight);

int64_t mt_panels_n_slab(const struct mt_weight *weight);

struct mt_panels {
    const struct mt_weight *weight;
    const float *values; /* [n_out, n_in] */
    bool streams; /* past the caches: for packs that will not be in them when they are used */
};
/* Rows [64 slab, 64 slab + 64) of values into both packs. */
void mt_panels_pack(const struct mt_panels *panels, int64_t slab);
/* The same for mt_cpu_for_chunks over slabs, one a chunk; context: struct mt_panels. */
void mt_panels_pack_chunk(void *context, const struct mt_cpu_chunk *chunk);

#endif
