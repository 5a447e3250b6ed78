/* The files behind a list of paths: a folder stands for the regular files in it, sorted by name, so
 * that every rank and every run numbers them alike. Used by corpus.c. */
#ifndef MT_DATA_FILE_LIST_H
#define MT_DATA_FILE_LIST_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_file_list {
    int64_t n, capacity;
    char **path; /* [n] */
};

/* Files as given; folders without their subfolders and without names that start with a dot. A path
 * that is neither is kept, for the opening to judge. MT_ERR_INPUT naming what is missing, or a
 * folder that holds no file. */
enum mt_status mt_file_list_init(struct mt_file_list *list, const struct mt_path_list *paths);
void mt_file_list_clear(struct mt_file_list *list);

#endif
