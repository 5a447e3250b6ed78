/* Reading traces: checked whole when opened, then any step by its index. */
#include "data/trace.h"

#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <string.h>

/* Years of training; the index then takes 256 MiB. */
enum { FIRST_STEPS = 1024, MAX_STEPS = 1 << 24 };

struct mt_trace {
    char *path;
    enum mt_trace_format format;
    struct mt_trace_shape shape;
    int64_t n_step, capacity;
    int64_t *step;   /* [n_step] */
    int64_t *offset; /* [n_step] of text: where the step's first line starts */
    int64_t *line;   /* [n_step] of text: that line's number */
    struct mt_trace_text text;
    struct mt_trace_hdf5 hdf5;
};

enum mt_status mt_trace_format_of(const char *path, enum mt_trace_format *format)
{
    static const char *const ending[] = {".csv", ".jsonl", ".h5"};
    const size_t length = strlen(path);
    for (size_t f = 0; f < sizeof(ending) / sizeof(ending[0]); ++f) {
        const size_t n = strlen(ending[f]);
        if (length > n && strcmp(path + length - n, ending[f]) == 0) {
            *format = (enum mt_trace_format)f;
            return MT_OK;
        }
    }
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s: the ending tells a trace's format; expected a name that ends in .csv, "
                   ".jsonl or .h5; rename it",
                   path);
}

static enum mt_status grow_array(int64_t **array, int64_t n, int64_t capacity)
{
    int64_t *larger = NULL;
    MT_TRY(MT_ALLOCATE(larger, capacity, "steps of a trace"));
    if (n > 0) {
        memcpy(larger, *array, (size_t)n * sizeof(*larger));
    }
    mt_memory_free(*array);
    *array = larger;
    return MT_OK;
}

static enum mt_status add_step(struct mt_trace *trace)
{
    const struct mt_trace_lines *lines = &trace->text.lines;
    if (trace->n_step == MAX_STEPS) {
        return mt_trace_lines_fail(lines,
                                   "more than %d steps; expected at most that many; split "
                                   "the file",
                                   MAX_STEPS);
    }
    if (trace->n_step == trace->capacity) {
        const int64_t larger = trace->capacity == 0 ? FIRST_STEPS : 2 * trace->capacity;
        MT_TRY(grow_array(&trace->step, trace->n_step, larger));
        MT_TRY(grow_array(&trace->offset, trace->n_step, larger));
        MT_TRY(grow_array(&trace->line, trace->n_step, larger));
        trace->capacity = larger;
    }
    trace->step[trace->n_step] = trace->text.row.step;
    trace->offset[trace->n_step] = lines->offset;
    trace->line[trace->n_step] = lines->number;
    ++trace->n_step;
    return MT_OK;
}

static enum mt_status add_row(struct mt_trace *trace)
{
    bool is_new_step = false;
    struct mt_trace_text *text = &trace->text;
    MT_TRY(mt_trace_order_add(text->order, &text->lines, &text->row, &is_new_step));
    return is_new_step ? add_step(trace) : MT_OK;
}

static enum mt_status scan_text(struct mt_trace *trace)
{
    struct mt_trace_text *text = &trace->text;
    bool found = true;
    MT_TRY(mt_trace_text_open(text, trace->path, trace->format, false));
    MT_TRY(mt_trace_text_next(text, &found));
    while (found) {
        MT_TRY(add_row(trace));
        MT_TRY(mt_trace_text_next(text, &found));
    }
    if (trace->n_step == 0) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s holds no step; expected counts of at least one; see docs/traces.md",
                       trace->path);
    }
    if (!mt_trace_order_finish(text->order)) {
        return mt_trace_lines_fail(&text->lines,
                                   "the file ends within step %lld; expected the micro-batches, "
                                   "layers and ranks of the first step; is it cut short?",
                                   (long long)text->order->step);
    }
    trace->shape = text->order->shape;
    return MT_OK;
}

static enum mt_status open_parts(struct mt_trace *trace, const char *path)
{
    const int64_t n_byte = (int64_t)strlen(path) + 1;
    MT_TRY(MT_ALLOCATE(trace->path, n_byte, "path of a trace"));
    memcpy(trace->path, path, (size_t)n_byte);
    MT_TRY(mt_trace_format_of(path, &trace->format));
    if (trace->format != MT_TRACE_HDF5) {
        return scan_text(trace);
    }
    MT_TRY(mt_trace_hdf5_open(&trace->hdf5, trace->path, &trace->step));
    trace->shape = trace->hdf5.shape;
    trace->n_step = trace->hdf5.n_step;
    return MT_OK;
}

enum mt_status mt_trace_open(const char *path, struct mt_trace **out)
{
    struct mt_trace *trace = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(trace, 1, "trace"));
    trace->hdf5 = (struct mt_trace_hdf5){
        .file = H5I_INVALID_HID, .counts = H5I_INVALID_HID, .steps = H5I_INVALID_HID};
    const enum mt_status status = open_parts(trace, path);
    if (status != MT_OK) {
        mt_trace_close(trace);
        return status;
    }
    *out = trace;
    return MT_OK;
}

void mt_trace_close(struct mt_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    mt_trace_text_close(&trace->text);
    mt_trace_hdf5_close(&trace->hdf5);
    mt_memory_free(trace->path);
    mt_memory_free(trace->step);
    mt_memory_free(trace->offset);
    mt_memory_free(trace->line);
    mt_memory_free(trace);
}

const struct mt_trace_shape *mt_trace_get_shape(const struct mt_trace *trace)
{
    return &trace->shape;
}

int64_t mt_trace_n_step(const struct mt_trace *trace)
{
    return trace->n_step;
}

int64_t mt_trace_step(const struct mt_trace *trace, int64_t index)
{
    MT_ASSERT(index >= 0 && index < trace->n_step);
    return trace->step[index];
}

/* The rows of one step, which were all there when the file was opened. */
static enum mt_status read_text(struct mt_trace *trace, int64_t index, int64_t *counts)
{
    struct mt_trace_text *text = &trace->text;
    const int64_t n_value = mt_trace_shape_n_value(&trace->shape);
    MT_TRY(mt_trace_lines_seek(&text->lines, trace->offset[index]));
    text->lines.number = trace->line[index] - 1;
    for (int64_t at = 0; at < n_value;) {
        bool found = false;
        MT_TRY(mt_trace_text_next(text, &found));
        const int64_t n = found ? (int64_t)text->row.n_source * trace->shape.n_expert : 0;
        if (!found || text->row.step != trace->step[index] || at + n > n_value) {
            return mt_trace_lines_fail(&text->lines, "the trace has changed since it was opened; "
                                                     "expected a file that nobody writes to");
        }
        memcpy(counts + at, text->row.count, (size_t)n * sizeof(*counts));
        at += n;
    }
    return MT_OK;
}

enum mt_status mt_trace_read(struct mt_trace *trace, int64_t index, int64_t *counts)
{
    MT_ASSERT(index >= 0 && index < trace->n_step);
    return trace->format == MT_TRACE_HDF5 ? mt_trace_hdf5_read(&trace->hdf5, index, counts)
                                          : read_text(trace, index, counts);
}

enum mt_status mt_trace_check_shape(const struct mt_trace *trace, int64_t n_layer, int64_t n_expert)
{
    if (trace->shape.n_layer == n_layer && trace->shape.n_expert == n_expert) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG,
                   "%s: the trace has %d experts and %d layers; the model has %lld and %lld; "
                   "expected the same numbers; use another trace or configuration",
                   trace->path, trace->shape.n_expert, trace->shape.n_layer, (long long)n_expert,
                   (long long)n_layer);
}
