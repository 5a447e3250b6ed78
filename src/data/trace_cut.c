/* A recorded trace on resume: cut to the resumed step, so that it reads as one uninterrupted run.
 * A file that is something else is somebody's data: it is refused, never shortened. */
#include "base/size.h"
#include "data/trace_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What a run that was killed leaves at the end of its first line begins as a trace does. */
static bool is_own_beginning(const struct mt_trace_text *text)
{
    const char *begin = text->format == MT_TRACE_CSV ? "step," : "{\"step\":";
    const int64_t n = mt_min_i64((int64_t)strlen(begin), text->lines.length);
    return text->lines.number > 1 || memcmp(text->lines.text, begin, (size_t)n) == 0;
}

static enum mt_status check_columns(const struct mt_trace_text *text,
                                    const struct mt_trace_shape *shape)
{
    const struct mt_trace_columns *columns = &text->columns;
    if (!columns->is_known ||
        (columns->n_expert == shape->n_expert && columns->has_source == (shape->n_source > 0) &&
         columns->has_micro == (shape->n_micro > 1))) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s is a trace of %d experts with%s micro-batches and with%s ranks; expected %d "
                   "experts with%s and with%s as this run has; move it away or change moe.trace",
                   text->lines.path, columns->n_expert, columns->has_micro ? "" : "out",
                   columns->has_source ? "" : "out", shape->n_expert,
                   shape->n_micro > 1 ? "" : "out", shape->n_source > 0 ? "" : "out");
}

/* The next row, if the file has a whole one; *found false at its end, or where it was cut off. */
static enum mt_status next_row(struct mt_trace_text *text, const struct mt_trace_shape *shape,
                               bool *found)
{
    const enum mt_status status = mt_trace_text_next(text, found);
    if (status == MT_OK) {
        return check_columns(text, shape);
    }
    if (text->lines.is_unended && is_own_beginning(text)) {
        mt_error_clear();
        *found = false;
        return MT_OK;
    }
    return status;
}

/* *end: where the steps up to last_step end. */
static enum mt_status find_end(struct mt_trace_text *text, const struct mt_trace_shape *shape,
                               int64_t last_step, int64_t *end)
{
    bool found = true;
    *end = 0;
    MT_TRY(next_row(text, shape, &found));
    while (found) {
        bool is_new_step = false;
        MT_TRY(mt_trace_order_add(text->order, &text->lines, &text->row, &is_new_step));
        *end = is_new_step ? text->lines.offset : *end;
        if (text->row.step > last_step) {
            return MT_OK;
        }
        MT_TRY(next_row(text, shape, &found));
    }
    const bool is_whole = text->order->is_started ? mt_trace_order_finish(text->order)
                                                  : text->columns.is_known; /* a header alone */
    *end = is_whole ? text->lines.offset : *end;
    return MT_OK;
}

enum mt_status mt_trace_cut(struct mt_trace_text *text, const struct mt_trace_shape *shape,
                            const int *layer, int64_t last_step, bool *is_empty)
{
    int64_t end = 0;
    text->order->shape = *shape;
    memcpy(text->order->layer, layer, (size_t)shape->n_layer * sizeof(*layer));
    MT_TRY(find_end(text, shape, last_step, &end));
    if (ftruncate(fileno(text->lines.file), (off_t)end) != 0) {
        return MT_FAIL(MT_ERR_RESOURCE, "cannot cut %s: %s; expected a writable file",
                       text->lines.path, strerror(errno));
    }
    *is_empty = end == 0;
    return mt_trace_lines_seek(&text->lines, end);
}
