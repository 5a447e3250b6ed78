/* One pack of a weight: values [n_out, n_in] in the layout that a packed product wants of P.
 *
 * The layout that oneDNN prefers on AVX-512 we write ourselves, a slab of MT_PACK_SLAB rows of
 * values at a time, so that any threads may share the work and rows may be packed while they are in
 * a cache: panels of 64 columns of P, in a panel row after row (float32), or two rows as pairs
 * (bfloat16); 0 beyond the edges. A slab goes
 *   to P = values^T: as its transpose, into one panel
 *   to P = values:   as it is, in runs of 64, into every panel
 * On AVX2 products are ours, and so is the layout (gemm_panel.h). Other layouts and processors are
 * left to oneDNN, which makes the bytes in one piece.
 *
 * Both packs of a weight on one Zen 4 core, oneDNN 2.6.3 and here, best of 300, 2026-11, in us:
 *   bfloat16  512 x 256: 80, 24    256 x 512: 117, 24    1024 x 1024: 1628, 276
 *   float32   512 x 256: 37, 34    256 x 512:  41, 39    1024 x 1024: 1186, 714 */
#ifndef MT_KERNEL_CPU_GEMM_PACK_H
#define MT_KERNEL_CPU_GEMM_PACK_H

#include "base/status.h"

#include <dnnl.h>
#include <stdbool.h>
#include <stdint.h>

enum { MT_PACK_SLAB = 64 };

struct mt_gemm_pack {
    int64_t n_out, n_in;
    bool is_transposed;        /* P = values^T [n_in, n_out], else P = values */
    bool rounds;               /* bfloat16 numbers held in float32 */
    bool in_panels;            /* of gemm_panel.h: what follows but has_slabs is not used */
    bool has_slabs;            /* mt_gemm_pack_slab can be used */
    dnnl_memory_desc_t layout; /* of P: dnnl_f32, or dnnl_bf16, which rounds */
    dnnl_primitive_t reorder;  /* the library's way, and what it is handed */
    dnnl_memory_t from, to, scratch;
};

/* Makes the rest once n_out to layout are set. */
enum mt_status mt_gemm_pack_init(struct mt_gemm_pack *pack, dnnl_engine_t engine);
void mt_gemm_pack_clear(struct mt_gemm_pack *pack);

/* Bytes of the pack, a multiple of 64. */
int64_t mt_gemm_pack_size(const struct mt_gemm_pack *pack);

/* By the library where it is not in panels; one at a time per pack. */
void mt_gemm_pack_whole(const struct mt_gemm_pack *pack, dnnl_stream_t stream, void *out,
                        const float *values);
/* has_slabs (asserted): rows [64 slab, 64 slab + 64) of values, as far as there are; out 64-byte
 * aligned. */
void mt_gemm_pack_slab(const struct mt_gemm_pack *pack, void *out, const float *values,
                       int64_t slab);

#endif
