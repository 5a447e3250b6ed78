/* What computing costs: the kernels of a layer on scratch data, timed by a meter (device.h). */
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "device/memory.h"
#include "train/costs.h"

#include <math.h>

/* The tile of products on the CPU: more rows are not faster each (kernel/cpu/gemm_primitive.h). */
enum { N_ROW = 64 };
/* Scratch data go to a GPU in pieces of so many floats. */
enum { N_ROOM = 1 << 16 };
/* Repetitions of an unpaced measurement: fewer where they take long, but the first one also touches
 * its memory and makes the threads. */
enum { LEAST_REPEAT = 3, MOST_REPEAT = 7 };
static const int64_t ENOUGH_NS = 5000000;
static const double PS_PER_NS = 1000.0;

/* Everything that is computed here, for one sequence; scratch from one arena. */
struct work {
    struct mt_device meter;
    struct mt_arena arena;
    float *room; /* [N_ROOM] */
    int64_t width, inner, length, n_head, n_kv_head, head_dim;
    float eps;
    int64_t n_row; /* of the expert */
    struct mt_weight gate, up, down;
    const float *values; /* [F,D] what weights are packed from */
    float *x, *y, *gate_out, *up_out;
    void *expert_scratch;
    struct mt_weight q, kv, o;
    float *h, *rstd, *q_out, *k_out, *v_out, *o_out, *lse, *x_middle, *norm, *cosine, *sine;
    void *scratch;
};

/* ---- what is timed ---- */

static void pack_expert(struct work *w)
{
    mt_weight_pack(&w->meter, &w->gate, w->values);
    mt_weight_pack(&w->meter, &w->up, w->values);
    mt_weight_pack(&w->meter, &w->down, w->values);
}

/* As moe/experts.c computes n_row rows of one instance. */
static void run_expert(struct work *w)
{
    const int64_t offset[2] = {0, w->n_row};
    const struct mt_groups groups = {.n_group = 1, .offset = offset};
    const struct mt_weight *gate = &w->gate;
    const struct mt_weight *up = &w->up;
    const struct mt_weight *down = &w->down;
    const struct mt_expert_weights weights = {&gate, &up, &down};
    const struct mt_expert_forward args = {.y = w->y,
                                           .gate = w->gate_out,
                                           .up = w->up_out,
                                           .x = w->x,
                                           .row_weight = w->rstd,
                                           .scratch = w->expert_scratch};
    mt_expert_forward(&w->meter, &args, &weights, groups);
}

/* As model/attention.c, and the norm before the gate. */
static void run_attention(struct work *w)
{
    const int64_t n = w->length;
    const struct mt_rope rope = {w->cosine, w->sine};
    const struct mt_attention shape = {1, w->length, w->n_head, w->n_kv_head, w->head_dim, 0};
    const struct mt_attention_forward args = {w->o_out, w->lse,     w->q_out, w->k_out,
                                              w->v_out, w->scratch, &rope,    NULL};
    mt_rms_norm_forward(&w->meter, w->h, w->rstd, w->x, w->norm, n, w->width, w->eps);
    mt_linear_forward(&w->meter, w->q_out, w->h, &w->q, n);
    mt_linear_forward(&w->meter, w->k_out, w->h, &w->kv, n);
    mt_linear_forward(&w->meter, w->v_out, w->h, &w->kv, n);
    mt_attention_forward(&w->meter, &args, &shape);
    mt_linear_forward(&w->meter, w->x_middle, w->o_out, &w->o, n);
    const struct mt_add_rms_norm_forward norm = {
        .sum = w->x_middle, .y = w->h, .rstd = w->rstd, .x = w->x, .w = w->norm, .eps = w->eps};
    mt_add_rms_norm_forward(&w->meter, &norm, n, w->width);
}

/* A GPU's operations only begin while the meter looks on; they are over after the wait, whose
 * failure shows at the next. */
static double time_once(struct work *w, void (*run)(struct work *))
{
    const int64_t start_ns = mt_clock_ns();
    w->meter.metered_ns = 0.0;
    run(w);
    (void)mt_device_wait(&w->meter);
    return mt_device_is_host(&w->meter) ? w->meter.metered_ns : (double)(mt_clock_ns() - start_ns);
}

/* Picoseconds of one run: as modelled, or the least of some. */
static double time_of(struct work *w, void (*run)(struct work *))
{
    const bool is_modelled = w->meter.pace_gflops > 0.0 || w->meter.pace_gbytes_per_s > 0.0;
    const int64_t end_ns = mt_clock_ns() + ENOUGH_NS;
    double least_ns = INFINITY;
    const int least = is_modelled ? 1 : LEAST_REPEAT;
    const int most = is_modelled ? 1 : MOST_REPEAT;
    for (int i = 0; i < least || (i < most && mt_clock_ns() < end_ns); i++) {
        least_ns = fmin(least_ns, time_once(w, run));
    }
    return least_ns * PS_PER_NS;
}

/* ---- making it ---- */

static float *cut(struct work *w, int64_t n)
{
    float *x = mt_arena_cut(&w->arena, n * (int64_t)sizeof(float));
    for (int64_t at = 0; at < n; at += N_ROOM) {
        const int64_t n_here = mt_min_i64(N_ROOM, n - at);
        float *value = mt_device_room(&w->meter, x + at, w->room);
        for (int64_t i = 0; i < n_here; i++) {
            value[i] = (float)((at + i) % 13 - 6) * 0.01F; /* no denormals, which are slow */
        }
        mt_device_upload(&w->meter, x + at, value, n_here * (int64_t)sizeof(float));
    }
    return x;
}

static void cut_weight(struct work *w, struct mt_weight *weight, int64_t n_out, int64_t n_in,
                       bool training)
{
    void *memory = mt_arena_cut(&w->arena, mt_weight_bytes(&w->meter, n_out, n_in, training));
    mt_weight_init(&w->meter, weight, n_out, n_in, training, memory);
}

static void cut_all(struct work *w, bool training)
{
    const int64_t n = mt_max_i64(w->length, N_ROW);
    const int64_t q_width = w->n_head * w->head_dim;
    const int64_t kv_width = w->n_kv_head * w->head_dim;
    const int64_t widest = mt_max_i64(w->inner, q_width);
    const struct mt_attention shape = {1, w->length, w->n_head, w->n_kv_head, w->head_dim, 0};
    cut_weight(w, &w->gate, w->inner, w->width, training);
    cut_weight(w, &w->up, w->inner, w->width, training);
    cut_weight(w, &w->down, w->width, w->inner, training);
    cut_weight(w, &w->q, q_width, w->width, training);
    cut_weight(w, &w->kv, kv_width, w->width, training);
    cut_weight(w, &w->o, w->width, q_width, training);
    w->values = cut(w, widest * w->width);
    w->x = cut(w, n * w->width);
    w->y = cut(w, n * w->width);
    w->h = cut(w, n * w->width);
    w->x_middle = cut(w, n * w->width);
    w->gate_out = cut(w, N_ROW * w->inner);
    w->up_out = cut(w, N_ROW * w->inner);
    w->rstd = cut(w, n);
    w->q_out = cut(w, n * q_width);
    w->o_out = cut(w, n * q_width);
    w->k_out = cut(w, n * kv_width);
    w->v_out = cut(w, n * kv_width);
    w->lse = cut(w, n * w->n_head);
    w->norm = cut(w, w->width);
    w->cosine = cut(w, n * w->head_dim);
    w->sine = cut(w, n * w->head_dim);
    w->expert_scratch =
        mt_arena_cut(&w->arena, mt_expert_scratch_bytes(&w->meter, w->inner, N_ROW));
    w->scratch = mt_arena_cut(&w->arena, mt_attention_scratch_bytes(&w->meter, &shape));
}

/* Capacity for cut_all, generously; the session has larger ones of the same shapes. */
static int64_t arena_bytes(const struct work *w)
{
    enum { N_CUT = 64, CUT_BYTES = 64 };
    const int64_t n = mt_max_i64(w->length, N_ROW);
    const int64_t q_width = w->n_head * w->head_dim;
    const int64_t widest = mt_max_i64(w->inner, q_width);
    const struct mt_attention shape = {1, w->length, w->n_head, w->n_kv_head, w->head_dim, 0};
    const int64_t floats = n * (4 * w->width + 4 * q_width + w->n_head + 2 * w->head_dim + 1) +
                           2 * (int64_t)N_ROW * w->inner + (widest + 1) * w->width;
    return floats * (int64_t)sizeof(float) + mt_attention_scratch_bytes(&w->meter, &shape) +
           mt_expert_scratch_bytes(&w->meter, w->inner, N_ROW) +
           3 * mt_weight_bytes(&w->meter, w->inner, w->width, true) +
           3 * mt_weight_bytes(&w->meter, w->width, w->inner, true) +
           3 * mt_weight_bytes(&w->meter, q_width, w->width, true) +
           3 * mt_weight_bytes(&w->meter, w->width, q_width, true) + (int64_t)N_CUT * CUT_BYTES;
}

static enum mt_status prepare(struct work *w)
{
    const int64_t q_width = w->n_head * w->head_dim;
    const int64_t kv_width = w->n_kv_head * w->head_dim;
    MT_TRY(mt_linear_prepare(&w->meter, w->inner, w->width));
    MT_TRY(mt_linear_prepare(&w->meter, w->width, w->inner));
    MT_TRY(mt_linear_prepare(&w->meter, q_width, w->width));
    MT_TRY(mt_linear_prepare(&w->meter, kv_width, w->width));
    return mt_linear_prepare(&w->meter, w->width, q_width);
}

/* A device may be paced so slowly that sums of its times leave 63 bits. */
static int64_t whole_ps(double ps)
{
    static const double longest_ps = 1e18;
    return llround(fmin(ps, longest_ps));
}

static void measure(struct work *w, int64_t n_sequence, struct mt_costs *costs)
{
    mt_weight_pack(&w->meter, &w->q, w->values);
    mt_weight_pack(&w->meter, &w->kv, w->values);
    mt_weight_pack(&w->meter, &w->o, w->values);
    const double pack_ps = time_of(w, pack_expert);
    w->n_row = 1;
    const double one_ps = time_of(w, run_expert);
    w->n_row = N_ROW;
    const double rows_ps = time_of(w, run_expert);
    const double row_ps = fmax(1.0, (rows_ps - one_ps) / (N_ROW - 1));
    costs->row_ps = whole_ps(row_ps);
    costs->instance_ps = whole_ps(pack_ps + fmax(0.0, one_ps - row_ps));
    costs->attention_ps = whole_ps(time_of(w, run_attention) * (double)n_sequence);
}

enum mt_status mt_costs_measure_compute(const struct mt_session *session, int64_t n_sequence,
                                        struct mt_costs *costs)
{
    const struct mt_config *config = session->config;
    struct work w = {
        .width = config->model.hidden_size,
        .inner = config->moe.expert_intermediate_size,
        .length = config->model.max_seq_len,
        .n_head = config->model.num_attention_heads,
        .n_kv_head = config->model.num_key_value_heads,
        .head_dim = config->model.head_dim,
        .eps = (float)config->model.rms_norm_eps,
    };
    enum mt_status status = MT_OK;
    mt_device_init_meter(&w.meter, &session->device);
    MT_TRY_GOTO(prepare(&w));
    MT_TRY_GOTO(mt_device_arena_init(&w.meter, &w.arena, arena_bytes(&w), "measuring costs"));
    MT_TRY_GOTO(MT_ALLOCATE(w.room, N_ROOM, "measuring costs"));
    cut_all(&w, true);
    measure(&w, n_sequence, costs);
    status = mt_device_wait(&w.meter);
cleanup:
    mt_memory_free(w.room);
    mt_device_arena_clear(&w.meter, &w.arena);
    return status;
}
