#include "checkpoint/new_folder.h"

#include "checkpoint/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Before any work: a directory of that name can be made there. */
static enum mt_status check_place(const struct mt_new_folder *made, const char *what)
{
    if (strlen(made->temporary_name) > NAME_MAX) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s's name has %zu bytes; at most %zu were expected, for file systems end "
                       "at %d; choose another",
                       what, strlen(made->name),
                       NAME_MAX - (strlen(made->temporary_name) - strlen(made->name)), NAME_MAX);
    }
    if (access(made->folder, W_OK | X_OK) != 0) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%s cannot be made in %s: %s; a directory that may be written to was "
                       "expected; make or permit it, or choose another",
                       what, made->folder, strerror(errno));
    }
    return MT_OK;
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
    (void)snprintf(made->temporary_name, sizeof(made->temporary_name), ".%s.tmp", made->name);
    MT_TRY(check_place(made, what));
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
