/* The files behind a list of paths: a folder stands for the regular files in it, sorted by name, so
 * that every rank and every run numbers them alike. Used by corpus.c. */
#ifndef MT_DATA_FILE_LIST_H
#define MT_DATA_FILE_LIST_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

struct mt_file_list {
    int64_t n, capacity;
    char **path;        /* [n] */
    const char *suffix; /* the caller's */
};

/* Files as given; folders without their subfolders, without names that start with a dot and without
 * names that do not end in suffix ("": any). A path that is no file is tried with the suffix, so
 * that a pair PREFIX.bin, PREFIX.idx can be named by PREFIX. What is neither file nor folder is
 * kept, for the opening to judge. MT_ERR_INPUT naming what is missing, or a folder that holds no
 * file. */
enum mt_status mt_file_list_init(struct mt_file_list *list, const struct mt_path_list *paths,
                                 const char *suffix);
void mt_file_list_clear(struct mt_file_list *list);

#endif
