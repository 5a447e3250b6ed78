#include "kernel/cpu/gemm_panel.h"

#include "base/size.h"
#include "base/status.h"
#include "device/isa.h"
#include "kernel/cpu/bf16.h"

enum { WIDTH = MT_PANEL_WIDTH, LANES = 8, BAND = 6, DEPTH = 512 };

bool mt_gemm_panel_fits(void)
{
    return mt_isa_detect() == MT_ISA_AVX2;
}

int64_t mt_gemm_panel_pack_floats(int64_t n_x, int64_t n_y)
{
    return mt_round_up(n_x, WIDTH) * mt_round_up(n_y, WIDTH);
}

int64_t mt_gemm_panel_sheet_floats(int64_t n, int64_t n_x)
{
    return n * mt_round_up(n_x, WIDTH);
}

#if defined(__x86_64__)
#include "kernel/cpu/avx2.h"

#define AVX2    __attribute__((target("avx2,fma")))
#define UNROLLS static inline __attribute__((always_inline))

/* ---- laying out ---- */

/* How rows are dealt to bands: the first ones have one more. */
struct deal {
    int64_t n_band, least, n_larger;
};

static struct deal deal_rows(int64_t n)
{
    const int64_t n_band = mt_ceil_div(n, BAND);
    return (struct deal){n_band, n / n_band, n % n_band};
}

static int64_t rows_of(const struct deal *deal, int64_t band)
{
    return deal->least + (band < deal->n_larger ? 1 : 0);
}

/* The runs of 8 of a row, as far apart as the band has rows. One row after the other, the next but
 * one fetched: from the last cache that takes .6 of the time of rows side by side. */
AVX2 UNROLLS void lay_row(float *sheet, const float *x, int64_t n_x, int64_t rows)
{
    enum { ROWS_AHEAD = 2 };
    for (int64_t column = 0; column < mt_round_up(n_x, WIDTH); column += WIDTH) {
        __builtin_prefetch(x + ROWS_AHEAD * n_x + column);
        float *run = sheet + column * rows;
        _mm256_store_ps(run, mt_load_avx2(x + column, n_x - column));
        _mm256_store_ps(run + rows * LANES, mt_load_avx2(x + column + LANES, n_x - column - LANES));
    }
}

AVX2 void mt_gemm_panel_lay(float *sheet, const float *x, int64_t n, int64_t n_x)
{
    const struct deal deal = deal_rows(n);
    for (int64_t band = 0; band < deal.n_band; band++) {
        const int64_t rows = rows_of(&deal, band);
        for (int64_t i = 0; i < rows; i++) {
            lay_row(sheet + i * LANES, x, n_x, rows);
            x += n_x;
        }
        sheet += rows * mt_round_up(n_x, WIDTH);
    }
}

/* A line, past the caches as on AVX-512 (gemm_pack.c). Always whole: written by halves, of several
 * lines in turn, packs reach 18 GB/s on a core of its own and 4 beside a busy sibling thread; by
 * whole lines 20 and 16. */
AVX2 UNROLLS void store_line(float *to, __m256 first, __m256 second)
{
    _mm256_stream_ps(to, first);
    _mm256_stream_ps(to + LANES, second);
}

/* to [8, 8], rows WIDTH apart, = the transpose of values [row, row + 8) x [column, column + 8), 0
 * where there are none. */
AVX2 UNROLLS void transpose(float *to, const struct mt_panel_values *from, int64_t row,
                            int64_t column)
{
    const float *values = from->values + row * from->n_in + column;
    if (row + LANES <= from->n_out && column + LANES <= from->n_in) {
        mt_transpose_avx2(to, WIDTH, values, from->n_in);
        return;
    }
    float square[LANES * LANES];
    for (int64_t i = 0; i < LANES; i++) {
        const int64_t n = row + i < from->n_out ? from->n_in - column : 0;
        _mm256_storeu_ps(square + i * LANES, mt_load_avx2(values + i * from->n_in, n));
    }
    mt_transpose_avx2(to, WIDTH, square, LANES);
}

/* Rows of values become columns of P: 16 rows make a panel. */
AVX2 static void pack_transposed(float *pack, const struct mt_panel_values *from, int64_t row)
{
    const int64_t depth = mt_round_up(from->n_in, WIDTH);
    float *panel = pack + row * depth;
    for (int64_t column = 0; column < depth; column += LANES) {
        _Alignas(64) float lines[LANES * WIDTH];
        transpose(lines, from, row, column);
        transpose(lines + LANES, from, row + LANES, column);
        for (int64_t i = 0; i < LANES; i++) {
            const float *line = lines + i * WIDTH;
            store_line(panel + (column + i) * WIDTH, _mm256_load_ps(line),
                       _mm256_load_ps(line + LANES));
        }
    }
}

/* Rows of values are rows of P: [row, end) into every panel. */
AVX2 static void pack_straight(float *pack, const struct mt_panel_values *from, int64_t row,
                               int64_t end)
{
    const int64_t depth = mt_round_up(from->n_out, WIDTH);
    for (int64_t column = 0; column < from->n_in; column += WIDTH) {
        float *to = pack + column * depth + row * WIDTH;
        for (int64_t i = row; i < end; i++) {
            const float *values = from->values + i * from->n_in + column;
            const int64_t n = i < from->n_out ? from->n_in - column : 0;
            store_line(to, mt_load_avx2(values, n), mt_load_avx2(values + LANES, n - LANES));
            to += WIDTH;
        }
    }
}

/* What a slab wrote, rounded where it lies. */
static void round_slab(float *pack, const struct mt_panel_values *from, int64_t row, int64_t end)
{
    if (from->is_transposed) {
        const int64_t depth = mt_round_up(from->n_in, WIDTH);
        mt_bf16_round_values(pack + row * depth, pack + row * depth, (end - row) * depth);
        return;
    }
    const int64_t depth = mt_round_up(from->n_out, WIDTH);
    for (int64_t column = 0; column < from->n_in; column += WIDTH) {
        float *to = pack + column * depth + row * WIDTH;
        mt_bf16_round_values(to, to, (end - row) * WIDTH);
    }
}

AVX2 void mt_gemm_panel_pack(float *pack, const struct mt_panel_values *from, int64_t row,
                             int64_t end)
{
    MT_ASSERT(row % WIDTH == 0 && end % WIDTH == 0);
    if (from->is_transposed) {
        for (int64_t panel = row; panel < end; panel += WIDTH) {
            pack_transposed(pack, from, panel);
        }
    } else {
        pack_straight(pack, from, row, end);
    }
    _mm_sfence();
    if (from->rounds) {
        round_slab(pack, from, row, end);
    }
}

/* ---- multiplying ---- */

/* A band of x, from one of its columns on, and a panel of P, from that row on. */
struct band {
    float *y;
    int64_t y_stride;
    const float *x, *panel;
    int64_t depth; /* a multiple of 16 */
    bool accumulate;
    const float *fetch; /* NULL, or lines of P, one for every four of its rows here */
};

/* Sums += a column of a run of x times the row of P that meets it. rows is a constant at every
 * call, here and below: sums stay in registers. */
AVX2 UNROLLS void multiply_row(__m256 sum[BAND][2], const float *x, const float *panel,
                               int64_t rows)
{
    const __m256 p_0 = _mm256_load_ps(panel);
    const __m256 p_1 = _mm256_load_ps(panel + LANES);
#pragma GCC unroll 6
    for (int64_t i = 0; i < rows; i++) {
        const __m256 value = _mm256_broadcast_ss(x + i * LANES);
        sum[i][0] = mt_multiply_add_avx2(value, p_0, sum[i][0]);
        sum[i][1] = mt_multiply_add_avx2(value, p_1, sum[i][1]);
    }
}

AVX2 UNROLLS void multiply_band(const struct band *b, int64_t rows, bool fetches)
{
    __m256 sum[BAND][2];
    const float *x = b->x;
    const float *panel = b->panel;
    const float *fetch = b->fetch;
#pragma GCC unroll 6
    for (int64_t i = 0; i < rows; i++) {
        const float *y = b->y + i * b->y_stride;
        sum[i][0] = b->accumulate ? _mm256_loadu_ps(y) : _mm256_setzero_ps();
        sum[i][1] = b->accumulate ? _mm256_loadu_ps(y + LANES) : _mm256_setzero_ps();
    }
    for (int64_t depth = b->depth; depth > 0; depth -= LANES) {
#pragma GCC unroll 8
        for (int64_t k = 0; k < LANES; k++) {
            if (fetches && k % 4 == 0) {
                __builtin_prefetch(fetch);
                fetch += WIDTH;
            }
            multiply_row(sum, x + k, panel + k * WIDTH, rows);
        }
        x += rows * LANES;
        panel += (int64_t)LANES * WIDTH;
    }
#pragma GCC unroll 6
    for (int64_t i = 0; i < rows; i++) {
        float *y = b->y + i * b->y_stride;
        _mm256_storeu_ps(y, sum[i][0]);
        _mm256_storeu_ps(y + LANES, sum[i][1]);
    }
}

#define BAND_OF(rows)                                              \
    AVX2 static void multiply_##rows(const struct band *b)         \
    {                                                              \
        multiply_band(b, rows, false);                             \
    }                                                              \
    AVX2 static void multiply_##rows##_fetch(const struct band *b) \
    {                                                              \
        multiply_band(b, rows, true);                              \
    }
BAND_OF(1)
BAND_OF(2)
BAND_OF(3)
BAND_OF(4)
BAND_OF(5)
BAND_OF(6)

/* By whether the band fetches, and its rows. */
static void (*const multiply_rows[2][BAND + 1])(const struct band *) = {
    {NULL, multiply_1, multiply_2, multiply_3, multiply_4, multiply_5, multiply_6},
    {NULL, multiply_1_fetch, multiply_2_fetch, multiply_3_fetch, multiply_4_fetch, multiply_5_fetch,
     multiply_6_fetch},
};

static void multiply(const struct band *b, int64_t rows)
{
    multiply_rows[b->fetch != NULL][rows](b);
}

/* The same where fewer than 16 columns of y are left. */
static void multiply_edge(const struct band *b, int64_t rows, int64_t n_column)
{
    _Alignas(64) float y[BAND * WIDTH] = {0};
    struct band inner = *b;
    inner.y = y;
    inner.y_stride = WIDTH;
    for (int64_t i = 0; b->accumulate && i < rows; i++) {
        for (int64_t j = 0; j < n_column; j++) {
            y[i * WIDTH + j] = b->y[i * b->y_stride + j];
        }
    }
    multiply(&inner, rows);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < n_column; j++) {
            b->y[i * b->y_stride + j] = y[i * WIDTH + j];
        }
    }
}

/* The quarter of the next block that band number `band` fetches: the first four share it. */
static const float *fetch_of(const float *next, int64_t depth, int64_t band)
{
    enum { SHARE = 4 };
    return band < SHARE ? next + band * (depth / SHARE) * WIDTH : NULL;
}

/* All bands with rows first .. first + depth - 1 of P, in the panel of column `column`; `next`: the
 * block of P that comes then. */
static void multiply_block(const struct mt_panel_product *p, int64_t first, int64_t depth,
                           int64_t column, const float *next)
{
    const int64_t rows_of_p = mt_round_up(p->n_x, WIDTH);
    const int64_t n_column = p->n_y - column;
    const struct deal deal = deal_rows(p->n);
    const float *sheet = p->sheet;
    struct band b = {
        .y = p->y + column,
        .y_stride = p->n_y,
        .panel = p->pack + column * rows_of_p + first * WIDTH,
        .depth = depth,
        .accumulate = p->accumulate || first > 0,
    };
    for (int64_t band = 0; band < deal.n_band; band++) {
        const int64_t rows = rows_of(&deal, band);
        b.x = sheet + first * rows;
        b.fetch = fetch_of(next, depth, band);
        if (n_column >= WIDTH) {
            multiply(&b, rows);
        } else {
            multiply_edge(&b, rows, n_column);
        }
        b.y += rows * p->n_y;
        sheet += rows * rows_of_p;
    }
}

void mt_gemm_panel_multiply(const struct mt_panel_product *product)
{
    const int64_t rows_of_p = mt_round_up(product->n_x, WIDTH);
    for (int64_t first = 0; first < rows_of_p; first += DEPTH) {
        const int64_t depth = mt_min_i64(DEPTH, rows_of_p - first);
        for (int64_t column = 0; column < product->n_y; column += WIDTH) {
            const bool is_last = column + WIDTH >= product->n_y;
            const float *next = is_last
                                    ? product->pack + (first + depth) % rows_of_p * WIDTH
                                    : product->pack + (column + WIDTH) * rows_of_p + first * WIDTH;
            multiply_block(product, first, depth, column, next);
        }
    }
}

#else

void mt_gemm_panel_pack(float *pack, const struct mt_panel_values *from, int64_t row, int64_t end)
{
    (void)pack, (void)from, (void)row, (void)end;
    MT_ASSERT(mt_gemm_panel_fits());
}

void mt_gemm_panel_lay(float *sheet, const float *x, int64_t n, int64_t n_x)
{
    (void)sheet, (void)x, (void)n, (void)n_x;
    MT_ASSERT(mt_gemm_panel_fits());
}

void mt_gemm_panel_multiply(const struct mt_panel_product *product)
{
    (void)product;
    MT_ASSERT(mt_gemm_panel_fits());
}

#endif
