/* A progress line on a terminal is written over by what follows: "\r", text, clear to the end of
 * the line, no newline. */
#include "base/log.h"

#include "base/outlet.h"
#include "base/size.h"
#include "base/terminal.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
    pthread_mutex_t mutex;
    bool speaks;
    bool is_quiet;
    int n_column;      /* of the terminal; 0: standard output is none */
    bool is_line_open; /* a progress line stands on the terminal */
    FILE *file;        /* run.log, or NULL */
} log_state = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void mt_log_init(bool speaks, bool quiet)
{
    (void)pthread_mutex_lock(&log_state.mutex);
    log_state.speaks = speaks;
    log_state.is_quiet = quiet;
    log_state.n_column = speaks && !quiet ? mt_terminal_columns(STDOUT_FILENO) : 0;
    mt_outlet_open();
    (void)pthread_mutex_unlock(&log_state.mutex);
}

enum mt_status mt_log_open(const char *path)
{
    mt_log_close();
    if (!log_state.speaks) {
        return MT_OK;
    }
    FILE *file = fopen(path, "ae");
    if (file == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "%s cannot be written: %s; the run directory must be writable; choose "
                       "another with --run-dir",
                       path, strerror(errno));
    }
    (void)pthread_mutex_lock(&log_state.mutex);
    log_state.file = file;
    (void)pthread_mutex_unlock(&log_state.mutex);
    return MT_OK;
}

/* Ends an open progress line, so that what comes next starts on a line of its own. */
static void leave_line(void)
{
    if (log_state.is_line_open) {
        mt_outlet_write("\n", 1);
        log_state.is_line_open = false;
    }
}

void mt_log_close(void)
{
    (void)pthread_mutex_lock(&log_state.mutex);
    leave_line();
    if (log_state.file != NULL) {
        (void)fclose(log_state.file);
        log_state.file = NULL;
    }
    (void)pthread_mutex_unlock(&log_state.mutex);
}

static void print_to_file(const char *format, va_list arguments)
{
    if (log_state.file != NULL) {
        (void)vfprintf(log_state.file, format, arguments);
        (void)fputc('\n', log_state.file);
        (void)fflush(log_state.file);
    }
}

enum { ROW_BYTES = 1024, LINE_BYTES = 8192 };

/* One terminal row of text: a longer one would wrap, and "\r" could not take it back. */
static void print_row(const char *format, va_list arguments)
{
    char row[ROW_BYTES];
    char line[ROW_BYTES + 8];
    (void)vsnprintf(row, sizeof(row), format, arguments);
    row[strcspn(row, "\n")] = '\0';
    const int n = (int)mt_min_i64(log_state.n_column - 1, (int64_t)strlen(row));
    const int length = snprintf(line, sizeof(line), "\r%.*s\x1b[K", n, row);
    mt_outlet_write(line, (size_t)length);
    log_state.is_line_open = true;
}

/* A line of its own, in place of a progress line that stands there. */
static void print_line(const char *format, va_list arguments)
{
    char line[LINE_BYTES + 8];
    size_t used = 0;
    if (log_state.is_line_open) {
        used = (size_t)snprintf(line, sizeof(line), "\r\x1b[K");
        log_state.is_line_open = false;
    }
    const int length = vsnprintf(line + used, LINE_BYTES, format, arguments);
    used += (size_t)mt_min_i64(length > 0 ? length : 0, LINE_BYTES - 1);
    line[used++] = '\n';
    mt_outlet_write(line, used);
}

static void print(bool is_progress, const char *format, va_list arguments)
{
    if (!log_state.speaks) {
        return;
    }
    va_list again;
    va_copy(again, arguments);
    (void)pthread_mutex_lock(&log_state.mutex);
    print_to_file(format, again);
    va_end(again);
    if (!log_state.is_quiet) {
        if (is_progress && log_state.n_column > 1) {
            print_row(format, arguments);
        } else {
            print_line(format, arguments);
        }
    }
    (void)pthread_mutex_unlock(&log_state.mutex);
}

void mt_log_line(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print(false, format, arguments);
    va_end(arguments);
}

void mt_log_progress(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print(true, format, arguments);
    va_end(arguments);
}
