/* Stop requests, taken by a thread of their own.
 *
 * A thread that computes must never be interrupted by a handler: generated code of oneDNN 2.6 uses
 * the stack pointer as an ordinary register, so the signal's frame lands in somebody's data
 * (measured 2026-11: heap corruption in 1 of 10 stopped runs, 2 of 3 with a 4 ms timer, none on
 * another stack). So the main thread blocks the signals, threads that it starts inherit that, and a
 * listener lives to receive them. The handler does only what a handler may: lock-free atomics,
 * write, _exit. */
#include "base/job.h"

#include "base/job_internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static const char LEFT_AT_ONCE[] =
    "moetrain: stopped at once by a second signal; nothing was saved since the last checkpoint; "
    "start it again to go on from there\n";

static atomic_int n_request;
static atomic_bool is_dump_requested;

static void on_dump_signal(int number)
{
    MT_UNUSED(number);
    atomic_store(&is_dump_requested, true);
}

static void on_stop_signal(int number)
{
    MT_UNUSED(number);
    const int saved_errno = errno;
    if (atomic_fetch_add(&n_request, 1) > 0) {
        if (mt_job_claim(MT_STOPPED) == 0) {
            const ssize_t n = write(STDERR_FILENO, LEFT_AT_ONCE, sizeof(LEFT_AT_ONCE) - 1);
            MT_UNUSED(n);
        }
        _exit(MT_STOPPED);
    }
    errno = saved_errno;
}

static void *await_signals(void *unused)
{
    MT_UNUSED(unused);
    for (;;) {
        (void)pause();
    }
    return NULL;
}

/* The listener starts with the signals open; the calling thread, and all that it starts from now
 * on, have them blocked. */
static enum mt_status leave_to_listener(void)
{
    pthread_t listener;
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGUSR1);
    (void)sigaddset(&stop, SIGTERM);
    (void)sigaddset(&stop, SIGINT);
    (void)sigaddset(&stop, SIGUSR2);
    int error = pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    if (error == 0) {
        error = pthread_create(&listener, NULL, await_signals, NULL);
    }
    if (error == 0) {
        error = pthread_detach(listener);
    }
    if (error == 0) {
        error = pthread_sigmask(SIG_BLOCK, &stop, NULL);
    }
    if (error != 0) {
        return MT_FAIL(MT_ERR_INTERNAL, "the thread for stop signals could not be started: %s",
                       strerror(error));
    }
    return MT_OK;
}

enum mt_status mt_job_signals_install(void)
{
    struct sigaction stop = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
    struct sigaction dump = {.sa_handler = on_dump_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction interrupt = {.sa_handler = SIG_DFL};
    (void)sigemptyset(&stop.sa_mask);
    (void)sigemptyset(&dump.sa_mask);
    (void)sigemptyset(&ignore.sa_mask);
    /* Shells start what runs in the background with SIGINT ignored: Ctrl-C is not meant for it. */
    (void)sigaction(SIGINT, NULL, &interrupt);
    interrupt = interrupt.sa_handler == SIG_IGN ? ignore : stop;
    /* A reader that goes away and a quota on file sizes must not kill the run: writes then fail. */
    if (sigaction(SIGUSR1, &stop, NULL) != 0 || sigaction(SIGTERM, &stop, NULL) != 0 ||
        sigaction(SIGINT, &interrupt, NULL) != 0 || sigaction(SIGUSR2, &dump, NULL) != 0 ||
        sigaction(SIGPIPE, &ignore, NULL) != 0 || sigaction(SIGXFSZ, &ignore, NULL) != 0) {
        return MT_FAIL(MT_ERR_INTERNAL, "signal handlers could not be installed: %s",
                       strerror(errno));
    }
    return leave_to_listener();
}

void mt_job_signals_finish(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigemptyset(&ignore.sa_mask);
    (void)sigaction(SIGUSR1, &ignore, NULL);
    (void)sigaction(SIGTERM, &ignore, NULL);
    (void)sigaction(SIGINT, &ignore, NULL);
    (void)sigaction(SIGUSR2, &ignore, NULL);
}

bool mt_job_stop_requested(void)
{
    return atomic_load(&n_request) > 0;
}

bool mt_job_dump_requested(void)
{
    return atomic_exchange(&is_dump_requested, false);
}
