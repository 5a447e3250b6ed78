/* Folders: their names, and removing them with what is in them. */
#include "base/memory.h"
#include "checkpoint/disk.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPEN_FOLDERS = 16 };

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    MT_UNUSED(about);
    MT_UNUSED(kind);
    MT_UNUSED(place);
    return remove(path);
}

enum mt_status mt_disk_remove(const char *path)
{
    if (nftw(path, remove_entry, MAX_OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot remove %s: %s; an old or unfinished checkpoint was to make room; "
                       "remove it by hand",
                       path, strerror(errno));
    }
    return MT_OK;
}

static enum mt_status append_name(struct mt_disk_names *names, const char *name)
{
    MT_TRY(
        MT_MAKE_ROOM(names->name, names->n, &names->capacity, 1, "names in a checkpoint folder"));
    (void)snprintf(names->name[names->n++], sizeof(*names->name), "%s", name);
    return MT_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static enum mt_status fail_list(const char *folder)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "cannot list %s: %s; a folder of checkpoints was expected; check the path and "
                   "its permissions",
                   folder, strerror(errno));
}

enum mt_status mt_disk_list(const char *folder, struct mt_disk_names *names)
{
    memset(names, 0, sizeof(*names));
    DIR *directory = opendir(folder);
    if (directory == NULL) {
        return fail_list(folder);
    }
    enum mt_status status = MT_OK;
    errno = 0;
    for (const struct dirent *entry = readdir(directory); status == MT_OK && entry != NULL;
         entry = readdir(directory)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = append_name(names, entry->d_name);
        }
        errno = 0;
    }
    const int code = errno; /* readdir's own, 0 at the end */
    (void)closedir(directory);
    errno = code;
    if (status == MT_OK && code != 0) {
        status = fail_list(folder);
    }
    if (status != MT_OK) {
        mt_disk_names_clear(names);
        return status;
    }
    if (names->n > 0) {
        qsort(names->name, (size_t)names->n, sizeof(*names->name), compare_names);
    }
    return MT_OK;
}

void mt_disk_names_clear(struct mt_disk_names *names)
{
    mt_memory_free(names->name);
    memset(names, 0, sizeof(*names));
}
