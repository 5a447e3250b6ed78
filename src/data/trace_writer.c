/* Recording traces, one step at a time. */
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <errno.h>
#include <string.h>

struct mt_trace_writer {
    char *path;
    int *layer; /* [n_layer] */
    struct mt_trace_shape shape;
    enum mt_trace_format format;
    struct mt_trace_text text;
    struct mt_trace_hdf5 hdf5;
};

static enum mt_status fail_write(const struct mt_trace_writer *writer)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot write %s: %s; expected space for the counts of each step; free some, or "
                   "leave out moe.trace",
                   writer->path, strerror(errno));
}

static void write_header(FILE *out, const struct mt_trace_shape *shape)
{
    (void)fprintf(out, "step,%slayer%s", shape->n_micro > 1 ? "micro," : "",
                  shape->n_source > 0 ? ",rank" : "");
    for (int e = 0; e < shape->n_expert; ++e) {
        (void)fprintf(out, ",expert_%d", e);
    }
    (void)fputc('\n', out);
}

/* Digits of value >= 0, and what stands before them: fprintf takes four times as long. */
static void write_count(FILE *out, char before, int64_t value)
{
    enum { MAX_DIGITS = 20 };
    char text[MAX_DIGITS];
    int at = MAX_DIGITS;
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    (void)putc_unlocked(before, out);
    (void)fwrite_unlocked(text + at, 1, (size_t)(MAX_DIGITS - at), out);
}

/* count [max(n_source, 1), n_expert] of one layer */
static void write_csv(FILE *out, const struct mt_trace_writer *writer, int64_t step, int micro,
                      int layer, const int64_t *count)
{
    const struct mt_trace_shape *shape = &writer->shape;
    for (int r = 0; r < mt_max_i64(shape->n_source, 1); ++r) {
        (void)fprintf(out, "%lld", (long long)step);
        if (shape->n_micro > 1) {
            write_count(out, ',', micro);
        }
        write_count(out, ',', writer->layer[layer]);
        if (shape->n_source > 0) {
            write_count(out, ',', r);
        }
        for (int e = 0; e < shape->n_expert; ++e) {
            write_count(out, ',', count[(int64_t)r * shape->n_expert + e]);
        }
        (void)fputc('\n', out);
    }
}

static void write_jsonl(FILE *out, const struct mt_trace_writer *writer, int64_t step, int micro,
                        int layer, const int64_t *count)
{
    const struct mt_trace_shape *shape = &writer->shape;
    (void)fprintf(out, "{\"step\":%lld", (long long)step);
    if (shape->n_micro > 1) {
        (void)fprintf(out, ",\"micro\":%d", micro);
    }
    (void)fprintf(out, ",\"layer\":%d,\"counts\":", writer->layer[layer]);
    for (int r = 0; r < mt_max_i64(shape->n_source, 1); ++r) {
        if (shape->n_source > 0) {
            (void)fputc(r == 0 ? '[' : ',', out);
        }
        for (int e = 0; e < shape->n_expert; ++e) {
            write_count(out, e == 0 ? '[' : ',', count[(int64_t)r * shape->n_expert + e]);
        }
        (void)fputc(']', out);
    }
    (void)fputs(shape->n_source > 0 ? "]}\n" : "}\n", out);
}

static enum mt_status open_text(struct mt_trace_writer *writer, int64_t last_step)
{
    bool is_empty = false;
    MT_TRY(mt_trace_text_open(&writer->text, writer->path, writer->format, true));
    MT_TRY(mt_trace_cut(&writer->text, &writer->shape, writer->layer, last_step, &is_empty));
    if (is_empty && writer->format == MT_TRACE_CSV) {
        write_header(writer->text.lines.file, &writer->shape);
    }
    return fflush(writer->text.lines.file) == 0 ? MT_OK : fail_write(writer);
}

static enum mt_status open_parts(struct mt_trace_writer *writer, const char *path, const int *layer,
                                 int64_t last_step)
{
    const int64_t n_byte = (int64_t)strlen(path) + 1;
    const int n_layer = writer->shape.n_layer;
    MT_TRY(MT_ALLOCATE(writer->path, n_byte, "path of a trace"));
    memcpy(writer->path, path, (size_t)n_byte);
    MT_TRY(MT_ALLOCATE(writer->layer, n_layer, "layers of a trace"));
    memcpy(writer->layer, layer, (size_t)n_layer * sizeof(*layer));
    MT_TRY(mt_trace_format_of(path, &writer->format));
    return writer->format == MT_TRACE_HDF5
               ? mt_trace_hdf5_create(&writer->hdf5, writer->path, &writer->shape, last_step)
               : open_text(writer, last_step);
}

enum mt_status mt_trace_writer_open(const char *path, const struct mt_trace_shape *shape,
                                    const int *layer, int64_t last_step,
                                    struct mt_trace_writer **out)
{
    struct mt_trace_writer *writer = NULL;
    *out = NULL;
    MT_ASSERT(shape->n_micro >= 1 && shape->n_micro <= MT_TRACE_MAX_MICRO);
    MT_ASSERT(shape->n_layer >= 1 && shape->n_layer <= MT_TRACE_MAX_LAYER);
    MT_ASSERT(shape->n_source >= 0 && shape->n_source <= MT_TRACE_MAX_SOURCE);
    MT_ASSERT(shape->n_expert >= 1 && shape->n_expert <= MT_TRACE_MAX_EXPERT);
    MT_TRY(MT_ALLOCATE(writer, 1, "trace"));
    writer->shape = *shape;
    writer->hdf5 = (struct mt_trace_hdf5){
        .file = H5I_INVALID_HID, .counts = H5I_INVALID_HID, .steps = H5I_INVALID_HID};
    const enum mt_status status = open_parts(writer, path, layer, last_step);
    if (status != MT_OK) {
        (void)mt_trace_writer_close(writer);
        return status;
    }
    *out = writer;
    return MT_OK;
}

enum mt_status mt_trace_writer_append(struct mt_trace_writer *writer, int64_t step,
                                      const int64_t *counts)
{
    const struct mt_trace_shape *shape = &writer->shape;
    const int64_t n_layer_value = mt_max_i64(shape->n_source, 1) * (int64_t)shape->n_expert;
    FILE *out = writer->text.lines.file;
    if (writer->format == MT_TRACE_HDF5) {
        return mt_trace_hdf5_append(&writer->hdf5, step, counts);
    }
    for (int micro = 0; micro < shape->n_micro; ++micro) {
        for (int layer = 0; layer < shape->n_layer; ++layer) {
            if (writer->format == MT_TRACE_CSV) {
                write_csv(out, writer, step, micro, layer, counts);
            } else {
                write_jsonl(out, writer, step, micro, layer, counts);
            }
            counts += n_layer_value;
        }
    }
    return fflush(out) == 0 && ferror(out) == 0 ? MT_OK : fail_write(writer);
}

enum mt_status mt_trace_writer_close(struct mt_trace_writer *writer)
{
    enum mt_status status = MT_OK;
    if (writer == NULL) {
        return MT_OK;
    }
    if (writer->format == MT_TRACE_HDF5) {
        status = mt_trace_hdf5_finish(&writer->hdf5);
    }
    mt_trace_text_close(&writer->text);
    mt_memory_free(writer->layer);
    mt_memory_free(writer->path);
    mt_memory_free(writer);
    return status;
}
