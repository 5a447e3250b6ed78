#include "data/file_list.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Keeps the three one behind the other. */
static enum mt_status append(struct mt_file_list *list, const char *start, const char *middle,
                             const char *end)
{
    MT_TRY(MT_MAKE_ROOM(list->path, list->n, &list->capacity, 1, "list of data files"));
    const size_t n_byte = strlen(start) + strlen(middle) + strlen(end) + 1;
    char *text = NULL;
    MT_TRY(MT_ALLOCATE(text, (int64_t)n_byte, "path of a data file"));
    (void)snprintf(text, n_byte, "%s%s%s", start, middle, end);
    list->path[list->n++] = text;
    return MT_OK;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum mt_status fail_path(const char *path)
{
    return MT_FAIL(MT_ERR_INPUT,
                   "cannot open %s: %s; a data file or a folder of them was expected; check the "
                   "path (in [data] relative ones start at the configuration's folder)",
                   path, strerror(errno));
}

static bool ends_in(const char *name, const char *suffix)
{
    const size_t n = strlen(name);
    const size_t n_suffix = strlen(suffix);
    return n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

/* Appends the entry when it is a regular file (or a link to one) with the list's suffix. */
static enum mt_status append_entry(struct mt_file_list *list, const char *folder, const char *name)
{
    struct stat about;
    if (name[0] == '.' || !ends_in(name, list->suffix)) {
        return MT_OK;
    }
    MT_TRY(append(list, folder, "/", name));
    const char *path = list->path[list->n - 1];
    if (stat(path, &about) != 0) {
        return fail_path(path);
    }
    if (!S_ISREG(about.st_mode)) {
        mt_memory_free(list->path[--list->n]);
    }
    return MT_OK;
}

static enum mt_status append_folder(struct mt_file_list *list, const char *folder)
{
    const int64_t first = list->n;
    DIR *directory = opendir(folder);
    if (directory == NULL) {
        return fail_path(folder);
    }
    enum mt_status status = MT_OK;
    errno = 0;
    for (const struct dirent *entry = readdir(directory); status == MT_OK && entry != NULL;
         entry = readdir(directory)) {
        status = append_entry(list, folder, entry->d_name);
        errno = 0;
    }
    const int code = errno; /* readdir's own, 0 at the end */
    (void)closedir(directory);
    errno = code;
    if (status == MT_OK && code != 0) {
        return fail_path(folder);
    }
    MT_TRY(status);
    if (list->n == first) {
        return MT_FAIL(MT_ERR_INPUT,
                       "the folder %s holds no file%s%s; data files were expected; check the path",
                       folder, list->suffix[0] == '\0' ? "" : " that ends in ", list->suffix);
    }
    qsort(list->path + first, (size_t)(list->n - first), sizeof(*list->path), compare_paths);
    return MT_OK;
}

static enum mt_status append_path(struct mt_file_list *list, const char *path)
{
    struct stat about;
    if (stat(path, &about) == 0) {
        return S_ISDIR(about.st_mode) ? append_folder(list, path) : append(list, path, "", "");
    }
    const int code = errno;
    MT_TRY(append(list, path, "", list->suffix));
    if (stat(list->path[list->n - 1], &about) == 0) {
        return MT_OK;
    }
    errno = code;
    return fail_path(path);
}

enum mt_status mt_file_list_init(struct mt_file_list *list, const struct mt_path_list *paths,
                                 const char *suffix)
{
    enum mt_status status = MT_OK;
    *list = (struct mt_file_list){.suffix = suffix};
    for (int i = 0; i < paths->n && status == MT_OK; ++i) {
        status = append_path(list, paths->path[i]);
    }
    return status;
}

void mt_file_list_clear(struct mt_file_list *list)
{
    for (int64_t i = 0; i < list->n; ++i) {
        mt_memory_free(list->path[i]);
    }
    mt_memory_free(list->path);
    memset(list, 0, sizeof(*list));
}
