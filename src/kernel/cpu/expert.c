/* Expert feed-forwards, tile by tile of MT_GEMM_TILE rows of one group.
 *
 * Forward: gate, up, SwiGLU and down of a tile follow one another, so the activation [64,F] lives
 * in the thread's scratch, in its cache, and never exists for all rows. Backward: the same for the
 * gradient of the activation; but a gradient of a weight is one product over all rows of a group,
 * and it reads what the tiles have made. So rows go in panels of at most MT_EXPERT_PANEL_ROWS:
 *
 *   tiles of the panel    d_act = d_y W_down, SwiGLU backward: act, d_gate, d_up
 *   gradient of W_down    from d_y and act, before d_x may take the place of d_y
 *   tiles of the panel    d_x = d_gate W_gate + d_up W_up
 *   gradients of W_gate, W_up, unless they are left for later
 *
 * Panels hold whole groups; only a group that is larger is cut. How rows are cut follows from the
 * groups alone, so any number of threads gives the same bits. Measured: docs/decisions/0010. */
#include "base/size.h"
#include "kernel/cpu/cpu.h"
#include "kernel/cpu/parallel.h"
#include "kernel/cpu/swiglu.h"
#include "kernel/cpu/tile.h"

/* 1024 rows of F = 512 are 2 MiB of activations: with d_gate, d_up and x they stay in the last
 * cache until the gradients of the weights have read them, and 16 tiles occupy as many threads. */
enum { PANEL_ROWS = MT_EXPERT_PANEL_ROWS, PANEL_GROUPS = 128, PIECE_ROWS = 256 };
_Static_assert((int)PANEL_ROWS % PIECE_ROWS == 0 && PIECE_ROWS % (int)MT_GEMM_TILE == 0,
               "pieces are whole tiles and fit a panel");

int64_t mt_cpu_expert_scratch_bytes(const struct mt_device *device, int64_t inner, int64_t n)
{
    const int64_t tiles = (int64_t)device->n_thread * MT_GEMM_TILE;
    return mt_max_i64(tiles, mt_min_i64(n, PANEL_ROWS)) * inner * (int64_t)sizeof(float);
}

static const float *part_of(const float *row_weight, int64_t row)
{
    return row_weight != NULL ? row_weight + row : NULL;
}

struct forward {
    struct mt_device *device;
    const struct mt_expert_forward *args;
    const struct mt_expert_weights *weights;
    struct mt_groups groups;
    const struct mt_gemm *open, *close; /* to F, and back to D */
    int64_t width, inner;
};

static void forward_tile(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct forward *f = context;
    const struct mt_expert_forward *args = f->args;
    const struct mt_cpu_tile tile = mt_cpu_tile_at(f->groups, chunk->index);
    const float *x = args->x + tile.row * f->width;
    float *gate = args->gate + tile.row * f->inner;
    float *up = args->up + tile.row * f->inner;
    float *act = (float *)args->scratch + (int64_t)chunk->thread * MT_GEMM_TILE * f->inner;
    const void *rounded = mt_gemm_round(f->open, chunk->thread, x, tile.n);
    mt_gemm_tile_rounded(f->open, chunk->thread, gate, rounded,
                         f->weights->gate[tile.group]->forward_pack, tile.n, false);
    mt_cpu_breathe(f->device, chunk);
    mt_gemm_tile_rounded(f->open, chunk->thread, up, rounded,
                         f->weights->up[tile.group]->forward_pack, tile.n, false);
    mt_cpu_breathe(f->device, chunk);
    mt_cpu_swiglu_forward(act, gate, up, part_of(args->row_weight, tile.row), tile.n, f->inner);
    mt_gemm_tile(f->close, chunk->thread, args->y + tile.row * f->width, act,
                 f->weights->down[tile.group]->forward_pack, tile.n, false);
}

void mt_cpu_expert_forward(struct mt_device *device, const struct mt_expert_forward *args,
                           const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const int64_t inner = weights->gate[0]->n_out;
    const int64_t width = weights->gate[0]->n_in;
    struct forward f = {.device = device,
                        .args = args,
                        .weights = weights,
                        .groups = groups,
                        .open = mt_gemm_find(device->dtype, MT_GEMM_FORWARD, inner, width),
                        .close = mt_gemm_find(device->dtype, MT_GEMM_FORWARD, width, inner),
                        .width = width,
                        .inner = inner};
    mt_cpu_for_chunks(device, mt_cpu_n_tile(groups), 1, forward_tile, &f);
}

/* Some rows of backward: arrays begin at the panel's first row, and so do the groups' offsets. */
struct panel {
    struct mt_device *device;
    float *d_x, *d_row_weight, *gate, *up, *act;
    const float *d_y, *x, *row_weight;
    struct mt_expert_weights weights;
    float *const *d_gate, *const *d_up, *const *d_down;
    struct mt_groups groups;
    const struct mt_gemm *open, *close;
    int64_t width, inner;
};

/* Gradients of gate and up in their place, and the activation again. */
static void open_tile(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct panel *p = context;
    const struct mt_cpu_tile tile = mt_cpu_tile_at(p->groups, chunk->index);
    const int64_t at = tile.row * p->inner;
    mt_gemm_tile(p->open, chunk->thread, p->act + at, p->d_y + tile.row * p->width,
                 p->weights.down[tile.group]->backward_pack, tile.n, false);
    mt_cpu_breathe(p->device, chunk);
    const struct mt_cpu_swiglu_backward swiglu = {
        .d_gate = p->gate + at,
        .d_up = p->up + at,
        .d_row_weight = p->d_row_weight != NULL ? p->d_row_weight + tile.row : NULL,
        .act = p->act + at,
        .d_act = p->act + at,
        .gate = p->gate + at,
        .up = p->up + at,
        .row_weight = part_of(p->row_weight, tile.row),
    };
    mt_cpu_swiglu_backward(&swiglu, tile.n, p->inner);
}

static void close_tile(void *context, const struct mt_cpu_chunk *chunk)
{
    const struct panel *p = context;
    const struct mt_cpu_tile tile = mt_cpu_tile_at(p->groups, chunk->index);
    const int64_t at = tile.row * p->inner;
    float *d_x = p->d_x + tile.row * p->width;
    mt_gemm_tile(p->close, chunk->thread, d_x, p->gate + at,
                 p->weights.gate[tile.group]->backward_pack, tile.n, false);
    mt_cpu_breathe(p->device, chunk);
    mt_gemm_tile(p->close, chunk->thread, d_x, p->up + at, p->weights.up[tile.group]->backward_pack,
                 tile.n, true);
}

static void add_open_gradients(const struct panel *p)
{
    mt_cpu_grouped_backward_weight(p->device, p->d_gate, p->gate, p->x, p->inner, p->width,
                                   p->groups);
    mt_cpu_grouped_backward_weight(p->device, p->d_up, p->up, p->x, p->inner, p->width, p->groups);
}

static void backward_panel(struct panel *p)
{
    const int64_t n_tile = mt_cpu_n_tile(p->groups);
    mt_cpu_for_chunks(p->device, n_tile, 1, open_tile, p);
    mt_cpu_grouped_backward_weight(p->device, p->d_down, p->d_y, p->act, p->width, p->inner,
                                   p->groups);
    mt_cpu_for_chunks(p->device, n_tile, 1, close_tile, p);
    if (p->d_gate != NULL) {
        add_open_gradients(p);
    }
}

/* All of backward as one panel, of which a part is cut. */
static struct panel cut_panel(const struct panel *all, int group, int n_group, int64_t row,
                              const int64_t *offset)
{
    struct panel part = *all;
    part.d_x += row * all->width;
    part.d_y += row * all->width;
    part.x += row * all->width;
    part.gate += row * all->inner;
    part.up += row * all->inner;
    part.d_row_weight = all->d_row_weight != NULL ? all->d_row_weight + row : NULL;
    part.row_weight = part_of(all->row_weight, row);
    part.weights.gate += group;
    part.weights.up += group;
    part.weights.down += group;
    part.d_gate = all->d_gate != NULL ? all->d_gate + group : NULL;
    part.d_up = all->d_up != NULL ? all->d_up + group : NULL;
    part.d_down += group;
    part.groups = (struct mt_groups){n_group, offset};
    return part;
}

/* A group that is larger than a panel, in pieces of about equal size and of whole blocks of a
 * gradient's rows (gradient.h), so that its sums are those of one call. */
static void backward_large(const struct panel *all, int group)
{
    const int64_t end = all->groups.offset[group + 1];
    int64_t row = all->groups.offset[group];
    const int64_t n_piece = mt_ceil_div(end - row, PANEL_ROWS);
    const int64_t piece = mt_round_up(mt_ceil_div(end - row, n_piece), PIECE_ROWS);
    while (row < end) {
        const int64_t offset[2] = {0, mt_min_i64(piece, end - row)};
        struct panel panel = cut_panel(all, group, 1, row, offset);
        backward_panel(&panel);
        row += piece;
    }
}

/* As many groups from `first` on as fit a panel; returns how many. */
static int backward_small(const struct panel *all, int first)
{
    const int64_t *start = all->groups.offset + first;
    int64_t offset[PANEL_GROUPS + 1] = {0};
    int n = 0;
    while (first + n < all->groups.n_group && n < PANEL_GROUPS &&
           start[n + 1] - start[0] <= PANEL_ROWS) {
        n++;
        offset[n] = start[n] - start[0];
    }
    if (offset[n] > 0) {
        struct panel panel = cut_panel(all, first, n, start[0], offset);
        backward_panel(&panel);
    }
    return n;
}

static struct panel whole_of(struct mt_device *device, const struct mt_expert_backward *args,
                             const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const int64_t inner = weights->gate[0]->n_out;
    const int64_t width = weights->gate[0]->n_in;
    return (struct panel){
        .device = device,
        .d_x = args->d_x,
        .d_row_weight = args->d_row_weight,
        .gate = args->gate,
        .up = args->up,
        .act = args->scratch,
        .d_y = args->d_y,
        .x = args->x,
        .row_weight = args->row_weight,
        .weights = *weights,
        .d_gate = args->d_gate_weight,
        .d_up = args->d_up_weight,
        .d_down = args->d_down_weight,
        .groups = groups,
        .open = mt_gemm_find(device->dtype, MT_GEMM_BACKWARD_INPUT, width, inner),
        .close = mt_gemm_find(device->dtype, MT_GEMM_BACKWARD_INPUT, inner, width),
        .width = width,
        .inner = inner,
    };
}

void mt_cpu_expert_backward(struct mt_device *device, const struct mt_expert_backward *args,
                            const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const struct panel all = whole_of(device, args, weights, groups);
    int group = 0;
    while (group < groups.n_group) {
        if (groups.offset[group + 1] - groups.offset[group] > PANEL_ROWS) {
            backward_large(&all, group);
            group++;
        } else {
            group += backward_small(&all, group);
        }
    }
}

void mt_cpu_expert_backward_rest(struct mt_device *device, const struct mt_expert_backward *args,
                                 const struct mt_expert_weights *weights, struct mt_groups groups)
{
    const struct panel all = whole_of(device, args, weights, groups);
    add_open_gradients(&all);
}
