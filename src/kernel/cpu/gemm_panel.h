/* Products y [n, n_y] (=, or +=) x [n, n_x] P in AVX2, with P packed in a layout of our own.
 *
 * oneDNN 2.6 reads packed matrices on AVX-512 only; on AVX2 it lays P out anew in every call, which
 * costs as much as the product of few rows. Here
 *   P is packed in panels of 16 columns: [n_y / 16, n_x, 16], 0 beyond the edges;
 *   x is laid into a sheet: bands of at most 6 rows, as equal as may be, each [n_x / 8, rows, 8],
 *   so that the inner loop reads both in the order in which they lie, and nothing else.
 * A block of 6 x 16 of y stays in 12 registers over 512 rows of P, which all bands read from the
 * first two caches while those of the next panel are fetched (256 rows, which leave half of the
 * first cache to x, and 128 are as fast in a step).
 *
 * An element of y is one sum in ascending order of n_x, a fused multiply-add each, so its bits
 * depend on its row and column alone.
 *
 * One Zen 3 core, 102 GFLOP/s, share of peak, best of 15, with laying x, while sums were still
 * moved between registers (mt_multiply_add_avx2 gains 3 % on a quiet core). oneDNN 2.6.3 in bench
 * kernels: .54 to .77 at 64 rows, .39 at 1024 x 1024, .10 to .41 at 1 to 4 rows. 2026-11:
 *
 *   rows, n_x to n_y       1     4     8     16    64        64, 1024 to 1024
 *   256 to 512            .28   .72   .88   .94   .94       .90
 *
 * One row reads all of P for 2 FLOPs a float: 56 GB/s. */
#ifndef MT_KERNEL_CPU_GEMM_PANEL_H
#define MT_KERNEL_CPU_GEMM_PANEL_H

#include <stdbool.h>
#include <stdint.h>

enum { MT_PANEL_WIDTH = 16 };

/* This processor has AVX2 and not what oneDNN does better. The rest is for such. */
bool mt_gemm_panel_fits(void);

/* Floats of the pack of P [n_x, n_y], 64-byte aligned, and of a sheet of n rows, likewise. */
int64_t mt_gemm_panel_pack_floats(int64_t n_x, int64_t n_y);
int64_t mt_gemm_panel_sheet_floats(int64_t n, int64_t n_x);

/* Rows [row, end) of values [n_out, n_in] into the pack of P = values, or of P = values^T. Both are
 * multiples of 16; end may lie beyond the last row, by less than that. */
struct mt_panel_values {
    const float *values;
    int64_t n_out, n_in;
    bool is_transposed;
    bool rounds; /* to bfloat16, held in float32 */
};
void mt_gemm_panel_pack(float *pack, const struct mt_panel_values *from, int64_t row, int64_t end);

/* sheet = x [n, n_x] */
void mt_gemm_panel_lay(float *sheet, const float *x, int64_t n, int64_t n_x);

struct mt_panel_product {
    float *y;           /* [n, n_y] */
    const float *sheet; /* of n rows */
    const float *pack;
    int64_t n, n_x, n_y;
    bool accumulate;
};
void mt_gemm_panel_multiply(const struct mt_panel_product *product);

#endif
