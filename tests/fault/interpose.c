/* The replaced calls go straight to the kernel, so that nothing here depends on how the library
 * they replace would have been found. */
#include "fault/interpose.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static struct {
    struct mt_fault *fault; /* NULL: nothing is watched */
    int rank;
    int record; /* descriptor; -1: not open yet */
    char file[MT_FAULT_PATH_BYTES];
} here = {.record = -1};

static _Atomic(mt_fault_listener_fn) listener;

void mt_fault_listen(mt_fault_listener_fn function)
{
    atomic_store(&listener, function);
}

static bool is_nobody_there(void)
{
    return here.fault == NULL && atomic_load(&listener) == NULL;
}

static int tell_listener(enum mt_fault_call call, const char *path)
{
    const mt_fault_listener_fn function = atomic_load(&listener);
    return function != NULL ? function(call, path) : 0;
}

/* What a replaced call is about to do. */
struct call {
    enum mt_fault_call kind;
    const char *path, *path_to; /* absolute; path_to: of a rename or link */
    const void *data;           /* of a write */
    int64_t n_byte, offset;
    bool creates, is_folder;
};

struct mt_fault *mt_fault_open(const char *file, int rank)
{
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || rank < 0 || rank >= MT_FAULT_MAX_RANKS ||
        syscall(SYS_ftruncate, fd, (long)sizeof(struct mt_fault)) != 0) {
        return NULL;
    }
    void *memory = mmap(NULL, sizeof(struct mt_fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)syscall(SYS_close, fd);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    (void)snprintf(here.file, sizeof(here.file), "%s", file);
    if (here.record >= 0) {
        (void)syscall(SYS_close, here.record);
    }
    here.record = -1;
    here.rank = rank;
    here.fault = memory;
    return here.fault;
}

void mt_fault_order(struct mt_fault *fault, int64_t rank, int64_t at, int64_t n_fault,
                    int64_t action)
{
    atomic_store(&fault->at, 0); /* nothing suffers while the order is incomplete */
    for (int r = 0; r < MT_FAULT_MAX_RANKS; ++r) {
        atomic_store(&fault->n_call[r], 0);
    }
    atomic_store(&fault->n_hit, 0);
    atomic_store(&fault->rank, rank);
    atomic_store(&fault->n_fault, n_fault);
    atomic_store(&fault->action, action);
    atomic_store(&fault->at, at);
}

void mt_fault_watch(struct mt_fault *fault, const char *prefix)
{
    (void)snprintf(fault->prefix, sizeof(fault->prefix), "%s", prefix);
}

/* Under LD_PRELOAD: mpirun tells each process its rank. */
__attribute__((constructor)) static void open_from_environment(void)
{
    const char *file = getenv("MT_FAULT");
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (file != NULL) {
        (void)mt_fault_open(file, rank != NULL ? (int)strtol(rank, NULL, 10) : 0);
    }
}

/* ---- which calls, and what happens to them ---- */

static bool is_watched(const char *path)
{
    const size_t length = here.fault != NULL ? strlen(here.fault->prefix) : 0;
    return length > 0 && strncmp(path, here.fault->prefix, length) == 0;
}

/* Path of a descriptor; "" for what has none. path [MT_FAULT_PATH_BYTES] */
static void path_of_descriptor(int fd, char *path)
{
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const long n = syscall(SYS_readlink, link, path, (long)MT_FAULT_PATH_BYTES - 1);
    path[n > 0 && path[0] == '/' ? n : 0] = '\0';
}

static void absolute_path(const char *given, char *path)
{
    path[0] = '\0';
    if (given[0] != '/' && syscall(SYS_getcwd, path, (long)MT_FAULT_PATH_BYTES) < 0) {
        path[0] = '\0';
    }
    const size_t used = strlen(path);
    (void)snprintf(path + used, MT_FAULT_PATH_BYTES - used, "%s%s", used > 0 ? "/" : "", given);
}

static void record(const struct call *call)
{
    struct mt_fault_record head = {.sequence = atomic_fetch_add(&here.fault->sequence, 1),
                                   .rank = here.rank,
                                   .call = call->kind,
                                   .offset = call->offset,
                                   .creates = call->creates,
                                   .is_folder = call->is_folder,
                                   .path_bytes = (int64_t)strlen(call->path),
                                   .path_to_bytes =
                                       call->path_to != NULL ? (int64_t)strlen(call->path_to) : 0,
                                   .n_byte = call->data != NULL ? call->n_byte : 0};
    if (here.record < 0) {
        char name[MT_FAULT_PATH_BYTES + 16];
        (void)snprintf(name, sizeof(name), "%s.%d", here.file, here.rank);
        here.record = (int)syscall(SYS_openat, AT_FDCWD, name,
                                   O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    const struct iovec part[] = {{&head, sizeof(head)},
                                 {(void *)(uintptr_t)call->path, (size_t)head.path_bytes},
                                 {(void *)(uintptr_t)call->path_to, (size_t)head.path_to_bytes},
                                 {(void *)(uintptr_t)call->data, (size_t)head.n_byte}};
    const int64_t want = (int64_t)sizeof(head) + head.path_bytes + head.path_to_bytes + head.n_byte;
    if (syscall(SYS_writev, here.record, part, 4L) != want) {
        abort(); /* a record with a gap would prove nothing */
    }
}

static void die(void) __attribute__((noreturn));
static void die(void)
{
    (void)syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) {
        (void)pause();
    }
}

/* 0: the call is made; > 0: it fails with that errno; MT_FAULT_SHORT, MT_FAULT_TEAR: of a write,
 * half is made. */
static int judge(const struct call *call)
{
    struct mt_fault *fault = here.fault;
    const int64_t number = atomic_fetch_add(&fault->n_call[here.rank], 1) + 1;
    const int64_t at = atomic_load(&fault->at);
    const int64_t rank = atomic_load(&fault->rank);
    if (at == 0 || number < at || number - at >= atomic_load(&fault->n_fault) ||
        (rank >= 0 && rank != here.rank)) {
        return 0;
    }
    const int action = (int)atomic_load(&fault->action);
    const bool is_write = call->kind == MT_CALL_WRITE && call->n_byte > 1;
    (void)atomic_fetch_add(&fault->n_hit, 1);
    if (action == MT_FAULT_KILL || (action == MT_FAULT_TEAR && !is_write)) {
        die();
    }
    if (action < MT_FAULT_SIGNAL) {
        (void)syscall(SYS_kill, getpid(), MT_FAULT_SIGNAL - action);
        return 0;
    }
    return action == MT_FAULT_SHORT && !is_write ? 0 : action;
}

/* As judge, for all calls but writes. */
static int meet(const struct call *call)
{
    const int said = tell_listener(call->kind, call->path);
    if (said != 0 || !is_watched(call->path)) {
        return said > 0 ? said : 0;
    }
    const int verdict = judge(call);
    if (verdict == 0 && atomic_load(&here.fault->records) != 0) {
        record(call);
    }
    return verdict > 0 ? verdict : 0;
}

static int meet_descriptor(enum mt_fault_call kind, int fd, int64_t size)
{
    char path[MT_FAULT_PATH_BYTES];
    struct stat about;
    if (is_nobody_there()) {
        return 0;
    }
    path_of_descriptor(fd, path);
    const bool is_folder = fstat(fd, &about) == 0 && S_ISDIR(about.st_mode);
    const struct call call = {.kind = kind, .path = path, .offset = size, .is_folder = is_folder};
    return meet(&call);
}

static int meet_path(enum mt_fault_call kind, const char *given, const char *given_to, bool creates,
                     bool is_folder)
{
    char path[MT_FAULT_PATH_BYTES];
    char path_to[MT_FAULT_PATH_BYTES];
    if (is_nobody_there()) {
        return 0;
    }
    absolute_path(given, path);
    if (given_to != NULL) {
        absolute_path(given_to, path_to);
    }
    const struct call call = {.kind = kind,
                              .path = path,
                              .path_to = given_to != NULL ? path_to : NULL,
                              .creates = creates,
                              .is_folder = is_folder};
    return meet(&call);
}

/* What a replaced call returns: the error, or what the kernel says. */
#define MT_MEET_OR_FAIL(verdict)        \
    do {                                \
        const int problem_ = (verdict); \
        if (problem_ != 0) {            \
            errno = problem_;           \
            return -1;                  \
        }                               \
    } while (0)

/* ---- writes ---- */

static ssize_t write_at(int fd, const void *data, size_t n, int64_t offset)
{
    return offset < 0 ? syscall(SYS_write, fd, data, n)
                      : syscall(SYS_pwrite64, fd, data, n, (long)offset);
}

static ssize_t write_falsified(int fd, const void *data, size_t n, int64_t offset)
{
    char first = 0;
    memcpy(&first, data, 1);
    first = (char)(first ^ 1);
    return write_at(fd, &first, n > 0 ? 1 : 0, offset);
}

/* offset < 0: at the file's own position. */
static ssize_t meet_write(int fd, const void *data, size_t n, int64_t offset)
{
    char path[MT_FAULT_PATH_BYTES];
    if (is_nobody_there()) {
        return write_at(fd, data, n, offset);
    }
    path_of_descriptor(fd, path);
    const int said = tell_listener(MT_CALL_WRITE, path);
    MT_MEET_OR_FAIL(said > 0 ? said : 0);
    if (said == MT_FAULT_LIE) {
        return write_falsified(fd, data, n, offset);
    }
    if (!is_watched(path)) {
        return write_at(fd, data, n, offset);
    }
    struct call call = {.kind = MT_CALL_WRITE,
                        .path = path,
                        .data = data,
                        .n_byte = (int64_t)n,
                        .offset = offset < 0 ? syscall(SYS_lseek, fd, 0L, SEEK_CUR) : offset};
    const int verdict = judge(&call);
    MT_MEET_OR_FAIL(verdict > 0 ? verdict : 0);
    if (verdict != 0) {
        call.n_byte /= 2;
    }
    if (atomic_load(&here.fault->records) != 0) {
        record(&call);
    }
    const ssize_t written = write_at(fd, data, (size_t)call.n_byte, offset);
    if (verdict == MT_FAULT_TEAR) {
        die();
    }
    return written;
}

ssize_t write(int fd, const void *data, size_t n)
{
    return meet_write(fd, data, n, -1);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
    return meet_write(fd, data, n, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset)
{
    return meet_write(fd, data, n, offset);
}

/* One call of the bytes of all parts. */
static ssize_t meet_writev(int fd, const struct iovec *part, int n_part, int64_t offset)
{
    size_t n_byte = 0;
    for (int i = 0; i < n_part; ++i) {
        n_byte += part[i].iov_len;
    }
    char *all = malloc(n_byte + 1);
    if (all == NULL) {
        abort();
    }
    n_byte = 0;
    for (int i = 0; i < n_part; ++i) {
        memcpy(all + n_byte, part[i].iov_base, part[i].iov_len);
        n_byte += part[i].iov_len;
    }
    const ssize_t written = meet_write(fd, all, n_byte, offset);
    free(all);
    return written;
}

ssize_t writev(int fd, const struct iovec *part, int n_part)
{
    return meet_writev(fd, part, n_part, -1);
}

ssize_t pwritev(int fd, const struct iovec *part, int n_part, off_t offset)
{
    return meet_writev(fd, part, n_part, offset);
}

ssize_t pwritev64(int fd, const struct iovec *part, int n_part, off64_t offset)
{
    return meet_writev(fd, part, n_part, offset);
}

/* ---- the other calls on descriptors ---- */

ssize_t read(int fd, void *data, size_t n)
{
    if (atomic_load(&listener) != NULL) {
        char path[MT_FAULT_PATH_BYTES];
        path_of_descriptor(fd, path);
        const int said = tell_listener(MT_CALL_READ, path);
        MT_MEET_OR_FAIL(said > 0 ? said : 0);
    }
    return syscall(SYS_read, fd, data, n);
}

int ftruncate(int fd, off_t size)
{
    MT_MEET_OR_FAIL(meet_descriptor(MT_CALL_TRUNCATE, fd, size));
    return (int)syscall(SYS_ftruncate, fd, (long)size);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    MT_MEET_OR_FAIL(meet_descriptor(MT_CALL_ALLOCATE, fd, offset + size));
    return (int)syscall(SYS_fallocate, fd, (long)mode, (long)offset, (long)size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return fallocate(fd, 0, offset, size) == 0 ? 0 : errno;
}

int fsync(int fd)
{
    MT_MEET_OR_FAIL(meet_descriptor(MT_CALL_SYNC, fd, 0));
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    MT_MEET_OR_FAIL(meet_descriptor(MT_CALL_SYNC, fd, 0));
    return (int)syscall(SYS_fdatasync, fd);
}

/* A close that fails has closed all the same. */
int close(int fd)
{
    const int verdict = meet_descriptor(MT_CALL_CLOSE, fd, 0);
    const int result = (int)syscall(SYS_close, fd);
    MT_MEET_OR_FAIL(verdict);
    return result;
}

/* ---- calls on paths ---- */

static int open_path(int folder, const char *path, int flags, mode_t mode)
{
    const bool creates = (flags & O_CREAT) != 0;
    const bool is_folder = (flags & O_DIRECTORY) != 0;
    if (creates || is_folder || (flags & O_ACCMODE) != O_RDONLY) {
        MT_MEET_OR_FAIL(meet_path(MT_CALL_OPEN, path, NULL, creates, is_folder));
    }
    return (int)syscall(SYS_openat, folder, path, (long)flags, (long)mode);
}

static mode_t mode_argument(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

#define MT_REPLACE_OPEN(name)                                \
    int name(const char *path, int flags, ...)               \
    {                                                        \
        va_list arguments;                                   \
        va_start(arguments, flags);                          \
        const mode_t mode = mode_argument(flags, arguments); \
        va_end(arguments);                                   \
        return open_path(AT_FDCWD, path, flags, mode);       \
    }

MT_REPLACE_OPEN(open)
MT_REPLACE_OPEN(open64)

#define MT_REPLACE_OPENAT(name)                              \
    int name(int folder, const char *path, int flags, ...)   \
    {                                                        \
        va_list arguments;                                   \
        va_start(arguments, flags);                          \
        const mode_t mode = mode_argument(flags, arguments); \
        va_end(arguments);                                   \
        return open_path(folder, path, flags, mode);         \
    }

MT_REPLACE_OPENAT(openat)
MT_REPLACE_OPENAT(openat64)

/* What libraries call that were compiled with the checks of _FORTIFY_SOURCE. */
int mt_open_checked(const char *path, int flags) __asm__("__open64_2");
int mt_open_checked(const char *path, int flags)
{
    return open_path(AT_FDCWD, path, flags, 0);
}

int rename(const char *from, const char *to)
{
    MT_MEET_OR_FAIL(meet_path(MT_CALL_RENAME, from, to, false, false));
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0L);
}

int link(const char *from, const char *to)
{
    MT_MEET_OR_FAIL(meet_path(MT_CALL_LINK, from, to, true, false));
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0L);
}

int unlink(const char *path)
{
    MT_MEET_OR_FAIL(meet_path(MT_CALL_REMOVE, path, NULL, false, false));
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0L);
}

int rmdir(const char *path)
{
    MT_MEET_OR_FAIL(meet_path(MT_CALL_REMOVE, path, NULL, false, true));
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, (long)AT_REMOVEDIR);
}

int remove(const char *path)
{
    struct stat about;
    return lstat(path, &about) == 0 && S_ISDIR(about.st_mode) ? rmdir(path) : unlink(path);
}

int mkdir(const char *path, mode_t mode)
{
    MT_MEET_OR_FAIL(meet_path(MT_CALL_MKDIR, path, NULL, true, true));
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, (long)mode);
}
