/* A file of the checkpoint before becomes a file of the next. */
#include "checkpoint/disk.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 128 << 10 }; /* on the stack */

/* Not a fault of the disk: it, or this file, takes no second name. */
static bool cannot_link(int error)
{
    return error == EPERM || error == EMLINK || error == EXDEV || error == ENOSYS ||
           error == EOPNOTSUPP;
}

static enum mt_status copy_bytes(int source, const char *from, const char *to, int64_t n_byte)
{
    char buffer[COPY_BYTES];
    int target = -1;
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_open_to_write(to, true, &target));
    for (int64_t done = 0; done < n_byte && status == MT_OK; done += COPY_BYTES) {
        const int64_t n = n_byte - done < COPY_BYTES ? n_byte - done : COPY_BYTES;
        status = mt_disk_read(source, from, done, buffer, n);
        status = status == MT_OK ? mt_disk_write(target, to, done, buffer, n) : status;
    }
    return mt_disk_finish(target, to, status);
}

static enum mt_status copy(const char *from, const char *to, int64_t n_byte, uint64_t checksum)
{
    int source = -1;
    MT_TRY(mt_disk_open_to_read(from, &source));
    const enum mt_status status = copy_bytes(source, from, to, n_byte);
    (void)close(source);
    MT_TRY(status);
    return mt_disk_read_back(to, n_byte, checksum);
}

static enum mt_status fail_link(const char *from, const char *to, const char *why)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot link %s to %s: %s; a save of one part of the experts takes the others "
                   "from the one before; the next save writes all of them",
                   to, from, why);
}

enum mt_status mt_disk_link(const char *from, const char *to, int64_t n_byte, uint64_t checksum)
{
    struct stat about;
    if (stat(from, &about) != 0) {
        return fail_link(from, to, strerror(errno));
    }
    if (about.st_size != n_byte) {
        return fail_link(from, to, "it has another size than when it was written");
    }
    /* Rot under one name is under all: what would spread from save to save is found here. */
    MT_TRY(mt_disk_read_back(from, n_byte, checksum) == MT_OK ? MT_OK : MT_ERR_RESOURCE);
    if (link(from, to) == 0) {
        return MT_OK;
    }
    if (!cannot_link(errno)) {
        return fail_link(from, to, strerror(errno));
    }
    return copy(from, to, n_byte, checksum) == MT_OK ? MT_OK : MT_ERR_RESOURCE;
}
