#include "checkpoint/disk.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/checksum.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHECKSUM_BYTES = 128 << 10, /* on the stack */
    MAX_CALL_BYTES = 1 << 30    /* of a read: Linux moves at most 2^31 - 4096 bytes */
};

enum mt_status mt_disk_join(char *path, const char *folder, const char *name)
{
    const int n = snprintf(path, MT_PATH_BYTES, "%s/%s", folder, name);
    if (n < 0 || n >= MT_PATH_BYTES) {
        return MT_FAIL(
            MT_ERR_INPUT,
            "the path %.64s.../%s is too long; paths below %d bytes were expected; use a "
            "shorter run directory",
            folder, name, MT_PATH_BYTES);
    }
    return MT_OK;
}

static enum mt_status fail_write(const char *what, const char *path)
{
    return MT_FAIL(
        MT_ERR_RESOURCE,
        "cannot %s %s: %s; room and the permission to write there were expected; provide "
        "them and start again: what was complete is kept",
        what, path, strerror(errno));
}

static enum mt_status fail_read(const char *what, const char *path)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "cannot %s %s: %s; a readable checkpoint was expected; check the path, its "
                   "permissions and the disk",
                   what, path, strerror(errno));
}

/* A new folder outlives a power cut only when its parent was synced. */
static enum mt_status sync_parent(const char *path)
{
    char parent[MT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return mt_disk_sync_folder(".");
    }
    const size_t length = slash == path ? 1 : (size_t)(slash - path);
    memcpy(parent, path, length);
    parent[length] = '\0';
    return mt_disk_sync_folder(parent);
}

static enum mt_status make_one_folder(const char *path)
{
    if (mkdir(path, 0777) == 0) {
        return sync_parent(path);
    }
    return errno == EEXIST ? MT_OK : fail_write("make the folder", path);
}

enum mt_status mt_disk_make_folder(const char *path)
{
    char part[MT_PATH_BYTES];
    const size_t length = strlen(path);
    MT_ASSERT(length < sizeof(part));
    enum mt_status status = MT_OK;
    for (size_t i = 1; i <= length && status == MT_OK; ++i) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            status = make_one_folder(part);
        }
    }
    MT_TRY(status);
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISDIR(about.st_mode)) {
        errno = ENOTDIR;
        return fail_write("make the folder", path);
    }
    return MT_OK;
}

enum mt_status mt_disk_make_passing_folder(const char *path)
{
    return mkdir(path, 0777) == 0 || errno == EEXIST ? MT_OK : fail_write("make the folder", path);
}

enum mt_status mt_disk_sync_folder(const char *path)
{
    const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
        return fail_write("open the folder", path);
    }
    return mt_disk_finish(descriptor, path, MT_OK);
}

enum mt_status mt_disk_rename(const char *folder, const char *from, const char *to)
{
    char from_path[MT_PATH_BYTES];
    char to_path[MT_PATH_BYTES];
    MT_TRY(mt_disk_join(from_path, folder, from));
    MT_TRY(mt_disk_join(to_path, folder, to));
    if (rename(from_path, to_path) != 0) {
        return fail_write("rename to", to_path);
    }
    return mt_disk_sync_folder(folder);
}

enum mt_status mt_disk_open_to_write(const char *path, bool create, int *descriptor)
{
    *descriptor = open(path, O_WRONLY | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0666);
    return *descriptor < 0 ? fail_write("open", path) : MT_OK;
}

/* Without the first n_byte of what they point to. Returns the parts that are used up. */
static int use_up(struct iovec *part, int n_part, size_t n_byte)
{
    int n_used = 0;
    while (n_used < n_part && n_byte >= part[n_used].iov_len) {
        n_byte -= part[n_used++].iov_len;
    }
    if (n_used < n_part) {
        part[n_used].iov_base = (char *)part[n_used].iov_base + n_byte;
        part[n_used].iov_len -= n_byte;
    }
    return n_used;
}

/* Linux moves at most 2^31 - 4096 bytes a call, and says how many. */
enum mt_status mt_disk_write_parts(int descriptor, const char *path, int64_t offset,
                                   struct iovec *part, int n_part)
{
    for (int used = use_up(part, n_part, 0); used < n_part;) {
        const ssize_t written = pwritev(descriptor, part + used, n_part - used, (off_t)offset);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return fail_write("write", path);
        }
        used += use_up(part + used, n_part - used, (size_t)written);
        offset += written;
    }
    return MT_OK;
}

enum mt_status mt_disk_write(int descriptor, const char *path, int64_t offset, const void *data,
                             int64_t n_byte)
{
    struct iovec whole = {(void *)(uintptr_t)data, (size_t)n_byte};
    return mt_disk_write_parts(descriptor, path, offset, &whole, 1);
}

void mt_disk_send(int descriptor, int64_t offset, int64_t n_byte)
{
    (void)sync_file_range(descriptor, offset, n_byte, SYNC_FILE_RANGE_WRITE);
}

enum mt_status mt_disk_finish(int descriptor, const char *path, enum mt_status status)
{
    if (status == MT_OK && fsync(descriptor) != 0) {
        status = fail_write("sync", path);
    }
    if (close(descriptor) != 0 && status == MT_OK) {
        status = fail_write("close", path);
    }
    return status;
}

enum mt_status mt_disk_write_file(const char *path, const void *data, int64_t n_byte)
{
    int descriptor = -1;
    MT_TRY(mt_disk_open_to_write(path, true, &descriptor));
    return mt_disk_finish(descriptor, path, mt_disk_write(descriptor, path, 0, data, n_byte));
}

enum mt_status mt_disk_open_to_read(const char *path, int *descriptor)
{
    /* O_NONBLOCK: a pipe under a shard's name must not stop the run; regular files ignore it. */
    *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*descriptor < 0) {
        return fail_read("open", path);
    }
    struct stat about;
    if (fstat(*descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
        (void)close(*descriptor);
        *descriptor = -1;
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is not a regular file; checkpoints are made of such; use a whole copy",
                       path);
    }
    return MT_OK;
}

enum mt_status mt_disk_read(int descriptor, const char *path, int64_t offset, void *data,
                            int64_t n_byte)
{
    for (int64_t done = 0; done < n_byte;) {
        const size_t n = (size_t)mt_min_i64(n_byte - done, MAX_CALL_BYTES);
        const ssize_t got = pread(descriptor, (char *)data + done, n, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_read("read", path);
        }
        if (got == 0) {
            return MT_FAIL(MT_ERR_INPUT,
                           "%s ends at byte %lld; %lld bytes were expected; it is cut short, use "
                           "another checkpoint",
                           path, (long long)(offset + done), (long long)(offset + n_byte));
        }
        done += got;
    }
    return MT_OK;
}

static enum mt_status read_all(int descriptor, const char *path, int64_t max_bytes, char **data,
                               int64_t *n_byte)
{
    struct stat about;
    if (fstat(descriptor, &about) != 0) {
        return fail_read("read", path);
    }
    if (about.st_size > max_bytes) {
        return MT_FAIL(MT_ERR_INPUT,
                       "%s has %lld bytes; at most %lld were expected; it is not a manifest of "
                       "this program",
                       path, (long long)about.st_size, (long long)max_bytes);
    }
    *n_byte = about.st_size;
    MT_TRY(MT_ALLOCATE(*data, *n_byte + 1, "checkpoint manifest"));
    return mt_disk_read(descriptor, path, 0, *data, *n_byte);
}

enum mt_status mt_disk_read_file(const char *path, int64_t max_bytes, char **data, int64_t *n_byte)
{
    int descriptor = -1;
    *data = NULL;
    MT_TRY(mt_disk_open_to_read(path, &descriptor));
    const enum mt_status status = read_all(descriptor, path, max_bytes, data, n_byte);
    (void)close(descriptor);
    if (status != MT_OK) {
        mt_memory_free(*data);
        *data = NULL;
    }
    return status;
}

int64_t mt_disk_size(const char *folder, const char *name)
{
    char path[MT_PATH_BYTES];
    struct stat about;
    if (mt_disk_join(path, folder, name) != MT_OK) {
        mt_error_clear();
        return -1;
    }
    return stat(path, &about) == 0 && S_ISREG(about.st_mode) ? about.st_size : -1;
}

/* From where the descriptor stands to the end. */
static enum mt_status checksum_stream(int descriptor, const char *path, int64_t *n_byte,
                                      uint64_t *checksum)
{
    char buffer[CHECKSUM_BYTES];
    XXH3_state_t sum;
    *n_byte = 0;
    mt_checksum_begin(&sum);
    for (;;) {
        const ssize_t got = read(descriptor, buffer, sizeof(buffer));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_read("read", path);
        }
        if (got == 0) {
            *checksum = mt_checksum_end(&sum);
            return MT_OK;
        }
        mt_checksum_add(&sum, buffer, (size_t)got);
        *n_byte += got;
    }
}

enum mt_status mt_disk_checksum(const char *path, int64_t *n_byte, uint64_t *checksum)
{
    int descriptor = -1;
    MT_TRY(mt_disk_open_to_read(path, &descriptor));
    const enum mt_status status = checksum_stream(descriptor, path, n_byte, checksum);
    (void)close(descriptor);
    return status;
}

enum mt_status mt_disk_read_back(const char *path, int64_t n_byte, uint64_t checksum)
{
    int descriptor = -1;
    int64_t got_bytes = 0;
    uint64_t got = 0;
    MT_TRY(mt_disk_open_to_read(path, &descriptor));
    (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED); /* a wish */
    const enum mt_status status = checksum_stream(descriptor, path, &got_bytes, &got);
    (void)close(descriptor);
    if (status != MT_OK) {
        return MT_ERR_RESOURCE; /* what cannot be read has not been saved */
    }
    if (got_bytes != n_byte || got != checksum) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "%s does not read back as it was written: %lld bytes with XXH3 %016llx, not "
                       "%lld with %016llx; the complete checkpoints before it are kept; look at "
                       "the disk",
                       path, (long long)got_bytes, (unsigned long long)got, (long long)n_byte,
                       (unsigned long long)checksum);
    }
    return MT_OK;
}
