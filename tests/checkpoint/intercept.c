#include "checkpoint/intercept.h"

#include "fault/interpose.h"
#include "support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LINES = 256, LINE_BYTES = 160 };

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

/* Locked. What is to become of a write; waits while the file is held. */
static int decide(const char *path)
{
    while (has(path, calls.held)) {
        (void)pthread_cond_wait(&calls.let_go, &calls.mutex);
    }
    if (has(path, calls.failing) && calls.fail_at-- == 0) {
        return calls.fail_with;
    }
    if (has(path, calls.falsified)) {
        calls.falsified[0] = '\0';
        return MT_FAULT_LIE;
    }
    return 0;
}

static int listen(enum mt_fault_call call, const char *path)
{
    static const char *const verb[MT_N_CALL] = {[MT_CALL_WRITE] = "write",
                                                [MT_CALL_SYNC] = "sync",
                                                [MT_CALL_RENAME] = "rename",
                                                [MT_CALL_READ] = "read"};
    int verdict = 0;
    lock();
    if (below(path) != NULL && verb[call] != NULL) {
        record(verb[call], below(path));
        verdict = call == MT_CALL_WRITE ? decide(path) : 0;
    }
    unlock();
    return verdict;
}

void mt_test_intercept(const char *folder)
{
    lock();
    calls.is_on = true;
    calls.n_line = 0;
    (void)snprintf(calls.folder, sizeof(calls.folder), "%s", folder);
    calls.held[0] = calls.failing[0] = calls.falsified[0] = '\0';
    unlock();
    mt_fault_listen(listen);
}

void mt_test_intercept_end(void)
{
    mt_fault_listen(NULL);
    lock();
    calls.is_on = false;
    unlock();
}
