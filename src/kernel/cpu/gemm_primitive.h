/* Products y [n, n_y] (=, or +=) x [n, n_x] P with a packed matrix P: over oneDNN, but on AVX2,
 * where it reads no packs, by loops of our own (gemm_panel.h).
 *
 * Rows come and go as float32. In bfloat16 the pack holds bfloat16 and the rows of a tile are
 * rounded into scratch of the thread; sums are float32. Processors without products of bfloat16
 * (mt_isa_has_bf16, or DNNL_MAX_CPU_ISA below AVX512_CORE_BF16) compute the same from rounded
 * numbers held in float32.
 *
 * oneDNN makes machine code for one exact number of rows. Rows are ragged here, so they are cut
 * into tiles of MT_GEMM_TILE rows, and what remains into pieces of 32, 16, 8 and 7..1 rows: a
 * bounded set of code, made before the first step. Measured on one Zen 4 core at 118 GFLOP/s peak
 * (oneDNN 2.6.3, P 256 x 512, 2026-11): 64 rows reach 0.98, 16 rows 0.96, 8 rows 0.94, 7 rows 0.93,
 * 4 rows 0.90, 2 rows 0.75, 1 row 0.35; larger tiles gain nothing. A shape with its two directions
 * takes 3 ms to make. Every piece is made for the one layout of P that whole tiles prefer.
 *
 * The cache is process-wide, made by the main thread in mt_linear_prepare, only read in steps. What
 * a call needs (memory handles, scratch) exists once per thread, so a product allocates nothing.
 */
#ifndef MT_KERNEL_CPU_GEMM_PRIMITIVE_H
#define MT_KERNEL_CPU_GEMM_PRIMITIVE_H

#include "base/status.h"
#include "config/config.h"

#include <stdbool.h>
#include <stdint.h>

enum { MT_GEMM_TILE = 64, MT_GEMM_MAX_THREAD = 512 };

/* W is [n_out, n_in]. */
enum mt_gemm_kind {
    MT_GEMM_FORWARD,        /* n_x = n_in, n_y = n_out, P = W^T */
    MT_GEMM_BACKWARD_INPUT, /* n_x = n_out, n_y = n_in, P = W */
    MT_N_GEMM_KIND
};

struct mt_gemm;
struct mt_gemm_pack;

/* Makes both kinds for this shape and so many threads; nothing when they exist. */
enum mt_status mt_gemm_prepare(enum mt_dtype dtype, int64_t n_out, int64_t n_in, int n_thread);

/* Prepared before (asserted). */
const struct mt_gemm *mt_gemm_find(enum mt_dtype dtype, enum mt_gemm_kind kind, int64_t n_out,
                                   int64_t n_in);

/* Bytes of the pack of P, also of a shape that is not prepared. A multiple of 64. */
int64_t mt_gemm_pack_bytes(enum mt_dtype dtype, enum mt_gemm_kind kind, int64_t n_out,
                           int64_t n_in);

/* How P is packed: slab by slab where that has_slabs. */
const struct mt_gemm_pack *mt_gemm_pack_of(const struct mt_gemm *gemm);

/* Whole, by the library: values [n_out, n_in] -> pack, by thread `thread` of those prepared; one at
 * a time per gemm. */
void mt_gemm_pack(const struct mt_gemm *gemm, int thread, void *pack, const float *values);

/* One tile: x [n, n_x], y [n, n_y], 1 <= n <= MT_GEMM_TILE, by thread `thread` of those prepared.
 * Only MT_GEMM_BACKWARD_INPUT can accumulate. */
void mt_gemm_tile(const struct mt_gemm *gemm, int thread, float *y, const float *x,
                  const void *pack, int64_t n, bool accumulate);

/* The same in two halves, for rows that several products read: they are rounded, and laid out as
 * products read them, once. What round returns is good for these n rows in every gemm of this dtype
 * and n_x, until the thread's next round or tile. */
const void *mt_gemm_round(const struct mt_gemm *gemm, int thread, const float *x, int64_t n);
void mt_gemm_tile_rounded(const struct mt_gemm *gemm, int thread, float *y, const void *rounded,
                          const void *pack, int64_t n, bool accumulate);

/* Row lengths n_x, n_y of this product. */
int64_t mt_gemm_n_x(const struct mt_gemm *gemm);
int64_t mt_gemm_n_y(const struct mt_gemm *gemm);

/* Frees all of it. */
void mt_gemm_clear(void);

#endif
