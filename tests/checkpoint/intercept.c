#include "checkpoint/intercept.h"

#include "support/test.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINES = 256, LINE_BYTES = 160, MAX_BYTES = 1 << 16 };

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t let_go;
    bool is_on;
    char folder[1024];
    int n_line;
    char line[MAX_LINES][LINE_BYTES];
    char held[64], failing[64], falsified[64];
    int64_t fail_at;
    int fail_with;
} calls = {.mutex = PTHREAD_MUTEX_INITIALIZER, .let_go = PTHREAD_COND_INITIALIZER};

static void lock(void)
{
    (void)pthread_mutex_lock(&calls.mutex);
}

static void unlock(void)
{
    (void)pthread_mutex_unlock(&calls.mutex);
}

void mt_test_intercept(const char *folder)
{
    lock();
    calls.is_on = true;
    calls.n_line = 0;
    (void)snprintf(calls.folder, sizeof(calls.folder), "%s", folder);
    calls.held[0] = calls.failing[0] = calls.falsified[0] = '\0';
    unlock();
}

void mt_test_intercept_end(void)
{
    lock();
    calls.is_on = false;
    unlock();
}

int mt_test_intercept_count(void)
{
    lock();
    const int n = calls.n_line;
    unlock();
    return n;
}

const char *mt_test_intercept_line(int index)
{
    assert_in_range(index, 0, mt_test_intercept_count() - 1);
    return calls.line[index];
}

int mt_test_intercept_find(const char *line, int from)
{
    int found = -1;
    for (int i = from; i < mt_test_intercept_count() && found < 0; ++i) {
        found = strcmp(calls.line[i], line) == 0 ? i : -1;
    }
    return found;
}

void mt_test_intercept_hold(const char *name)
{
    lock();
    (void)snprintf(calls.held, sizeof(calls.held), "%s", name);
    (void)pthread_cond_broadcast(&calls.let_go);
    unlock();
}

void mt_test_intercept_fail(const char *name, int64_t k, int error)
{
    lock();
    (void)snprintf(calls.failing, sizeof(calls.failing), "%s", name);
    calls.fail_at = k;
    calls.fail_with = error;
    unlock();
}

void mt_test_intercept_falsify(const char *name)
{
    lock();
    (void)snprintf(calls.falsified, sizeof(calls.falsified), "%s", name);
    unlock();
}

static bool has(const char *path, const char *name)
{
    return name[0] != '\0' && strstr(path, name) != NULL;
}

/* Locked. The path below the folder; NULL: not there. */
static const char *below(const char *path)
{
    const size_t length = strlen(calls.folder);
    if (!calls.is_on || strncmp(path, calls.folder, length) != 0) {
        return NULL;
    }
    return path[length] == '/' ? path + length + 1 : ".";
}

/* Locked. */
static void record(const char *what, const char *path)
{
    char line[LINE_BYTES];
    (void)snprintf(line, sizeof(line), "%s %.120s", what, path);
    const bool is_again = calls.n_line > 0 && strcmp(calls.line[calls.n_line - 1], line) == 0;
    if (!is_again && calls.n_line < MAX_LINES) {
        (void)snprintf(calls.line[calls.n_line++], LINE_BYTES, "%s", line);
    }
}

/* Of an open file, path [1024]. */
static void path_of(int descriptor, char *path)
{
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
    const ssize_t n = readlink(link, path, 1023);
    path[n > 0 ? n : 0] = '\0';
}

/* The C library's own function: POSIX lets an object pointer hold it, ISO C lets none be cast. */
static void find_next(void *function, const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    memcpy(function, &symbol, sizeof(symbol));
}

typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);

static ssize_t write_falsified(pwrite_fn next, int descriptor, const void *data, size_t n,
                               off_t offset)
{
    char copy[MAX_BYTES];
    const size_t n_copy = n < sizeof(copy) ? n : sizeof(copy);
    memcpy(copy, data, n_copy);
    copy[0] = (char)(copy[0] ^ 1);
    return next(descriptor, copy, n_copy, offset);
}

/* What is to become of a write; waits while the file is held. */
enum fate { GOES, FAILS, LIES };
static enum fate decide(int descriptor)
{
    char path[1024];
    enum fate fate = GOES;
    path_of(descriptor, path);
    lock();
    if (below(path) != NULL) {
        record("write", below(path));
        while (has(path, calls.held)) {
            (void)pthread_cond_wait(&calls.let_go, &calls.mutex);
        }
        if (has(path, calls.failing) && calls.fail_at-- == 0) {
            fate = FAILS;
        } else if (has(path, calls.falsified)) {
            calls.falsified[0] = '\0';
            fate = LIES;
        }
    }
    unlock();
    return fate;
}

ssize_t pwrite(int descriptor, const void *data, size_t n, off_t offset)
{
    pwrite_fn next = NULL;
    find_next(&next, "pwrite");
    const enum fate fate = decide(descriptor);
    if (fate == FAILS) {
        errno = calls.fail_with;
        return -1;
    }
    return fate == LIES ? write_falsified(next, descriptor, data, n, offset)
                        : next(descriptor, data, n, offset);
}

int fsync(int descriptor)
{
    int (*next)(int) = NULL;
    char path[1024];
    find_next(&next, "fsync");
    path_of(descriptor, path);
    lock();
    if (below(path) != NULL) {
        record("sync", below(path));
    }
    unlock();
    return next(descriptor);
}

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = NULL;
    find_next(&next, "rename");
    lock();
    if (below(from) != NULL) {
        record("rename", below(from));
    }
    unlock();
    return next(from, to);
}

ssize_t read(int descriptor, void *data, size_t n)
{
    ssize_t (*next)(int, void *, size_t) = NULL;
    char path[1024];
    find_next(&next, "read");
    path_of(descriptor, path);
    lock();
    if (below(path) != NULL) {
        record("read", below(path));
    }
    unlock();
    return next(descriptor, data, n);
}
