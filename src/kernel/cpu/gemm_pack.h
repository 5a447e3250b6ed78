/* Lays a weight into the layout that oneDNN prefers for it on AVX-512: panels of 64 columns of P,
 * in a panel row after row (float32), or two rows as pairs (bfloat16); 0 beyond the edges.
 *
 * oneDNN's own reorders make the same bytes; they transpose slowly. Both packs of a weight on one
 * Zen 4 core, oneDNN 2.6.3 and here, best of 300, 2026-11, in us:
 *   bfloat16  512 x 256: 80, 24    256 x 512: 117, 24    1024 x 1024: 1628, 276
 *   float32   512 x 256: 37, 34    256 x 512:  41, 39    1024 x 1024: 1186, 714
 * Other layouts, and processors without AVX-512, are left to oneDNN. */
#ifndef MT_KERNEL_CPU_GEMM_PACK_H
#define MT_KERNEL_CPU_GEMM_PACK_H

#include <dnnl.h>
#include <stdbool.h>
#include <stdint.h>

struct mt_gemm_pack {
    void *pack;
    const float *values; /* [n_out, n_in] */
    int64_t n_out, n_in;
    bool is_transposed;               /* P = values^T [n_in, n_out], else P = values */
    const dnnl_memory_desc_t *layout; /* of P: dnnl_f32 or dnnl_bf16, which rounds */
};

/* False, and nothing done: another layout, or this processor cannot. */
bool mt_gemm_pack_panels(const struct mt_gemm_pack *args);

#endif
