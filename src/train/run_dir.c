/* The run directory: folders, lock, resolved configuration. */
#include "train/run_dir.h"

#include "base/clock.h"
#include "base/job.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"
#include "config/load.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a start puts into the directory; checkpoints/ with what is in it is never removed. */
static const char *const names[] = {"lock",       "run.log",       "config.toml",
                                    "costs.json", "metrics.jsonl", "profile"};
/* What is opened by name, to write or to go on with; costs.json is replaced. */
static const char *const opened[] = {"lock", "run.log", "config.toml", "metrics.jsonl",
                                     "samples.jsonl"};
enum {
    N_NAME = sizeof(names) / sizeof(names[0]),
    N_OPENED = sizeof(opened) / sizeof(opened[0]),
    LOCK_TRIES = 8
};

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

/* All that a run will want to make there, now: a save in some hours would be too late. */
static enum mt_status check_length(const struct mt_run_dir *dir)
{
    static const char LONGEST[] = "/checkpoints/.step-000000000000000000.old.tmp/"
                                  "experts-0-of-4-1048575-of-1048576.h5";
    const size_t most = MT_PATH_BYTES - sizeof(LONGEST);
    if (strlen(dir->path) <= most) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_CONFIG,
                   "the run directory's path has %zu bytes; at most %zu were expected, for the "
                   "names of its files come behind it; choose another --run-dir",
                   strlen(dir->path), most);
}

/* mkdir -p: the folders of a path one after the other. *first_made: the length of the first one
 * that was missing; kept where none was. */
static enum mt_status make_folders(const char *path, size_t *first_made)
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
        *first_made = made && *first_made == 0 ? i : *first_made;
        if (!made && !(stat(partial, &about) == 0 && S_ISDIR(about.st_mode))) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "cannot make the folder %s: %s; expected a writable run directory; "
                           "choose another with --run-dir",
                           partial, strerror(problem));
        }
    }
    return MT_OK;
}

/* A pipe would be waited for by all ranks, for ever; a device has no end. Folders fail when they
 * are opened. */
static enum mt_status check_regular(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0 || S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_RESOURCE,
                   "%s is not a regular file; files of a run were expected in its directory; "
                   "remove it, or choose another with --run-dir",
                   path);
}

/* What ranks write below profile/. */
static enum mt_status check_profile(const struct mt_run_dir *dir)
{
    struct mt_disk_names files;
    char path[MT_PATH_BYTES];
    if (access(dir->profile, F_OK) != 0) {
        return MT_OK;
    }
    MT_TRY(mt_disk_list(dir->profile, &files));
    enum mt_status status = MT_OK;
    for (int64_t i = 0; i < files.n && status == MT_OK; i++) {
        status = mt_disk_join(path, dir->profile, files.name[i]);
        status = status == MT_OK ? check_regular(path) : status;
    }
    mt_disk_names_clear(&files);
    return status;
}

static enum mt_status check_files(const struct mt_run_dir *dir)
{
    char path[MT_PATH_BYTES + 32];
    for (int i = 0; i < N_OPENED; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir->path, opened[i]);
        MT_TRY(check_regular(path));
    }
    return check_profile(dir);
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
    return MT_OK;
}

static enum mt_status sign_lock(const struct mt_run_dir *dir)
{
    char start[21];
    mt_clock_utc(start);
    if (ftruncate(dir->lock_fd, 0) != 0 || dprintf(dir->lock_fd, "host %s, pid %ld, started %s\n",
                                                   mt_job_host(), (long)getpid(), start) < 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s/lock: %s; expected space on that disk; free some",
                       dir->path, strerror(errno));
    }
    return MT_OK;
}

/* A save that a full disk ended holds most of the room that the next start needs. What cannot go is
 * told of when a save needs the room. */
static void free_room(const struct mt_run_dir *dir)
{
    if (mt_folder_clean(dir->checkpoints) != MT_OK) {
        mt_error_clear();
    }
}

/* path [MT_PATH_BYTES + 32] */
static void path_of(const struct mt_run_dir *dir, const char *name, char *path)
{
    (void)snprintf(path, MT_PATH_BYTES + 32, "%s/%s", dir->path, name);
}

static void note_what_is_there(struct mt_run_dir *dir)
{
    for (unsigned i = 0; i < N_NAME; i++) {
        char path[MT_PATH_BYTES + 32];
        struct stat about;
        path_of(dir, names[i], path);
        dir->had |= lstat(path, &about) == 0 ? 1U << i : 0;
    }
}

/* A start that took everything back may have removed the file between its opening and the lock. */
static bool is_lock_there(const struct mt_run_dir *dir)
{
    struct stat about;
    return fstat(dir->lock_fd, &about) == 0 && about.st_nlink > 0;
}

enum mt_status mt_run_dir_open(struct mt_run_dir *dir)
{
    bool is_held = false;
    dir->had = 0;
    dir->first_made = 0;
    MT_TRY(check_length(dir));
    for (int i = 0; i < LOCK_TRIES && !is_held; i++) {
        mt_run_dir_close(dir);
        note_what_is_there(dir);
        MT_TRY(make_folders(dir->checkpoints, &dir->first_made));
        MT_TRY(check_files(dir));
        MT_TRY(take_lock(dir));
        is_held = is_lock_there(dir);
    }
    if (!is_held) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "the lock in %s is removed again and again; expected one start at a time; "
                       "wait for the others",
                       dir->path);
    }
    free_room(dir);
    return sign_lock(dir);
}

void mt_run_dir_take_back(const struct mt_run_dir *dir)
{
    char path[MT_PATH_BYTES + 32];
    if (dir->lock_fd < 0) {
        return;
    }
    for (unsigned i = N_NAME; i-- > 0;) {
        path_of(dir, names[i], path);
        if ((dir->had & 1U << i) == 0 && mt_disk_remove(path) != MT_OK) {
            mt_error_clear(); /* it stays */
        }
    }
    (void)snprintf(path, sizeof(path), "%s", dir->checkpoints);
    for (size_t i = strlen(path); dir->first_made > 0 && i >= dir->first_made; i--) {
        if (path[i] == '/' || path[i] == '\0') {
            path[i] = '\0';
            (void)rmdir(path); /* those that are empty */
        }
    }
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
