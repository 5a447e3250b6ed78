#include "base/job_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WALL_S = 120, /* whatever it waits for */
    MAX_MEMORY_BYTES = 512 << 20
};

/* What both processes see. */
struct shared {
    bool is_over;
    enum mt_status status;
    char text[MT_ERROR_TEXT_BYTES];
    int64_t result[];
};

/* What the program, or a test, does at the end of its own process is not for this one. */
static void die_by_default(void)
{
    static const int deadly[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,
                                 SIGABRT, SIGPROF, SIGALRM, SIGXFSZ};
    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); ++i) {
        (void)signal(deadly[i], SIG_DFL);
    }
}

static void limit_time(int64_t ms)
{
    const struct itimerval limit = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
    (void)setitimer(ITIMER_PROF, &limit, NULL);
    (void)alarm(WALL_S);
}

/* Beyond what the process has, which under a sanitizer are terabytes of address space. */
static void limit_memory(void)
{
    long n_page = 0;
    struct rlimit limit;
    FILE *file = fopen("/proc/self/statm", "r");
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's own number */
    if (file == NULL || fscanf(file, "%ld", &n_page) != 1 || getrlimit(RLIMIT_AS, &limit) != 0) {
        n_page = 0;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    const rlim_t most = (rlim_t)n_page * (rlim_t)sysconf(_SC_PAGESIZE) + MAX_MEMORY_BYTES;
    if (n_page > 0 && (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > most)) {
        limit.rlim_cur = most;
        (void)setrlimit(RLIMIT_AS, &limit);
    }
}

/* Dies with its parent, leaves no core, and says nothing of how it dies. */
static void be_quiet(void)
{
    const struct rlimit none = {0, 0};
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &none);
    if (nowhere >= 0) {
        (void)dup2(nowhere, STDOUT_FILENO);
        (void)dup2(nowhere, STDERR_FILENO);
    }
}

static void look_and_exit(struct shared *shared, int64_t limit_ms, mt_guarded_fn look,
                          void *context)
{
    die_by_default();
    be_quiet();
    limit_time(limit_ms);
    limit_memory();
    shared->status = look(context, shared->result);
    memcpy(shared->text, mt_error_last()->text, sizeof(shared->text));
    shared->is_over = true;
    _exit(0);
}

static enum mt_status fail_child(const struct mt_guard *guard, const char *what, int error)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "%s: cannot %s to look at it: %s; memory and a process were expected; free some",
                   guard->path, what, strerror(error));
}

/* Of a child that is gone, and whose memory the library may have written anything to. */
static enum mt_status judge(const struct mt_guard *guard, const struct shared *shared, int how)
{
    const int number = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    if (!shared->is_over) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s: %s %s (signal %d); a file that was written in good faith was expected; "
                       "do not use this one",
                       guard->path, guard->library,
                       number == SIGPROF || number == SIGALRM ? "comes to no end in it"
                                                              : "fails in it",
                       number);
    }
    if (shared->status == MT_OK) {
        return MT_OK;
    }
    const bool is_usual = shared->status == MT_ERR_RESOURCE || shared->status == MT_ERR_INTERNAL;
    return MT_FAIL(is_usual ? shared->status : MT_ERR_INPUT, "%.*s", (int)sizeof(shared->text) - 1,
                   shared->text);
}

static enum mt_status run(const struct mt_guard *guard, struct shared *shared, mt_guarded_fn look,
                          void *context)
{
    int how = 0;
    const pid_t child = fork();
    if (child < 0) {
        return fail_child(guard, "make a process", errno);
    }
    if (child == 0) {
        look_and_exit(shared, guard->limit_ms, look, context);
    }
    while (waitpid(child, &how, 0) != child) {
        if (errno != EINTR) {
            return fail_child(guard, "wait for the process", errno);
        }
    }
    return judge(guard, shared, how);
}

enum mt_status mt_guard_run(const struct mt_guard *guard, mt_guarded_fn look, void *context,
                            void *result, int64_t n_byte)
{
    const size_t n_shared = sizeof(struct shared) + (size_t)n_byte;
    struct shared *shared =
        mmap(NULL, n_shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        return fail_child(guard, "share memory", errno);
    }
    const enum mt_status status = run(guard, shared, look, context);
    if (status == MT_OK && n_byte > 0) {
        memcpy(result, shared->result, (size_t)n_byte);
    }
    (void)munmap(shared, n_shared);
    return status;
}
