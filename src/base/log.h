/* The run's log: progress for people. Only rank 0 prints; everybody may call.
 *
 * On a terminal the progress line updates in place; into a file or pipe it is plain lines. The same
 * text goes to run.log when one is open. Errors do not pass here (base/job.h). */
#ifndef MT_BASE_LOG_H
#define MT_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>

/* Before the first message. `speaks`: this process prints (rank 0). quiet: nothing on the terminal,
 * run.log still complete. */
void mt_log_init(bool speaks, bool quiet);
enum mt_status mt_log_open(const char *path); /* appends to path, rank 0 only */
void mt_log_close(void);

void mt_log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line that the next one replaces when standard output is a terminal. */
void mt_log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
