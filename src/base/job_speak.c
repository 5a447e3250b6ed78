/* The form of the one message, and its way out: a single buffer, written past stdio, so that it
 * works in any thread and is not lost when the process ends at once. */
#include "base/job_internal.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/status.h"
#include "base/terminal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int64_t current_step;

void mt_job_set_step(int64_t step)
{
    atomic_store_explicit(&current_step, step, memory_order_relaxed);
}

static void write_all(const char *text, size_t n_bytes)
{
    while (n_bytes > 0) {
        const ssize_t n = write(STDERR_FILENO, text, n_bytes);
        if (n < 0 && errno != EINTR) {
            return; /* nobody listens */
        }
        if (n > 0) {
            text += n;
            n_bytes -= (size_t)n;
        }
    }
}

void mt_job_speak(bool names_rank, const char *text)
{
    char message[MT_ERROR_TEXT_BYTES + 512];
    char rank[128] = "";
    char step[32] = "";
    const int64_t number = atomic_load_explicit(&current_step, memory_order_relaxed);
    const char *phase = mt_span_current();
    if (names_rank && mt_job.size > 1) {
        (void)snprintf(rank, sizeof(rank), " rank %d (%s)", mt_job.rank, mt_job.host);
    }
    if (number > 0) {
        (void)snprintf(step, sizeof(step), " step %lld", (long long)number);
    }
    const char *place = phase != NULL ? phase : "";
    const bool has_place = rank[0] != '\0' || step[0] != '\0' || phase != NULL;
    /* On a terminal the message takes the place of the progress line that may stand there. */
    const char *clear = mt_terminal_columns(STDERR_FILENO) > 0 ? "\r\x1b[K" : "";
    const int length =
        snprintf(message, sizeof(message), "%smoetrain:%s%s%s%s%s%s\n", clear, rank, step,
                 phase != NULL ? " " : "", place, has_place ? ": " : " ", text);
    if (length > 0) {
        write_all(message, strlen(message));
    }
}

void mt_job_speak_error(bool names_rank, int code)
{
    const struct mt_error *error = mt_error_last();
    char text[MT_ERROR_TEXT_BYTES + 256];
    if (error->code == MT_OK) {
        if (code != MT_STOPPED) {
            (void)snprintf(text, sizeof(text),
                           "failed with code %d, but no reason was recorded; please report this "
                           "with what came before",
                           code);
            mt_job_speak(names_rank, text);
        }
        return;
    }
    if (error->code == MT_ERR_INTERNAL && error->file != NULL) {
        const char *source = strstr(error->file, "src/");
        (void)snprintf(text, sizeof(text), "%s (%s:%d)", error->text,
                       source != NULL ? source : error->file, error->line);
        mt_job_speak(names_rank, text);
        return;
    }
    mt_job_speak(names_rank, error->text);
}
