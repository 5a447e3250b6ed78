/* What a library makes of a file that may have been made to do harm, in a child process: it may go
 * round for ever, take memory by the file's word, or read and write beyond its buffers. A child
 * ends with that, by its limits or by itself, and its parent says so.
 *
 * Not for every start of a run: a process that has network hardware open had better not fork. */
#ifndef MT_BASE_JOB_GUARD_H
#define MT_BASE_JOB_GUARD_H

#include "base/status.h"

#include <stdint.h>

struct mt_guard {
    const char *path;    /* the file, for messages */
    const char *library; /* "the HDF5 library" */
    int64_t limit_ms;    /* of processor time */
};

/* Fills `result`, which was zeroed. Communicates with nobody, speaks to nobody. */
typedef enum mt_status (*mt_guarded_fn)(void *context, void *result);

/* look(context, result) with 512 MiB of memory more than the process has; then result [n_byte] is
 * copied from the child, to be checked as the file itself would be. Its failure is passed on;
 * MT_ERR_INPUT when it came to no end, or to a bad one; MT_ERR_RESOURCE when there can be no
 * child. */
enum mt_status mt_guard_run(const struct mt_guard *guard, mt_guarded_fn look, void *context,
                            void *result, int64_t n_byte);

#endif
