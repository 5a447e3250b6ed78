/* What the files of traces share. */
#ifndef MT_DATA_TRACE_INTERNAL_H
#define MT_DATA_TRACE_INTERNAL_H

#include "data/trace.h"

#include <hdf5.h>
#include <stdio.h>

enum mt_trace_format { MT_TRACE_CSV, MT_TRACE_JSONL, MT_TRACE_HDF5 };

/* MT_ERR_CONFIG for any other ending. */
enum mt_status mt_trace_format_of(const char *path, enum mt_trace_format *format);

/* ---- trace_line.c: lines of bounded length ---- */
struct mt_trace_lines {
    const char *path;
    FILE *file;
    char *text; /* [capacity], the line without its end, and a zero behind */
    int64_t capacity, length;
    int64_t number;  /* of the line, from 1 */
    int64_t offset;  /* where it starts in the file */
    int64_t end;     /* where the next one starts */
    bool is_unended; /* it has no newline: the file is cut short */
};
/* write: also for cutting. */
enum mt_status mt_trace_lines_open(struct mt_trace_lines *lines, const char *path, bool write);
void mt_trace_lines_close(struct mt_trace_lines *lines);
/* *found: false at the end of the file. */
enum mt_status mt_trace_lines_next(struct mt_trace_lines *lines, bool *found);
enum mt_status mt_trace_lines_seek(struct mt_trace_lines *lines, int64_t offset);
/* MT_ERR_INPUT, "file:line: ..." */
enum mt_status mt_trace_lines_fail(const struct mt_trace_lines *lines, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- what one line says ---- */
struct mt_trace_row {
    int64_t step;
    int micro, layer;
    int source, n_source; /* the first source rank, and how many; totals: 0 and 1 */
    int64_t *count;       /* [n_source, n_expert] */
    int64_t capacity;     /* of count */
};

/* How a text is laid out; known from a csv's header, from the first line of a jsonl. */
struct mt_trace_columns {
    bool is_known;
    bool has_micro, has_source;
    int n_expert;
};

enum mt_status mt_trace_row_reserve(struct mt_trace_row *row, int64_t n_count);
enum mt_status mt_trace_csv_header(const struct mt_trace_lines *lines,
                                   struct mt_trace_columns *columns);
enum mt_status mt_trace_csv_row(const struct mt_trace_lines *lines,
                                struct mt_trace_columns *columns, struct mt_trace_row *row);
enum mt_status mt_trace_jsonl_row(const struct mt_trace_lines *lines,
                                  struct mt_trace_columns *columns, struct mt_trace_row *row);

/* ---- trace_order.c: which row may follow which; learns the shape from the first step, or is told
 * it (then with the layers) before the first row ---- */
struct mt_trace_order {
    struct mt_trace_shape shape;   /* 0: not learnt yet */
    int layer[MT_TRACE_MAX_LAYER]; /* numbers of the layers, [shape.n_layer] */
    bool is_started;
    int64_t step; /* of the row before, as the next three */
    int micro, layer_at, source_end;
    int64_t total[MT_TRACE_MAX_LAYER]; /* rows of each layer in this step so far */
    bool has_source;                   /* rows are of source ranks */
};
/* is_new_step: the row begins one. */
enum mt_status mt_trace_order_add(struct mt_trace_order *order, const struct mt_trace_lines *lines,
                                  const struct mt_trace_row *row, bool *is_new_step);
/* After the last row: it ends a step. In a file of one step it does if every micro-batch has the
 * layers and ranks of the first. */
bool mt_trace_order_finish(struct mt_trace_order *order);

/* ---- trace_text.c ---- */
struct mt_trace_text {
    enum mt_trace_format format;
    struct mt_trace_lines lines;
    struct mt_trace_columns columns;
    struct mt_trace_row row;
    struct mt_trace_order *order;
};
enum mt_status mt_trace_text_open(struct mt_trace_text *text, const char *path,
                                  enum mt_trace_format format, bool write);
void mt_trace_text_close(struct mt_trace_text *text);
/* The next row into text->row. */
enum mt_status mt_trace_text_next(struct mt_trace_text *text, bool *found);

/* ---- trace_hdf5.c ---- */
struct mt_trace_hdf5 {
    hid_t file, counts, steps; /* steps < 0: the file has none */
    const char *path;
    struct mt_trace_shape shape;
    int n_dim;
    int64_t n_step;
};
/* Checks everything. *step: the steps' numbers, allocated here, [n_step] */
enum mt_status mt_trace_hdf5_open(struct mt_trace_hdf5 *hdf5, const char *path, int64_t **step);
enum mt_status mt_trace_hdf5_read(const struct mt_trace_hdf5 *hdf5, int64_t index, int64_t *counts);
void mt_trace_hdf5_close(struct mt_trace_hdf5 *hdf5);

/* What reading and writing share. A failed call becomes `code` with the library's own reason. */
enum mt_status mt_trace_hdf5_status(int64_t result, enum mt_status code, const char *path,
                                    const char *call);
#define MT_TRY_TRACE(code, path, call) \
    MT_TRY(mt_trace_hdf5_status((int64_t)(call), (code), (path), #call))
#define MT_TRY_TRACE_GOTO(code, path, call) \
    MT_TRY_GOTO(mt_trace_hdf5_status((int64_t)(call), (code), (path), #call))
/* *is_new (NULL: never): the file was made. */
enum mt_status mt_trace_hdf5_open_file(const char *path, bool write, bool *is_new, hid_t *file);
/* Opens the datasets of hdf5->file and learns the shape. */
enum mt_status mt_trace_hdf5_open_datasets(struct mt_trace_hdf5 *hdf5, int64_t least_steps,
                                           int64_t **step);
/* One step's part of a dataset: read into `to`, or written when `from` is not NULL. */
enum mt_status mt_trace_hdf5_move(const char *path, hid_t dataset, int64_t index, int64_t *to,
                                  const int64_t *from);

/* ---- trace_hdf5_write.c ---- */
/* The file's steps are cut to last_step, or it is made. */
enum mt_status mt_trace_hdf5_create(struct mt_trace_hdf5 *hdf5, const char *path,
                                    const struct mt_trace_shape *shape, int64_t last_step);
enum mt_status mt_trace_hdf5_append(struct mt_trace_hdf5 *hdf5, int64_t step,
                                    const int64_t *counts);
/* As close, and tells whether everything reached the disk. */
enum mt_status mt_trace_hdf5_finish(struct mt_trace_hdf5 *hdf5);

/* ---- trace_cut.c ---- */
/* A text opened for writing keeps its steps up to last_step, and is left at its end.
 * MT_ERR_CONFIG, MT_ERR_INPUT: it is no trace of this shape, and stays as it is. *is_empty: nothing
 * is left, not even a header. */
enum mt_status mt_trace_cut(struct mt_trace_text *text, const struct mt_trace_shape *shape,
                            const int *layer, int64_t last_step, bool *is_empty);

#endif
