/* A thread that looks ten times a second whether this rank has been waiting in one collective for
 * too long. It shares with the main thread only the atomics below, calls no MPI, and ends the
 * process by _exit, since a stuck MPI library can be neither asked nor finalised. */
#include "base/job.h"

#include "base/clock.h"
#include "base/job_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int64_t PERIOD_NS = 100000000;
/* A pause of this length between two looks means that this process was itself stopped (Ctrl-Z, a
 * debugger, a suspended machine): that time is not the collective's. */
static const int64_t SUSPENDED_NS = 2000000000;
static const int64_t STAGGER_NS = 20000000;
/* The first rank that goes makes the launcher kill the others: each stays as long as the others may
 * need to find out, and to write their last words. */
static const int64_t LINGER_NS = 1000000000;

static struct {
    _Atomic(const char *) collective;
    _Atomic int64_t number;
    _Atomic int64_t since_ns; /* 0: not waiting */
} watch;

static struct {
    bool is_running;
    bool is_stopping; /* under the mutex */
    int64_t deadline_s;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} dog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void mt_job_watch_begin(const char *collective, int64_t number)
{
    atomic_store_explicit(&watch.collective, collective, memory_order_relaxed);
    atomic_store_explicit(&watch.number, number, memory_order_relaxed);
    if (number > 0) {
        mt_job_show_collective(number);
    }
    atomic_store_explicit(&watch.since_ns, mt_clock_ns(), memory_order_release);
}

void mt_job_watch_end(void)
{
    atomic_store_explicit(&watch.since_ns, 0, memory_order_release);
}

static void leave(int code) __attribute__((noreturn));
static void leave(int code)
{
    mt_job_speak_last_words();
    mt_clock_sleep_until_ns(mt_clock_ns() + LINGER_NS);
    _exit(code);
}

static void bark(void) __attribute__((noreturn));
static void bark(void)
{
    const char *collective = atomic_load_explicit(&watch.collective, memory_order_relaxed);
    const int64_t number = atomic_load_explicit(&watch.number, memory_order_relaxed);
    const int winner = mt_job_claim(MT_ERR_TIMEOUT);
    if (winner != 0) {
        leave(winner); /* another rank speaks */
    }
    char name[128];
    if (number > 0) {
        (void)snprintf(name, sizeof(name), "collective %lld (%s)", (long long)number, collective);
    } else {
        (void)snprintf(name, sizeof(name), "%s", collective);
    }
    char missing[128];
    char text[512];
    mt_job_find_missing(number, missing, sizeof(missing));
    (void)snprintf(text, sizeof(text),
                   "%s did not complete within %lld s; every rank must reach it; %s: look at that "
                   "rank, then start again",
                   name, (long long)dog.deadline_s,
                   missing[0] != '\0'
                       ? missing
                       : "no rank of this machine has stopped, so one of another machine has, or "
                         "one that is there waits for something else, e.g. its disk");
    mt_job_speak(true, text);
    leave(MT_ERR_TIMEOUT);
}

/* Sleeps one period; false when asked to stop. */
static bool sleep_period(void)
{
    struct timespec until;
    const int64_t until_ns = mt_clock_ns() + PERIOD_NS;
    until.tv_sec = until_ns / 1000000000;
    until.tv_nsec = until_ns % 1000000000;
    (void)pthread_mutex_lock(&dog.mutex);
    int rc = 0;
    while (!dog.is_stopping && rc == 0) {
        rc = pthread_cond_timedwait(&dog.wake, &dog.mutex, &until);
    }
    const bool goes_on = !dog.is_stopping;
    (void)pthread_mutex_unlock(&dog.mutex);
    return goes_on;
}

static void *run_dog(void *unused)
{
    MT_UNUSED(unused);
    const int64_t limit_ns = dog.deadline_s * 1000000000 + mt_job.rank * STAGGER_NS;
    int64_t looked_ns = mt_clock_ns();
    int64_t since_ns = 0;
    int64_t suspended_ns = 0; /* part of the present wait */
    while (sleep_period()) {
        mt_job_show_life();
        const int64_t now_ns = mt_clock_ns();
        const int64_t gap_ns = now_ns - looked_ns;
        const int64_t seen_ns = atomic_load_explicit(&watch.since_ns, memory_order_acquire);
        if (seen_ns != since_ns) {
            since_ns = seen_ns;
            suspended_ns = 0;
        }
        if (gap_ns > SUSPENDED_NS) {
            suspended_ns += gap_ns;
        }
        looked_ns = now_ns;
        if (since_ns != 0 && now_ns - since_ns - suspended_ns > limit_ns) {
            bark();
        }
    }
    return NULL;
}

enum mt_status mt_job_watchdog_start(int64_t deadline_s)
{
    MT_ASSERT(deadline_s >= 0 && deadline_s <= INT64_MAX / 2000000000 && !dog.is_running);
    if (deadline_s == 0) {
        return MT_OK;
    }
    dog.deadline_s = deadline_s;
    dog.is_stopping = false;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&dog.wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    /* Signals belong to the main thread. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&dog.thread, NULL, run_dog, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the watchdog thread could not be started: %s; one more thread a rank is "
                       "needed; raise the limit (ulimit -u)",
                       strerror(rc));
    }
    dog.is_running = true;
    return MT_OK;
}

void mt_job_watchdog_stop(void)
{
    if (!dog.is_running) {
        return;
    }
    (void)pthread_mutex_lock(&dog.mutex);
    dog.is_stopping = true;
    (void)pthread_cond_signal(&dog.wake);
    (void)pthread_mutex_unlock(&dog.mutex);
    (void)pthread_join(dog.thread, NULL);
    (void)pthread_cond_destroy(&dog.wake);
    dog.is_running = false;
}
