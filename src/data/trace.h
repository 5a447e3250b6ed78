/* Traces of expert load: how many rows each expert of each MoE layer got, step by step.
 *
 * Recorded from a run (moe.trace) or brought from another trainer's logs; replayed as routing, and
 * read by `moetrain plan --trace`. The format follows the file's ending, .csv, .jsonl or .h5;
 * docs/traces.md defines the three. One process reads or writes a trace, from one thread. */
#ifndef MT_DATA_TRACE_H
#define MT_DATA_TRACE_H

#include "base/status.h"

#include <stdint.h>

enum {
    MT_TRACE_MAX_LAYER = 4096,
    MT_TRACE_MAX_EXPERT = 1 << 16,
    MT_TRACE_MAX_SOURCE = 1 << 16,
    MT_TRACE_MAX_MICRO = 1 << 16
};

/* Every step of a trace has the same shape. */
struct mt_trace_shape {
    int n_micro;  /* micro-batches a step, 1 where the file does not tell them apart */
    int n_layer;  /* MoE layers */
    int n_source; /* source ranks; 0: only totals over all ranks */
    int n_expert;
};
/* Values of one step: n_micro n_layer max(n_source, 1) n_expert. At most 2^28, or the file is
 * refused. */
int64_t mt_trace_shape_n_value(const struct mt_trace_shape *shape);

struct mt_trace;

/* The whole file is read once and checked; what stays in memory is 24 bytes a step and one line.
 * MT_ERR_INPUT, naming file and line (index in /counts) and what was expected: missing, unreadable,
 * not of its format, negative or not integer counts, a layer's total beyond int64, steps, layers or
 * ranks missing, twice or out of order, cut short. MT_ERR_CONFIG: another ending. */
enum mt_status mt_trace_open(const char *path, struct mt_trace **out);
void mt_trace_close(struct mt_trace *trace); /* NULL allowed */

const struct mt_trace_shape *mt_trace_get_shape(const struct mt_trace *trace);
int64_t mt_trace_n_step(const struct mt_trace *trace); /* at least 1 */
/* The number that the file gives its step `index`, in [0, n_step); ascending. */
int64_t mt_trace_step(const struct mt_trace *trace, int64_t index);
/* counts [n_micro, n_layer, max(n_source, 1), n_expert] of step `index`. Nothing is allocated in
 * text formats but what a line of JSON needs. MT_ERR_INPUT when the file has changed. */
enum mt_status mt_trace_read(struct mt_trace *trace, int64_t index, int64_t *counts);
/* MT_ERR_CONFIG with both sides' numbers when experts or layers are not as many. */
enum mt_status mt_trace_check_shape(const struct mt_trace *trace, int64_t n_layer,
                                    int64_t n_expert);

struct mt_trace_writer;

/* Opens `path` for the steps after `last_step`: 0 for a new run; on resume the resumed step, to
 * which an existing file is cut. layer [n_layer]: the layers' numbers, ascending. A file that is no
 * trace of this shape is left as it is: MT_ERR_INPUT or MT_ERR_CONFIG. MT_ERR_RESOURCE: cannot be
 * written. */
enum mt_status mt_trace_writer_open(const char *path, const struct mt_trace_shape *shape,
                                    const int *layer, int64_t last_step,
                                    struct mt_trace_writer **out);
/* counts [n_micro, n_layer, max(n_source, 1), n_expert] of the step, which is above the one before;
 * on its way to disk on return. Allocates nothing (HDF5's own buffers aside). */
enum mt_status mt_trace_writer_append(struct mt_trace_writer *writer, int64_t step,
                                      const int64_t *counts);
/* MT_ERR_RESOURCE when what was written did not reach the disk. NULL allowed. */
enum mt_status mt_trace_writer_close(struct mt_trace_writer *writer);

#endif
