#include "base/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum mt_status fail(const char *path, const char *why, const char *advice)
{
    return MT_FAIL(MT_ERR_RESOURCE,
                   "cannot write %s: %s; expected room and a regular file that may be written; %s",
                   path, why, advice);
}

/* A link stays: what it leads to is replaced. */
static bool find_target(const char *path, struct mt_output *output, const char **why)
{
    char real[PATH_MAX];
    struct stat about;
    const bool is_there = stat(path, &about) == 0;
    if (is_there && !S_ISREG(about.st_mode)) {
        *why = "it is not a regular file";
        return false;
    }
    if (is_there && access(path, W_OK) != 0) {
        *why = strerror(errno);
        return false;
    }
    const char *target = is_there && realpath(path, real) != NULL ? real : path;
    const char *slash = strrchr(target, '/');
    const int folder = slash != NULL ? (int)(slash + 1 - target) : 0;
    const int n = snprintf(output->path, sizeof(output->path), "%s", target);
    const int n_passing = snprintf(output->passing, sizeof(output->passing),
                                   "%.*s.moetrain-%ld.tmp", folder, target, (long)getpid());
    *why = strerror(ENAMETOOLONG);
    return n < (int)sizeof(output->path) && n_passing < (int)sizeof(output->passing);
}

enum mt_status mt_output_open(const char *path, const char *advice, struct mt_output *output)
{
    const char *why = NULL;
    *output = (struct mt_output){.advice = advice};
    if (!find_target(path, output, &why)) {
        return fail(path, why, advice);
    }
    (void)unlink(output->passing); /* of a process that was killed and had the same number */
    const int descriptor =
        open(output->passing, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); /* as umask says */
    if (descriptor < 0) {
        return fail(path, strerror(errno), advice);
    }
    output->file = fdopen(descriptor, "w");
    if (output->file == NULL) {
        const int error = errno;
        (void)close(descriptor);
        (void)unlink(output->passing);
        return fail(path, strerror(error), advice);
    }
    return MT_OK;
}

/* The name is on the disk, too; a file system that cannot say so has still renamed it. */
static void sync_folder(const char *path)
{
    char folder[MT_OUTPUT_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof(folder), "%.*s", slash != NULL ? (int)(slash + 1 - path) : 1,
                   slash != NULL ? path : ".");
    const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        (void)fsync(descriptor);
        (void)close(descriptor);
    }
}

enum mt_status mt_output_close(struct mt_output *output, int error)
{
    errno = EIO; /* what stdio failed at earlier may be forgotten */
    if (error == 0 && (fflush(output->file) != 0 || ferror(output->file) != 0 ||
                       fsync(fileno(output->file)) != 0)) {
        error = errno;
    }
    if (fclose(output->file) != 0 && error == 0) {
        error = errno;
    }
    output->file = NULL;
    if (error == 0 && rename(output->passing, output->path) != 0) {
        error = errno;
    }
    if (error != 0) {
        (void)unlink(output->passing);
        return fail(output->path, strerror(error), output->advice);
    }
    sync_folder(output->path);
    return MT_OK;
}
