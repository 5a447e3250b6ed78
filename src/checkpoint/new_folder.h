/* A directory that is there whole or not at all: written under another name, then renamed. */
#ifndef MT_CHECKPOINT_NEW_FOLDER_H
#define MT_CHECKPOINT_NEW_FOLDER_H

#include "base/status.h"
#include "config/config.h"

struct mt_new_folder {
    char folder[MT_PATH_BYTES], name[MT_PATH_BYTES]; /* where it will be, and its name there */
    char temporary_name[MT_PATH_BYTES + 8];          /* ".NAME.tmp" in folder */
    char temporary[MT_PATH_BYTES];                   /* its path */
};

/* Of the path `to`. MT_ERR_CONFIG when something is there, when it would lie in a checkpoint, when
 * it can be no name, or nothing can be made there, naming it as `what`, "the new checkpoint".
 * Touches nothing. */
enum mt_status mt_new_folder_init(struct mt_new_folder *made, const char *to, const char *what);
/* Makes the temporary directory, without what a killed attempt may have left there. */
enum mt_status mt_new_folder_begin(const struct mt_new_folder *made);
/* The directory has its name, on the disk. */
enum mt_status mt_new_folder_commit(const struct mt_new_folder *made);
/* Gives a full disk its room back. */
void mt_new_folder_abandon(const struct mt_new_folder *made);

#endif
