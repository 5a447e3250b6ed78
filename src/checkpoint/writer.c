#include "checkpoint/writer.h"

#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXT_BYTES = 2048 }; /* as much of an error as ranks pass on (together.c) */

enum state {
    FREE,
    BEGUN,    /* by the owner */
    RELEASED, /* by the thread, as is what follows */
    DONE
};

struct mt_writer {
    pthread_t thread;
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t changed;
    enum state state;
    bool is_taken; /* the thread is at the task */
    bool is_stopping;
    mt_writer_fn task;
    void *context;
    enum mt_status status;
    int64_t cpu_ns;
    char text[TEXT_BYTES];
};

static void set_state(struct mt_writer *writer, enum state state)
{
    (void)pthread_mutex_lock(&writer->mutex);
    writer->state = state;
    (void)pthread_cond_broadcast(&writer->changed);
    (void)pthread_mutex_unlock(&writer->mutex);
}

static int64_t thread_cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Before DONE, which the owner waits for. */
static void keep_status(struct mt_writer *writer, enum mt_status status)
{
    writer->status = status;
    (void)snprintf(writer->text, sizeof(writer->text), "%.*s", TEXT_BYTES - 1,
                   status != MT_OK ? mt_error_last()->text : "");
}

/* Until there is a task; false when the thread is to end. */
static bool await_task(struct mt_writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    while (!writer->is_stopping && (writer->state != BEGUN || writer->is_taken)) {
        (void)pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    const bool has_task = writer->state == BEGUN && !writer->is_taken;
    writer->is_taken = true;
    (void)pthread_mutex_unlock(&writer->mutex);
    return has_task;
}

/* SCHED_BATCH while it waits for a task: being woken it does not push its owner off the core, which
 * made begin take 1 to 15 ms, not 20 us, where ranks have no core to spare. SCHED_OTHER at work: as
 * the former it waits long for a core after every wait for the disk. */
static void set_policy(int policy)
{
    const struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), policy, &none); /* a wish */
}

static void *run(void *argument)
{
    struct mt_writer *writer = argument;
    set_policy(SCHED_BATCH);
    while (await_task(writer)) {
        set_policy(SCHED_OTHER);
        const int64_t start_ns = thread_cpu_ns();
        mt_error_clear();
        const enum mt_status status = writer->task(writer->context);
        keep_status(writer, status);
        writer->cpu_ns = thread_cpu_ns() - start_ns;
        set_policy(SCHED_BATCH);
        set_state(writer, DONE);
    }
    return NULL;
}

/* Signals belong to the main thread and its listener. */
static int start_thread(struct mt_writer *writer)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&writer->thread, NULL, run, writer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

enum mt_status mt_writer_create(struct mt_writer **out)
{
    struct mt_writer *writer = NULL;
    pthread_condattr_t monotonic;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(writer, 1, "the checkpoint's writer"));
    (void)pthread_mutex_init(&writer->mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&writer->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    const int error = start_thread(writer);
    if (error != 0) {
        mt_memory_free(writer);
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the checkpoint's writer thread could not be started: %s; one more thread a "
                       "rank is needed; raise the limit (ulimit -u)",
                       strerror(error));
    }
    *out = writer;
    return MT_OK;
}

void mt_writer_destroy(struct mt_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&writer->mutex);
    writer->is_stopping = true;
    (void)pthread_cond_broadcast(&writer->changed);
    (void)pthread_mutex_unlock(&writer->mutex);
    (void)pthread_join(writer->thread, NULL);
    (void)pthread_cond_destroy(&writer->changed);
    (void)pthread_mutex_destroy(&writer->mutex);
    mt_memory_free(writer);
}

void mt_writer_begin(struct mt_writer *writer, mt_writer_fn task, void *context)
{
    (void)pthread_mutex_lock(&writer->mutex);
    MT_ASSERT(writer->state == FREE);
    writer->task = task;
    writer->context = context;
    writer->is_taken = false;
    writer->state = BEGUN;
    (void)pthread_mutex_unlock(&writer->mutex);
    (void)pthread_cond_signal(&writer->changed); /* the thread: the owner is here */
}

void mt_writer_fail(struct mt_writer *writer, enum mt_status status)
{
    MT_ASSERT(!mt_writer_has_task(writer));
    keep_status(writer, status);
    writer->cpu_ns = 0;
    mt_error_clear();
    set_state(writer, DONE);
}

void mt_writer_release(struct mt_writer *writer)
{
    set_state(writer, RELEASED);
}

void mt_writer_await_release(struct mt_writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    while (writer->state == BEGUN) {
        (void)pthread_cond_wait(&writer->changed, &writer->mutex);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
}

static enum state get_state(struct mt_writer *writer)
{
    (void)pthread_mutex_lock(&writer->mutex);
    const enum state state = writer->state;
    (void)pthread_mutex_unlock(&writer->mutex);
    return state;
}

bool mt_writer_has_task(struct mt_writer *writer)
{
    return get_state(writer) != FREE;
}

bool mt_writer_is_done(struct mt_writer *writer)
{
    return get_state(writer) == DONE;
}

bool mt_writer_has_failed(const struct mt_writer *writer)
{
    return writer->status != MT_OK;
}

void mt_writer_await_done(struct mt_writer *writer, int64_t until_ns)
{
    const struct timespec until = {.tv_sec = until_ns / 1000000000,
                                   .tv_nsec = until_ns % 1000000000};
    int error = 0;
    (void)pthread_mutex_lock(&writer->mutex);
    while ((writer->state == BEGUN || writer->state == RELEASED) && error == 0) {
        error = pthread_cond_timedwait(&writer->changed, &writer->mutex, &until);
    }
    (void)pthread_mutex_unlock(&writer->mutex);
}

enum mt_status mt_writer_end(struct mt_writer *writer, int64_t *cpu_ns)
{
    MT_ASSERT(mt_writer_is_done(writer));
    const enum mt_status status = writer->status;
    *cpu_ns = writer->cpu_ns;
    set_state(writer, FREE);
    return status == MT_OK ? MT_OK : MT_FAIL(status, "%s", writer->text);
}
