#include "kernel/cpu/gemm_pack.h"

#include "base/size.h"
#include "device/isa.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/dnnl_try.h"
#include "kernel/cpu/gemm_panel.h"

enum { N_LANE = 16, PANEL = 64, PACK_ALIGNMENT = 64 };

/* ---- the library's way ---- */

/* values [n_out, n_in] seen as P. */
static dnnl_status_t describe_values(dnnl_memory_desc_t *out, const struct mt_gemm_pack *pack)
{
    const bool turned = pack->is_transposed;
    const dnnl_dims_t dims = {turned ? pack->n_in : pack->n_out, turned ? pack->n_out : pack->n_in};
    const dnnl_dims_t strides = {turned ? 1 : pack->n_in, turned ? pack->n_in : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, dnnl_f32, strides);
}

static enum mt_status make_reorder(struct mt_gemm_pack *pack, const dnnl_memory_desc_t *values,
                                   dnnl_engine_t engine)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    MT_TRY_DNNL(dnnl_primitive_attr_create(&attributes));
    MT_TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    const dnnl_status_t created = dnnl_reorder_primitive_desc_create(
        &description, values, engine, &pack->layout, engine, attributes);
    MT_TRY_DNNL(dnnl_primitive_attr_destroy(attributes));
    MT_TRY_DNNL(created);
    MT_TRY_DNNL(dnnl_primitive_create(&pack->reorder, description));
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    const dnnl_status_t made =
        dnnl_memory_create(&pack->scratch, scratch, engine, DNNL_MEMORY_ALLOCATE);
    MT_TRY_DNNL(dnnl_primitive_desc_destroy(description));
    MT_TRY_DNNL(made);
    return MT_OK;
}

/* Blocks of 16 rows x 64 columns, or of 16 pairs of rows, all those of a panel after each other. */
static bool is_in_panels(const dnnl_memory_desc_t *layout)
{
    const dnnl_blocking_desc_t *at = &layout->format_desc.blocking;
    const bool has_pairs = layout->data_type == dnnl_bf16;
    const int64_t rows = has_pairs ? 32 : 16;
    return layout->format_kind == dnnl_blocked && layout->extra.flags == 0 &&
           layout->offset0 == 0 && at->inner_nblks == (has_pairs ? 3 : 2) &&
           at->inner_idxs[0] == 0 && at->inner_blks[0] == 16 && at->inner_idxs[1] == 1 &&
           at->inner_blks[1] == PANEL &&
           (!has_pairs || (at->inner_idxs[2] == 0 && at->inner_blks[2] == 2)) &&
           layout->padded_dims[0] % rows == 0 && layout->padded_dims[1] % PANEL == 0 &&
           at->strides[0] == rows * PANEL && at->strides[1] == layout->padded_dims[0] * PANEL;
}

static bool processor_packs(const struct mt_gemm_pack *pack)
{
#if defined(__x86_64__)
    return mt_isa_detect() >= MT_ISA_AVX512 && !pack->rounds &&
           (pack->layout.data_type == dnnl_f32 || mt_isa_has_bf16());
#else
    (void)pack;
    return false;
#endif
}

enum mt_status mt_gemm_pack_init(struct mt_gemm_pack *pack, dnnl_engine_t engine)
{
    if (pack->in_panels) {
        pack->has_slabs = true;
        return MT_OK;
    }
    dnnl_memory_desc_t values;
    MT_TRY_DNNL(describe_values(&values, pack));
    MT_TRY(make_reorder(pack, &values, engine));
    MT_TRY_DNNL(dnnl_memory_create(&pack->from, &values, engine, DNNL_MEMORY_NONE));
    MT_TRY_DNNL(dnnl_memory_create(&pack->to, &pack->layout, engine, DNNL_MEMORY_NONE));
    pack->has_slabs = processor_packs(pack) && is_in_panels(&pack->layout);
    return MT_OK;
}

void mt_gemm_pack_clear(struct mt_gemm_pack *pack)
{
    (void)dnnl_primitive_destroy(pack->reorder);
    (void)dnnl_memory_destroy(pack->from);
    (void)dnnl_memory_destroy(pack->to);
    (void)dnnl_memory_destroy(pack->scratch);
}

int64_t mt_gemm_pack_size(const struct mt_gemm_pack *pack)
{
    /* n_x and n_y of P change places with its transposition, which changes nothing. */
    const int64_t n_bytes = pack->in_panels ? mt_gemm_panel_pack_floats(pack->n_in, pack->n_out) *
                                                  (int64_t)sizeof(float)
                                            : (int64_t)dnnl_memory_desc_get_size(&pack->layout);
    return mt_round_up(n_bytes, PACK_ALIGNMENT);
}

static void pack_panels(const struct mt_gemm_pack *pack, float *out, const float *values,
                        int64_t row, int64_t end)
{
    const struct mt_panel_values from = {.values = values,
                                         .n_out = pack->n_out,
                                         .n_in = pack->n_in,
                                         .is_transposed = pack->is_transposed,
                                         .rounds = pack->rounds};
    mt_gemm_panel_pack(out, &from, row, mt_min_i64(end, mt_round_up(pack->n_out, MT_PANEL_WIDTH)));
}

void mt_gemm_pack_whole(const struct mt_gemm_pack *pack, dnnl_stream_t stream, void *out,
                        const float *values)
{
    if (pack->in_panels) {
        pack_panels(pack, out, values, 0, INT64_MAX);
        return;
    }
    /* The library has one handle type for what it reads and what it writes. */
    union {
        const float *in;
        void *out;
    } from = {.in = values};
    MT_ASSERT(dnnl_memory_set_data_handle(pack->from, from.out) == dnnl_success);
    MT_ASSERT(dnnl_memory_set_data_handle(pack->to, out) == dnnl_success);
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_FROM, pack->from}, {DNNL_ARG_TO, pack->to}, {DNNL_ARG_SCRATCHPAD, pack->scratch}};
    const int n_arg = (int)(sizeof(args) / sizeof(args[0]));
    MT_ASSERT(dnnl_primitive_execute(pack->reorder, stream, n_arg, args) == dnnl_success);
    if (pack->rounds) {
        const int64_t n = (int64_t)(dnnl_memory_desc_get_size(&pack->layout) / sizeof(float));
        mt_bf16_round_values(out, out, n);
    }
}

/* ---- slab by slab ---- */

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define BF16_TARGET   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define UNROLLS       static inline __attribute__((always_inline))

/* 64 rows of values, and where they go. A unit of the pack is a float, or a pair; rows of units are
 * rows of P, or pairs of them. */
struct slab {
    uint32_t *out;       /* transposed: its panel; else its first row in the first panel */
    int64_t panel_units; /* from panel to panel */
    const float *values;
    int64_t n_row, n_column;     /* of values; the slab's */
    int64_t end_row, end_column; /* with padding */
};

/* How a slab is read, known when each way is compiled: with edges, without. */
enum way { EDGES, INSIDE };

/* Past the caches, which spares reading what is overwritten: packing 1024 x 1024 floats takes two
 * thirds of the time on Zen 4, and steps are shorter with packs of 16 MB as with 110
 * (docs/performance.md). */
AVX512_TARGET UNROLLS void store(uint32_t *to, __m512i x)
{
    _mm512_stream_si512((__m512i *)to, x);
}

/* Numbers column .. column + 15 of a row, 0 beyond the edges. */
AVX512_TARGET UNROLLS __m512 load(const struct slab *s, int64_t row, int64_t column, enum way way)
{
    const int64_t n = s->n_column - column;
    const float *from = s->values + row * s->n_column + column;
    if (way != EDGES) {
        return _mm512_loadu_ps(from);
    }
    if (row >= s->n_row || n <= 0) {
        return _mm512_setzero_ps();
    }
    return _mm512_maskz_loadu_ps((__mmask16)(n >= N_LANE ? 0xffffU : (1U << n) - 1U), from);
}

/* row [16] of 16 numbers of 32 bits becomes its transpose: pairs of rows are mixed within quarters
 * of a vector, then quarters are exchanged. */
AVX512_TARGET UNROLLS void transpose(__m512i row[N_LANE])
{
    __m512i a[N_LANE];
    __m512i b[N_LANE];
#pragma GCC unroll 8
    for (int i = 0; i < N_LANE; i += 2) {
        a[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < N_LANE; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    enum { EVEN = 0x88, ODD = 0xdd }; /* quarters 0, 2 or 1, 3 of both operands */
    /* b[4 g + c]: its quarter q has column 4 q + c of rows 4 g .. 4 g + 3 */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i even_low = _mm512_shuffle_i32x4(b[c], b[4 + c], EVEN);
        const __m512i odd_low = _mm512_shuffle_i32x4(b[c], b[4 + c], ODD);
        const __m512i even_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], EVEN);
        const __m512i odd_high = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], ODD);
        row[c] = _mm512_shuffle_i32x4(even_low, even_high, EVEN);
        row[4 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, EVEN);
        row[8 + c] = _mm512_shuffle_i32x4(even_low, even_high, ODD);
        row[12 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, ODD);
    }
}

/* Rows of the slab become columns of its panel. */
AVX512_TARGET UNROLLS void pack_floats_transposed(const struct slab *s, enum way way)
{
    for (int64_t column = 0; column < s->end_column; column += N_LANE) {
        for (int64_t first = 0; first < PANEL; first += N_LANE) {
            __m512i tile[N_LANE];
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                tile[i] = _mm512_castps_si512(load(s, first + i, column, way));
            }
            transpose(tile);
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                store(s->out + (column + i) * PANEL + first, tile[i]);
            }
        }
    }
}

AVX512_TARGET UNROLLS void pack_floats(const struct slab *s, enum way way)
{
    for (int64_t panel = 0; panel < s->end_column; panel += PANEL) {
        uint32_t *to = s->out + panel / PANEL * s->panel_units;
        for (int64_t row = 0; row < s->end_row; row++) {
#pragma GCC unroll 4
            for (int64_t column = 0; column < PANEL; column += N_LANE) {
                store(to + row * PANEL + column,
                      _mm512_castps_si512(load(s, row, panel + column, way)));
            }
        }
    }
}

/* The pairs of P are neighbours in a row of values. */
BF16_TARGET UNROLLS void pack_pairs_transposed(const struct slab *s, enum way way)
{
    for (int64_t pair = 0; pair < s->end_column / 2; pair += N_LANE) {
        for (int64_t first = 0; first < PANEL; first += N_LANE) {
            __m512i tile[N_LANE];
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                tile[i] = (__m512i)_mm512_cvtne2ps_pbh(load(s, first + i, 2 * pair + N_LANE, way),
                                                       load(s, first + i, 2 * pair, way));
            }
            transpose(tile);
#pragma GCC unroll 16
            for (int i = 0; i < N_LANE; i++) {
                store(s->out + (pair + i) * PANEL + first, tile[i]);
            }
        }
    }
}

/* Two rows of values as pairs: one column of the first, the same of the second. */
BF16_TARGET UNROLLS void pack_pairs(const struct slab *s, enum way way)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t panel = 0; panel < s->end_column; panel += PANEL) {
        uint32_t *to = s->out + panel / PANEL * s->panel_units;
        for (int64_t row = 0; row < s->end_row; row += 2) {
#pragma GCC unroll 4
            for (int64_t column = 0; column < PANEL; column += N_LANE) {
                const __m512bh both = _mm512_cvtne2ps_pbh(load(s, row + 1, panel + column, way),
                                                          load(s, row, panel + column, way));
                store(to + row / 2 * PANEL + column,
                      _mm512_permutexvar_epi16(order, (__m512i)both));
            }
        }
    }
}

/* A function for each way; `turned`: transposed. */
#define PACK_IN_WAYS(name, TARGET, turned_name, plain_name)                  \
    TARGET static void name(const struct slab *s, bool turned, enum way way) \
    {                                                                        \
        if (way == INSIDE) {                                                 \
            turned ? turned_name(s, INSIDE) : plain_name(s, INSIDE);         \
        } else {                                                             \
            turned ? turned_name(s, EDGES) : plain_name(s, EDGES);           \
        }                                                                    \
    }
PACK_IN_WAYS(pack_as_floats, AVX512_TARGET, pack_floats_transposed, pack_floats)
PACK_IN_WAYS(pack_as_pairs, BF16_TARGET, pack_pairs_transposed, pack_pairs)

static void pack_slab(const struct mt_gemm_pack *pack, void *out, const float *values, int64_t slab)
{
    const bool turned = pack->is_transposed;
    const bool has_pairs = pack->layout.data_type == dnnl_bf16;
    const int64_t row = slab * MT_PACK_SLAB;
    const int64_t rows_a_unit = has_pairs ? 2 : 1;
    const int64_t panel_units = pack->layout.padded_dims[0] / rows_a_unit * PANEL;
    const struct slab s = {
        .out = (uint32_t *)out + (turned ? slab * panel_units : row / rows_a_unit * PANEL),
        .panel_units = panel_units,
        .values = values + row * pack->n_in,
        .n_row = mt_min_i64(pack->n_out - row, MT_PACK_SLAB),
        .n_column = pack->n_in,
        .end_row = mt_min_i64(pack->layout.padded_dims[turned ? 1 : 0] - row, MT_PACK_SLAB),
        .end_column = pack->layout.padded_dims[turned ? 0 : 1],
    };
    const bool is_inside = s.n_row == MT_PACK_SLAB && s.n_column % PANEL == 0;
    const enum way way = is_inside ? INSIDE : EDGES;
    if (has_pairs) {
        pack_as_pairs(&s, turned, way);
    } else {
        pack_as_floats(&s, turned, way);
    }
    _mm_sfence();
}

#else

static void pack_slab(const struct mt_gemm_pack *pack, void *out, const float *values, int64_t slab)
{
    (void)pack, (void)out, (void)values, (void)slab;
    MT_ASSERT(!"only AVX-512 has slabs of the library's layout");
}

#endif

void mt_gemm_pack_slab(const struct mt_gemm_pack *pack, void *out, const float *values,
                       int64_t slab)
{
    MT_ASSERT(pack->has_slabs);
    if (pack->in_panels) {
        pack_panels(pack, out, values, slab * MT_PACK_SLAB, (slab + 1) * MT_PACK_SLAB);
    } else {
        pack_slab(pack, out, values, slab);
    }
}
