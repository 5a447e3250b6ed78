/* The run directory: folders, lock, resolved configuration. */
#include "train/run_dir.h"

#include "base/clock.h"
#include "base/job.h"
#include "config/load.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

void mt_run_dir_init(struct mt_run_dir *dir, const struct mt_config *config)
{
    memset(dir, 0, sizeof(*dir));
    dir->lock_fd = -1;
    (void)snprintf(dir->path, sizeof(dir->path), "%s", config->run.dir);
    (void)snprintf(dir->metrics, sizeof(dir->metrics), "%s/metrics.jsonl", dir->path);
    (void)snprintf(dir->samples, sizeof(dir->samples), "%s/samples.jsonl", dir->path);
    (void)snprintf(dir->tensorboard, sizeof(dir->tensorboard), "%s/tensorboard", dir->path);
    (void)snprintf(dir->log, sizeof(dir->log), "%s/run.log", dir->path);
    (void)snprintf(dir->config, sizeof(dir->config), "%s/config.toml", dir->path);
    (void)snprintf(dir->profile, sizeof(dir->profile), "%s/profile", dir->path);
    (void)snprintf(dir->checkpoints, sizeof(dir->checkpoints), "%s/checkpoints", dir->path);
}

/* mkdir -p: the folders of a path one after the other. */
static enum mt_status make_folders(const char *path)
{
    char partial[MT_PATH_BYTES + 32];
    const size_t length = strlen(path);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(partial, path, i);
        partial[i] = '\0';
        struct stat about;
        const bool made = mkdir(partial, 0777) == 0;
        const int problem = errno;
        if (!made && !(stat(partial, &about) == 0 && S_ISDIR(about.st_mode))) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "cannot make the folder %s: %s; expected a writable run directory; "
                           "choose another with --run-dir",
                           partial, strerror(problem));
        }
    }
    return MT_OK;
}

static enum mt_status refuse_locked(const struct mt_run_dir *dir, int fd)
{
    char holder[512] = "";
    const ssize_t n = pread(fd, holder, sizeof(holder) - 1, 0);
    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return MT_FAIL(MT_ERR_CONFIG,
                   "the run directory %s is in use by %s; expected one run at a time; wait for it, "
                   "stop it, or choose another with --run-dir",
                   dir->path, holder[0] != '\0' ? holder : "another process");
}

/* The lock is the kernel's (flock), so it ends with its process however that ends; the text in the
 * file is for people. */
static enum mt_status take_lock(struct mt_run_dir *dir)
{
    char path[MT_PATH_BYTES + 32];
    char start[21];
    (void)snprintf(path, sizeof(path), "%s/lock", dir->path);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        return MT_FAIL(
            MT_ERR_RESOURCE,
            "cannot write %s: %s; expected a writable run directory; choose another with "
            "--run-dir",
            path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        const enum mt_status status = refuse_locked(dir, fd);
        close(fd);
        return status;
    }
    dir->lock_fd = fd;
    mt_clock_utc(start);
    if (ftruncate(fd, 0) != 0 ||
        dprintf(fd, "host %s, pid %ld, started %s\n", mt_job_host(), (long)getpid(), start) < 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s: %s; expected space on that disk; free some", path,
                       strerror(errno));
    }
    return MT_OK;
}

enum mt_status mt_run_dir_open(struct mt_run_dir *dir)
{
    MT_TRY(make_folders(dir->checkpoints));
    return take_lock(dir);
}

void mt_run_dir_close(struct mt_run_dir *dir)
{
    if (dir->lock_fd >= 0) {
        (void)ftruncate(dir->lock_fd, 0);
        close(dir->lock_fd);
        dir->lock_fd = -1;
    }
}

/* Anything but what a leading dot hides. */
static bool has_entries(const char *folder)
{
    DIR *stream = opendir(folder);
    bool found = false;
    if (stream == NULL) {
        return false;
    }
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        found = found || entry->d_name[0] != '.';
    }
    (void)closedir(stream);
    return found;
}

bool mt_run_dir_is_used(const struct mt_run_dir *dir)
{
    struct stat info;
    return (stat(dir->metrics, &info) == 0 && info.st_size > 0) || has_entries(dir->checkpoints);
}

enum mt_status mt_run_dir_write_config(const struct mt_run_dir *dir, const struct mt_config *config)
{
    FILE *file = fopen(dir->config, "w");
    if (file == NULL) {
        return MT_FAIL(MT_ERR_RESOURCE, "cannot write %s: %s; expected a writable run directory",
                       dir->config, strerror(errno));
    }
    mt_config_write(config, file);
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s: %s; expected space on that disk; free some", dir->config,
                       strerror(errno));
    }
    return MT_OK;
}
