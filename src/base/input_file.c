#include "base/input_file.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum mt_status fail(const char *path, const char *why, const char *expected)
{
    return MT_FAIL(MT_ERR_INPUT, "cannot read %s: %s; %s", path, why, expected);
}

enum mt_status mt_input_open(const char *path, const char *expected, int *descriptor,
                             int64_t *n_byte)
{
    struct stat about;
    /* Not blocking: a pipe would wait for somebody to write into it. */
    *descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*descriptor < 0) {
        return fail(path, strerror(errno), expected);
    }
    const bool is_known = fstat(*descriptor, &about) == 0;
    if (is_known && S_ISREG(about.st_mode)) {
        *n_byte = about.st_size;
        return MT_OK;
    }
    const char *why = is_known ? "it is not a regular file" : strerror(errno);
    (void)close(*descriptor);
    *descriptor = -1;
    return fail(path, why, expected);
}

int64_t mt_input_read_at(int descriptor, int64_t offset, void *data, int64_t n_byte)
{
    int64_t done = 0;
    while (done < n_byte) {
        const ssize_t got =
            pread(descriptor, (char *)data + done, (size_t)(n_byte - done), (off_t)(offset + done));
        if (got == 0) {
            break;
        }
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        done += got > 0 ? got : 0;
    }
    return done;
}

static enum mt_status read_all(int descriptor, const char *path, const char *expected, char *data,
                               int64_t n_byte)
{
    const int64_t n = mt_input_read_at(descriptor, 0, data, n_byte);
    return n == n_byte ? MT_OK
                       : fail(path, n < 0 ? strerror(errno) : "it became shorter", expected);
}

enum mt_status mt_input_read(const char *path, const char *expected, int64_t most, char **data,
                             int64_t *n_byte)
{
    int descriptor = -1;
    *data = NULL;
    MT_TRY(mt_input_open(path, expected, &descriptor, n_byte));
    enum mt_status status = MT_OK;
    if (*n_byte > most) {
        status =
            MT_FAIL(MT_ERR_INPUT, "%s is too large: %lld bytes; at most %lld were expected; %s",
                    path, (long long)*n_byte, (long long)most, expected);
    }
    status = status == MT_OK ? MT_ALLOCATE(*data, *n_byte + 1, "a file") : status;
    status = status == MT_OK ? read_all(descriptor, path, expected, *data, *n_byte) : status;
    (void)close(descriptor);
    if (status != MT_OK) {
        mt_memory_free(*data);
        *data = NULL;
    }
    return status;
}

char *mt_input_quote(char *text)
{
    for (char *c = text; *c != '\0'; ++c) {
        const unsigned char byte = (unsigned char)*c;
        if (byte < 0x20 || byte >= 0x7F) {
            *c = '?';
        }
    }
    return text;
}
