#include "kernel/cpu/gemm_primitive.h"

#include "base/size.h"
#include "device/isa.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/dnnl_try.h"
#include "kernel/cpu/gemm_pack.h"
#include "kernel/cpu/gemm_panel.h"

#include <string.h>

enum { MAX_SHAPE = 128, N_PIECE = 11 };

static const int64_t piece_rows[N_PIECE] = {MT_GEMM_TILE, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1};

/* What one thread hands to the library: handles whose data pointers it sets before a call. */
struct thread_memory {
    dnnl_memory_t x[N_PIECE], y[N_PIECE];
    dnnl_memory_t pack, scratch;
};

struct mt_gemm {
    enum mt_dtype dtype;
    enum mt_gemm_kind kind;
    dnnl_data_type_t x_type; /* of rounded rows and of P */
    int64_t n_out, n_in;
    struct mt_gemm_pack pack;             /* of P: its layout is what all pieces read */
    dnnl_primitive_t product[2][N_PIECE]; /* [accumulate] */
    int64_t scratch_bytes;                /* largest of the pieces */
    int n_thread;
    struct thread_memory thread[MT_GEMM_MAX_THREAD];
};

/* Static, not from base/memory.h: handles belong to the library, and a shape lives as long as the
 * process. Untouched entries cost no memory. */
static struct {
    dnnl_engine_t engine;
    dnnl_stream_t stream[MT_GEMM_MAX_THREAD];
    int n_stream;
    dnnl_memory_t rounded[MT_GEMM_MAX_THREAD]; /* a tile's rows */
    int64_t rounded_bytes[MT_GEMM_MAX_THREAD];
    int n_shape;
    struct mt_gemm gemm[MAX_SHAPE][MT_N_GEMM_KIND];
} cache;

static enum mt_status open_engine(void)
{
    if (cache.engine == NULL) {
        MT_TRY_DNNL(dnnl_engine_create(&cache.engine, dnnl_cpu, 0));
    }
    return MT_OK;
}

static dnnl_data_type_t type_of(enum mt_dtype dtype)
{
    const int wanted = dnnl_cpu_isa_avx512_core_bf16; /* each value's bits include the lower ones */
    const bool has_bf16 =
        mt_isa_has_bf16() && ((int)dnnl_get_effective_cpu_isa() & wanted) == wanted;
    return dtype == MT_BFLOAT16 && has_bf16 ? dnnl_bf16 : dnnl_f32;
}

/* Row-major [rows, columns]. */
static dnnl_status_t describe_rows(dnnl_memory_desc_t *out, int64_t rows, int64_t columns,
                                   dnnl_data_type_t type)
{
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, dnnl_ab);
}

static enum mt_status make_attributes(bool accumulate, dnnl_primitive_attr_t *out)
{
    MT_TRY_DNNL(dnnl_primitive_attr_create(out));
    MT_TRY_DNNL(dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user));
    if (accumulate) {
        dnnl_post_ops_t add = NULL;
        MT_TRY_DNNL(dnnl_post_ops_create(&add));
        MT_TRY_DNNL(dnnl_post_ops_append_sum(add, 1.0F));
        MT_TRY_DNNL(dnnl_primitive_attr_set_post_ops(*out, add));
        MT_TRY_DNNL(dnnl_post_ops_destroy(add));
    }
    return MT_OK;
}

/* The product of `rows` rows. `packed` NULL: the library chooses the layout of P. */
static enum mt_status make_product(const struct mt_gemm *gemm, int64_t rows, bool accumulate,
                                   const dnnl_memory_desc_t *packed, dnnl_primitive_desc_t *out)
{
    const dnnl_dims_t dims = {mt_gemm_n_x(gemm), mt_gemm_n_y(gemm)};
    dnnl_memory_desc_t x;
    dnnl_memory_desc_t y;
    dnnl_memory_desc_t any;
    MT_TRY_DNNL(describe_rows(&x, rows, mt_gemm_n_x(gemm), gemm->x_type));
    MT_TRY_DNNL(describe_rows(&y, rows, mt_gemm_n_y(gemm), dnnl_f32));
    MT_TRY_DNNL(dnnl_memory_desc_init_by_tag(&any, 2, dims, gemm->x_type, dnnl_format_tag_any));
    dnnl_matmul_desc_t description;
    MT_TRY_DNNL(dnnl_matmul_desc_init(&description, &x, packed != NULL ? packed : &any, NULL, &y));
    dnnl_primitive_attr_t attributes = NULL;
    MT_TRY(make_attributes(accumulate, &attributes));
    const dnnl_status_t created =
        dnnl_primitive_desc_create(out, &description, attributes, cache.engine, NULL);
    MT_TRY_DNNL(dnnl_primitive_attr_destroy(attributes));
    MT_TRY_DNNL(created);
    return MT_OK;
}

/* The layout that whole tiles prefer. */
static enum mt_status choose_layout(struct mt_gemm *gemm)
{
    dnnl_primitive_desc_t tile = NULL;
    MT_TRY(open_engine());
    MT_TRY(make_product(gemm, MT_GEMM_TILE, false, NULL, &tile));
    gemm->pack.layout = *dnnl_primitive_desc_query_md(tile, dnnl_query_weights_md, 0);
    MT_TRY_DNNL(dnnl_primitive_desc_destroy(tile));
    return MT_OK;
}

static enum mt_status make_piece(struct mt_gemm *gemm, int piece, bool accumulate)
{
    dnnl_primitive_desc_t description = NULL;
    MT_TRY(make_product(gemm, piece_rows[piece], accumulate, &gemm->pack.layout, &description));
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    const int64_t scratch_bytes = (int64_t)dnnl_memory_desc_get_size(scratch);
    gemm->scratch_bytes = mt_max_i64(gemm->scratch_bytes, scratch_bytes);
    MT_TRY_DNNL(dnnl_primitive_create(&gemm->product[accumulate ? 1 : 0][piece], description));
    MT_TRY_DNNL(dnnl_primitive_desc_destroy(description));
    return MT_OK;
}

static enum mt_status make_scratch(int64_t n_bytes, dnnl_memory_t *out)
{
    const dnnl_dims_t dims = {mt_max_i64(n_bytes, 1)};
    dnnl_memory_desc_t scratch;
    MT_TRY_DNNL(dnnl_memory_desc_init_by_tag(&scratch, 1, dims, dnnl_u8, dnnl_a));
    MT_TRY_DNNL(dnnl_memory_create(out, &scratch, cache.engine, DNNL_MEMORY_ALLOCATE));
    return MT_OK;
}

static enum mt_status make_thread(struct mt_gemm *gemm, struct thread_memory *thread)
{
    if (gemm->pack.in_panels) {
        return MT_OK;
    }
    for (int piece = 0; piece < N_PIECE; piece++) {
        dnnl_memory_desc_t x;
        dnnl_memory_desc_t y;
        MT_TRY_DNNL(describe_rows(&x, piece_rows[piece], mt_gemm_n_x(gemm), gemm->x_type));
        MT_TRY_DNNL(describe_rows(&y, piece_rows[piece], mt_gemm_n_y(gemm), dnnl_f32));
        MT_TRY_DNNL(dnnl_memory_create(&thread->x[piece], &x, cache.engine, DNNL_MEMORY_NONE));
        MT_TRY_DNNL(dnnl_memory_create(&thread->y[piece], &y, cache.engine, DNNL_MEMORY_NONE));
    }
    MT_TRY_DNNL(
        dnnl_memory_create(&thread->pack, &gemm->pack.layout, cache.engine, DNNL_MEMORY_NONE));
    return make_scratch(gemm->scratch_bytes, &thread->scratch);
}

static enum mt_status make_pieces(struct mt_gemm *gemm, bool accumulate)
{
    for (int piece = 0; piece < N_PIECE; piece++) {
        MT_TRY(make_piece(gemm, piece, accumulate));
    }
    return MT_OK;
}

static void set_shape(struct mt_gemm *gemm, enum mt_dtype dtype, enum mt_gemm_kind kind,
                      int64_t n_out, int64_t n_in)
{
    gemm->dtype = dtype;
    gemm->kind = kind;
    gemm->x_type = type_of(dtype);
    gemm->n_out = n_out;
    gemm->n_in = n_in;
    gemm->pack.n_out = n_out;
    gemm->pack.n_in = n_in;
    gemm->pack.is_transposed = kind == MT_GEMM_FORWARD;
    gemm->pack.in_panels = mt_gemm_panel_fits();
    gemm->pack.rounds = dtype == MT_BFLOAT16 && gemm->x_type == dnnl_f32;
}

static enum mt_status make_gemm(struct mt_gemm *gemm, enum mt_dtype dtype, enum mt_gemm_kind kind,
                                int64_t n_out, int64_t n_in)
{
    set_shape(gemm, dtype, kind, n_out, n_in);
    MT_TRY(open_engine());
    if (!gemm->pack.in_panels) {
        MT_TRY(choose_layout(gemm));
        MT_TRY(make_pieces(gemm, false));
        MT_TRY(kind == MT_GEMM_BACKWARD_INPUT ? make_pieces(gemm, true) : MT_OK);
    }
    return mt_gemm_pack_init(&gemm->pack, cache.engine);
}

static enum mt_status make_shape(enum mt_dtype dtype, int64_t n_out, int64_t n_in)
{
    if (cache.n_shape == MAX_SHAPE) {
        return MT_FAIL(MT_ERR_INTERNAL,
                       "more than %d shapes of weights; expected a few per model; raise MAX_SHAPE",
                       MAX_SHAPE);
    }
    struct mt_gemm *gemm = cache.gemm[cache.n_shape];
    for (int kind = 0; kind < MT_N_GEMM_KIND; kind++) {
        MT_TRY(make_gemm(&gemm[kind], dtype, (enum mt_gemm_kind)kind, n_out, n_in));
    }
    cache.n_shape++;
    return MT_OK;
}

/* Room for a tile of rows of n_x floats. */
static enum mt_status make_rounded(int thread, int64_t n_x)
{
    const int64_t n_bytes = mt_gemm_panel_sheet_floats(MT_GEMM_TILE, n_x) * (int64_t)sizeof(float);
    if (cache.rounded_bytes[thread] < n_bytes) {
        (void)dnnl_memory_destroy(cache.rounded[thread]);
        cache.rounded[thread] = NULL;
        cache.rounded_bytes[thread] = 0;
        MT_TRY(make_scratch(n_bytes, &cache.rounded[thread]));
        cache.rounded_bytes[thread] = n_bytes;
    }
    return MT_OK;
}

static enum mt_status make_threads(struct mt_gemm *gemm, int n_thread)
{
    for (int thread = 0; thread < n_thread; thread++) {
        MT_TRY(make_rounded(thread, mt_gemm_n_x(gemm)));
    }
    for (; cache.n_stream < n_thread; cache.n_stream++) {
        MT_TRY_DNNL(dnnl_stream_create(&cache.stream[cache.n_stream], cache.engine,
                                       dnnl_stream_default_flags));
    }
    for (; gemm->n_thread < n_thread; gemm->n_thread++) {
        MT_TRY(make_thread(gemm, &gemm->thread[gemm->n_thread]));
    }
    return MT_OK;
}

static struct mt_gemm *find(enum mt_dtype dtype, enum mt_gemm_kind kind, int64_t n_out,
                            int64_t n_in)
{
    for (int shape = 0; shape < cache.n_shape; shape++) {
        struct mt_gemm *gemm = &cache.gemm[shape][kind];
        if (gemm->dtype == dtype && gemm->n_out == n_out && gemm->n_in == n_in) {
            return gemm;
        }
    }
    return NULL;
}

enum mt_status mt_gemm_prepare(enum mt_dtype dtype, int64_t n_out, int64_t n_in, int n_thread)
{
    if (n_thread > MT_GEMM_MAX_THREAD) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%d threads in one rank; at most %d are supported; set device.threads or "
                       "use more ranks",
                       n_thread, MT_GEMM_MAX_THREAD);
    }
    if (find(dtype, MT_GEMM_FORWARD, n_out, n_in) == NULL) {
        MT_TRY(make_shape(dtype, n_out, n_in));
    }
    MT_TRY(make_threads(find(dtype, MT_GEMM_FORWARD, n_out, n_in), n_thread));
    return make_threads(find(dtype, MT_GEMM_BACKWARD_INPUT, n_out, n_in), n_thread);
}

const struct mt_gemm *mt_gemm_find(enum mt_dtype dtype, enum mt_gemm_kind kind, int64_t n_out,
                                   int64_t n_in)
{
    const struct mt_gemm *gemm = find(dtype, kind, n_out, n_in);
    MT_ASSERT(gemm != NULL);
    return gemm;
}

int64_t mt_gemm_pack_bytes(enum mt_dtype dtype, enum mt_gemm_kind kind, int64_t n_out, int64_t n_in)
{
    static struct mt_gemm probe;
    const struct mt_gemm *gemm = find(dtype, kind, n_out, n_in);
    if (gemm == NULL) {
        set_shape(&probe, dtype, kind, n_out, n_in);
        MT_ASSERT(probe.pack.in_panels || choose_layout(&probe) == MT_OK);
        gemm = &probe;
    }
    return mt_gemm_pack_size(&gemm->pack);
}

int64_t mt_gemm_n_x(const struct mt_gemm *gemm)
{
    return gemm->kind == MT_GEMM_FORWARD ? gemm->n_in : gemm->n_out;
}

int64_t mt_gemm_n_y(const struct mt_gemm *gemm)
{
    return gemm->kind == MT_GEMM_FORWARD ? gemm->n_out : gemm->n_in;
}

const struct mt_gemm_pack *mt_gemm_pack_of(const struct mt_gemm *gemm)
{
    return &gemm->pack;
}

/* Only a caller's mistake (a lost handle, another layout) can make these fail. */
static void set_data(dnnl_memory_t memory, const void *data)
{
    /* The library has one handle type for what it reads and what it writes. */
    union {
        const void *in;
        void *out;
    } pointer = {.in = data};
    MT_ASSERT(dnnl_memory_set_data_handle(memory, pointer.out) == dnnl_success);
}

void mt_gemm_pack(const struct mt_gemm *gemm, int thread, void *pack, const float *values)
{
    MT_ASSERT(thread >= 0 && thread < gemm->n_thread);
    mt_gemm_pack_whole(&gemm->pack, cache.stream[thread], pack, values);
}

static void lay_rows(const struct mt_gemm *gemm, float *sheet, const float *x, int64_t n)
{
    mt_gemm_panel_lay(sheet, x, n, mt_gemm_n_x(gemm));
    if (gemm->pack.rounds) {
        mt_bf16_round_values(sheet, sheet, mt_gemm_panel_sheet_floats(n, mt_gemm_n_x(gemm)));
    }
}

const void *mt_gemm_round(const struct mt_gemm *gemm, int thread, const float *x, int64_t n)
{
    MT_ASSERT(n >= 1 && n <= MT_GEMM_TILE && thread >= 0 && thread < gemm->n_thread);
    if (gemm->dtype == MT_FLOAT32 && !gemm->pack.in_panels) {
        return x;
    }
    void *rounded = NULL;
    MT_ASSERT(dnnl_memory_get_data_handle(cache.rounded[thread], &rounded) == dnnl_success);
    if (gemm->pack.in_panels) {
        lay_rows(gemm, rounded, x, n);
    } else if (gemm->x_type == dnnl_bf16) {
        mt_bf16_round(rounded, x, n * mt_gemm_n_x(gemm));
    } else {
        mt_bf16_round_values(rounded, x, n * mt_gemm_n_x(gemm));
    }
    return rounded;
}

void mt_gemm_tile(const struct mt_gemm *gemm, int thread, float *y, const float *x,
                  const void *pack, int64_t n, bool accumulate)
{
    mt_gemm_tile_rounded(gemm, thread, y, mt_gemm_round(gemm, thread, x, n), pack, n, accumulate);
}

/* Piece by piece of rows that the library has code for. */
static void multiply_pieces(const struct mt_gemm *gemm, int thread, float *y, const void *rounded,
                            const void *pack, int64_t n, bool accumulate)
{
    const struct thread_memory *memory = &gemm->thread[thread];
    const int64_t item_bytes = gemm->x_type == dnnl_bf16 ? 2 : 4;
    const int64_t row_bytes = item_bytes * mt_gemm_n_x(gemm);
    set_data(memory->pack, pack);
    int64_t row = 0;
    for (int piece = 0; row < n; piece++) {
        if (n - row < piece_rows[piece]) {
            continue;
        }
        set_data(memory->x[piece], (const char *)rounded + row * row_bytes);
        set_data(memory->y[piece], y + row * mt_gemm_n_y(gemm));
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, memory->x[piece]},
                                        {DNNL_ARG_WEIGHTS, memory->pack},
                                        {DNNL_ARG_DST, memory->y[piece]},
                                        {DNNL_ARG_SCRATCHPAD, memory->scratch}};
        const int n_arg = (int)(sizeof(args) / sizeof(args[0]));
        MT_ASSERT(dnnl_primitive_execute(gemm->product[accumulate ? 1 : 0][piece],
                                         cache.stream[thread], n_arg, args) == dnnl_success);
        row += piece_rows[piece];
    }
}

void mt_gemm_tile_rounded(const struct mt_gemm *gemm, int thread, float *y, const void *rounded,
                          const void *pack, int64_t n, bool accumulate)
{
    MT_ASSERT(n >= 1 && n <= MT_GEMM_TILE && thread >= 0 && thread < gemm->n_thread);
    MT_ASSERT(!accumulate || gemm->kind == MT_GEMM_BACKWARD_INPUT);
    if (gemm->pack.in_panels) {
        const struct mt_panel_product product = {.y = y,
                                                 .sheet = rounded,
                                                 .pack = pack,
                                                 .n = n,
                                                 .n_x = mt_gemm_n_x(gemm),
                                                 .n_y = mt_gemm_n_y(gemm),
                                                 .accumulate = accumulate};
        mt_gemm_panel_multiply(&product);
    } else {
        multiply_pieces(gemm, thread, y, rounded, pack, n, accumulate);
    }
}

static void clear_thread(struct thread_memory *thread)
{
    for (int piece = 0; piece < N_PIECE; piece++) {
        (void)dnnl_memory_destroy(thread->x[piece]);
        (void)dnnl_memory_destroy(thread->y[piece]);
    }
    (void)dnnl_memory_destroy(thread->pack);
    (void)dnnl_memory_destroy(thread->scratch);
}

static void clear_gemm(struct mt_gemm *gemm)
{
    for (int piece = 0; piece < N_PIECE; piece++) {
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            if (gemm->product[accumulate][piece] != NULL) {
                (void)dnnl_primitive_destroy(gemm->product[accumulate][piece]);
            }
        }
    }
    for (int thread = 0; thread < gemm->n_thread; thread++) {
        clear_thread(&gemm->thread[thread]);
    }
    mt_gemm_pack_clear(&gemm->pack);
    memset(gemm, 0, sizeof(*gemm));
}

void mt_gemm_clear(void)
{
    for (int shape = 0; shape < cache.n_shape; shape++) {
        for (int kind = 0; kind < MT_N_GEMM_KIND; kind++) {
            clear_gemm(&cache.gemm[shape][kind]);
        }
    }
    for (int stream = 0; stream < cache.n_stream; stream++) {
        (void)dnnl_stream_destroy(cache.stream[stream]);
        (void)dnnl_memory_destroy(cache.rounded[stream]);
        cache.rounded[stream] = NULL;
        cache.rounded_bytes[stream] = 0;
    }
    if (cache.engine != NULL) {
        (void)dnnl_engine_destroy(cache.engine);
    }
    cache.engine = NULL;
    cache.n_stream = 0;
    cache.n_shape = 0;
}
