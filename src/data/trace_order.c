/* Which row of a trace may follow which: ascending in step, micro-batch, layer and source rank,
 * each once, and every step like the first, from which the shape is learnt. */
#include "base/size.h"
#include "data/trace_internal.h"

enum { MAX_STEP_VALUES = 1 << 28 };

int64_t mt_trace_shape_n_value(const struct mt_trace_shape *shape)
{
    const int64_t per_layer = mt_max_i64(shape->n_source, 1) * (int64_t)shape->n_expert;
    const int64_t n_layer = (int64_t)shape->n_micro * shape->n_layer; /* at most 2^28 */
    int64_t n = 0;
    return mt_size_multiply(per_layer, n_layer, &n) ? n : INT64_MAX;
}

static bool layer_is_complete(const struct mt_trace_order *order)
{
    return !order->has_source || order->shape.n_source == order->source_end;
}

static bool micro_is_complete(const struct mt_trace_order *order)
{
    return layer_is_complete(order) && order->layer_at + 1 == order->shape.n_layer;
}

/* Does the last row end a step? In the first step it does, whatever there is. */
bool mt_trace_order_finish(struct mt_trace_order *order)
{
    if (order->is_started && order->shape.n_micro == 0) {
        if (order->has_source && order->shape.n_source == 0) {
            order->shape.n_source = order->source_end;
        }
        order->shape.n_micro = order->micro + 1;
    }
    return order->is_started && micro_is_complete(order) &&
           order->micro + 1 == order->shape.n_micro;
}

static enum mt_status out_of_order(const struct mt_trace_order *order,
                                   const struct mt_trace_lines *lines,
                                   const struct mt_trace_row *row)
{
    return mt_trace_lines_fail(
        lines,
        "step %lld micro %d layer %d rank %d after step %lld micro %d layer %d rank %d; expected "
        "steps, micro-batches from 0, layers and ranks from 0 in ascending order, each once, and "
        "every step with the micro-batches, layers and ranks of the first",
        (long long)row->step, row->micro, row->layer, row->source, (long long)order->step,
        order->micro, order->layer[order->layer_at], order->source_end - 1);
}

/* The row's place in its layer list; learns it during the first micro-batch. -1: not there. */
static int find_next_layer(struct mt_trace_order *order, int layer)
{
    const int next = order->layer_at + 1;
    if (next < order->shape.n_layer) {
        return order->layer[next] == layer ? next : -1;
    }
    const bool is_learning = order->shape.n_micro == 0 && order->micro == 0;
    if (!is_learning || next == MT_TRACE_MAX_LAYER || layer <= order->layer[order->layer_at]) {
        return -1;
    }
    order->layer[next] = layer;
    order->shape.n_layer = next + 1;
    return next;
}

/* Where a row that begins with its first source may stand. */
static bool begin_layer(struct mt_trace_order *order, const struct mt_trace_row *row,
                        bool *is_new_step)
{
    if (order->has_source && order->shape.n_source == 0) {
        order->shape.n_source = order->source_end; /* the first layer is over */
    }
    if (!layer_is_complete(order) || row->source != 0) {
        return false;
    }
    if (row->step == order->step && row->micro == order->micro) {
        order->layer_at = find_next_layer(order, row->layer);
        return order->layer_at >= 0;
    }
    if (!micro_is_complete(order) || row->layer != order->layer[0]) {
        return false;
    }
    order->layer_at = 0;
    if (row->step == order->step && row->micro == order->micro + 1) {
        return order->shape.n_micro == 0 || row->micro < order->shape.n_micro;
    }
    if (order->shape.n_micro == 0) {
        order->shape.n_micro = order->micro + 1; /* the first step is over */
    }
    *is_new_step = true;
    return row->step > order->step && row->micro == 0 && order->micro + 1 == order->shape.n_micro;
}

static enum mt_status add_total(struct mt_trace_order *order, const struct mt_trace_lines *lines,
                                const struct mt_trace_row *row)
{
    const int64_t n = (int64_t)row->n_source * order->shape.n_expert;
    int64_t *total = &order->total[order->layer_at];
    *total = row->micro == 0 && row->source == 0 ? 0 : *total;
    for (int64_t i = 0; i < n; ++i) {
        if (!mt_size_add(*total, row->count[i], total)) {
            return mt_trace_lines_fail(lines,
                                       "the counts of step %lld layer %d do not sum to less than "
                                       "2^63; expected rows that a machine can compute",
                                       (long long)row->step, row->layer);
        }
    }
    return MT_OK;
}

static enum mt_status check_size(const struct mt_trace_order *order,
                                 const struct mt_trace_lines *lines)
{
    struct mt_trace_shape shape = order->shape;
    shape.n_micro = order->micro + 1;
    shape.n_source = (int)mt_max_i64(shape.n_source, order->source_end);
    if (mt_trace_shape_n_value(&shape) > MAX_STEP_VALUES) {
        return mt_trace_lines_fail(lines,
                                   "a step of more than 2^28 counts (%d micro-batches, %d layers, "
                                   "%d ranks, %d experts); expected less; leave out the ranks",
                                   shape.n_micro, shape.n_layer, shape.n_source, shape.n_expert);
    }
    return MT_OK;
}

enum mt_status mt_trace_order_add(struct mt_trace_order *order, const struct mt_trace_lines *lines,
                                  const struct mt_trace_row *row, bool *is_new_step)
{
    *is_new_step = !order->is_started;
    const bool goes_on = order->is_started && row->source > 0 && row->step == order->step &&
                         row->micro == order->micro && row->layer == order->layer[order->layer_at];
    if (!order->is_started) {
        const bool knows_layers = order->shape.n_layer > 0;
        order->layer[0] = knows_layers ? order->layer[0] : row->layer;
        order->shape.n_layer = knows_layers ? order->shape.n_layer : 1;
        if (row->micro != 0 || row->source != 0 || row->layer != order->layer[0]) {
            return mt_trace_lines_fail(
                lines,
                "the first row is of micro %d layer %d rank %d; expected micro 0, layer %d, rank 0",
                row->micro, row->layer, row->source, order->layer[0]);
        }
    } else if (goes_on) {
        const int most = order->shape.n_source > 0 ? order->shape.n_source : MT_TRACE_MAX_SOURCE;
        if (row->source != order->source_end || row->source + row->n_source > most) {
            return out_of_order(order, lines, row);
        }
    } else {
        struct mt_trace_order before = {.step = order->step,
                                        .micro = order->micro,
                                        .source_end = order->source_end,
                                        .layer_at = 0};
        before.layer[0] = order->layer[order->layer_at];
        if (!begin_layer(order, row, is_new_step)) {
            return out_of_order(&before, lines, row);
        }
    }
    order->is_started = true;
    order->step = row->step;
    order->micro = row->micro;
    order->source_end = row->source + row->n_source;
    MT_TRY(check_size(order, lines));
    return add_total(order, lines, row);
}
