#include "checkpoint/new_folder.h"

#include "checkpoint/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NAME_BYTES = NAME_MAX - 5 }; /* five for the dot and .tmp of the name meanwhile */

/* ".", ".." and what leaves no room for ".NAME.tmp" cannot be had by renaming. */
static enum mt_status check_name(const char *name)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strlen(name) > MAX_NAME_BYTES) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s cannot be the name of a new directory; 1 to %d bytes, neither . nor .., "
                       "were expected; choose another",
                       name, MAX_NAME_BYTES);
    }
    return MT_OK;
}

static bool has_file(const char *folder, const char *name)
{
    char path[MT_PATH_BYTES];
    const bool fits = mt_disk_join(path, folder, name) == MT_OK;
    if (!fits) {
        mt_error_clear();
    }
    return fits && access(path, F_OK) == 0;
}

/* A checkpoint that has other files than its own does not verify. path [PATH_MAX], absolute, is
 * used up. */
static enum mt_status check_above(char *path)
{
    for (char *slash = path + strlen(path); slash != NULL; slash = strrchr(path, '/')) {
        *slash = '\0';
        if (has_file(path, "manifest.json") && has_file(path, "index.h5")) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "%s is a checkpoint; a new directory outside of others was expected; "
                           "choose another",
                           path);
        }
    }
    return MT_OK;
}

/* A directory can be made there, and lies outside of checkpoints. */
static enum mt_status check_place(const char *folder, const char *what)
{
    char real[PATH_MAX];
    if (access(folder, W_OK | X_OK) != 0 || realpath(folder, real) == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s cannot be made in %s: %s; a directory that may be written to was "
                       "expected; make or permit it, or choose another",
                       what, folder, strerror(errno));
    }
    return check_above(real);
}

enum mt_status mt_new_folder_init(struct mt_new_folder *made, const char *to, const char *what)
{
    size_t length = strlen(to);
    while (length > 1 && to[length - 1] == '/') {
        --length;
    }
    if (length == 0 || length >= sizeof(made->folder)) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s's path is empty or too long; 1 to %d bytes were expected; choose "
                       "another",
                       what, MT_PATH_BYTES - 1);
    }
    char path[MT_PATH_BYTES];
    memcpy(path, to, length);
    path[length] = '\0';
    struct stat about;
    if (lstat(path, &about) == 0) { /* a link that leads nowhere is there, too */
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s is there already; a new directory was expected; remove it or choose "
                       "another",
                       path);
    }
    char *slash = strrchr(path, '/');
    (void)snprintf(made->name, sizeof(made->name), "%s", slash != NULL ? slash + 1 : path);
    if (slash != NULL) {
        slash[slash == path ? 1 : 0] = '\0';
    }
    (void)snprintf(made->folder, sizeof(made->folder), "%s", slash != NULL ? path : ".");
    MT_TRY(check_name(made->name));
    MT_TRY(check_place(made->folder, what));
    (void)snprintf(made->temporary_name, sizeof(made->temporary_name), ".%s.tmp", made->name);
    return mt_disk_join(made->temporary, made->folder, made->temporary_name);
}

enum mt_status mt_new_folder_begin(const struct mt_new_folder *made)
{
    MT_TRY(mt_disk_remove(made->temporary));
    return mt_disk_make_folder(made->temporary);
}

enum mt_status mt_new_folder_commit(const struct mt_new_folder *made)
{
    MT_TRY(mt_disk_sync_folder(made->temporary));
    return mt_disk_rename(made->folder, made->temporary_name, made->name);
}

void mt_new_folder_abandon(const struct mt_new_folder *made)
{
    (void)mt_disk_remove(made->temporary);
}
