/* A thread that works on one task at a time for the thread that made it.
 *
 * A task may use what its owner leaves alone meanwhile. One thing is often needed back sooner than
 * the rest: when the task has let go of it, it says so (mt_writer_release).
 *
 *   owner    begin ........ await_release ........ is_done, is_done, end
 *   thread         | copies | release | writes, syncs, reads back |                          */
#ifndef MT_CHECKPOINT_WRITER_H
#define MT_CHECKPOINT_WRITER_H

#include "base/status.h"

#include <stdint.h>

struct mt_writer;
typedef enum mt_status (*mt_writer_fn)(void *context);

enum mt_status mt_writer_create(struct mt_writer **out);
/* NULL allowed. Waits for a task that was begun. */
void mt_writer_destroy(struct mt_writer *writer);

/* No task is begun and not ended. */
void mt_writer_begin(struct mt_writer *writer, mt_writer_fn task, void *context);
/* Instead of beginning: a task that could not be, ended by this thread's recorded error. */
void mt_writer_fail(struct mt_writer *writer, enum mt_status status);
/* Within the task: the owner may change now what the task has read. */
void mt_writer_release(struct mt_writer *writer);
/* Returns when the task has released or is done, at once when there is none. */
void mt_writer_await_release(struct mt_writer *writer);

bool mt_writer_has_task(struct mt_writer *writer);
/* The task that was begun is done; false also when there is none. */
bool mt_writer_is_done(struct mt_writer *writer);
/* It has returned an error; of a task that is done. */
bool mt_writer_has_failed(const struct mt_writer *writer);
/* Waits for that it is done, at most until mt_clock_ns() = until_ns. */
void mt_writer_await_done(struct mt_writer *writer, int64_t until_ns);
/* Of a task that is done: what it returned, its error recorded here. *cpu_ns: the processor time
 * that it took. The writer is free again. */
enum mt_status mt_writer_end(struct mt_writer *writer, int64_t *cpu_ns);

#endif
