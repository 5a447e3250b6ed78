/* A trace as text, row by row, whichever of the two forms it has. */
#include "base/memory.h"
#include "data/trace_internal.h"

enum mt_status mt_trace_row_reserve(struct mt_trace_row *row, int64_t n_count)
{
    if (row->capacity >= n_count) {
        return MT_OK;
    }
    mt_memory_free(row->count);
    row->capacity = 0;
    row->count = NULL;
    MT_TRY(MT_ALLOCATE(row->count, n_count, "row of a trace"));
    row->capacity = n_count;
    return MT_OK;
}

enum mt_status mt_trace_text_open(struct mt_trace_text *text, const char *path,
                                  enum mt_trace_format format, bool write)
{
    *text = (struct mt_trace_text){.format = format};
    MT_TRY(MT_ALLOCATE(text->order, 1, "order of a trace"));
    return mt_trace_lines_open(&text->lines, path, write);
}

void mt_trace_text_close(struct mt_trace_text *text)
{
    mt_trace_lines_close(&text->lines);
    mt_memory_free(text->row.count);
    mt_memory_free(text->order);
    *text = (struct mt_trace_text){0};
}

enum mt_status mt_trace_text_next(struct mt_trace_text *text, bool *found)
{
    struct mt_trace_lines *lines = &text->lines;
    MT_TRY(mt_trace_lines_next(lines, found));
    if (*found && lines->number == 1 && text->format == MT_TRACE_CSV) {
        MT_TRY(mt_trace_csv_header(lines, &text->columns));
        if (lines->is_unended) {
            return mt_trace_lines_fail(lines, "the header has no newline; the file is cut short");
        }
        MT_TRY(mt_trace_lines_next(lines, found));
    }
    if (!*found) {
        return MT_OK;
    }
    if (lines->is_unended) {
        /* Without it 1234 and a 123 that lost its end look alike. */
        return mt_trace_lines_fail(
            lines, "the last line has no newline; the file is cut short; expected whole lines");
    }
    MT_TRY(text->format == MT_TRACE_CSV ? mt_trace_csv_row(lines, &text->columns, &text->row)
                                        : mt_trace_jsonl_row(lines, &text->columns, &text->row));
    text->order->has_source = text->columns.has_source;
    text->order->shape.n_expert = text->columns.n_expert;
    return MT_OK;
}
