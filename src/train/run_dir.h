/* The run directory: its paths, its lock. */
#ifndef MT_TRAIN_RUN_DIR_H
#define MT_TRAIN_RUN_DIR_H

#include "base/status.h"
#include "config/config.h"

#include <stdbool.h>

struct mt_run_dir {
    char path[MT_PATH_BYTES];
    char metrics[MT_PATH_BYTES + 32], log[MT_PATH_BYTES + 32], config[MT_PATH_BYTES + 32];
    char checkpoints[MT_PATH_BYTES + 32], profile[MT_PATH_BYTES + 32];
    char samples[MT_PATH_BYTES + 32], tensorboard[MT_PATH_BYTES + 32];
    int lock_fd;       /* rank 0 holds the lock while the run lives; -1 elsewhere */
    size_t first_made; /* bytes of the highest folder's path that open made; 0: none */
    unsigned had;      /* names that were there before, one bit each (run_dir.c) */
};

/* Paths only. */
void mt_run_dir_init(struct mt_run_dir *dir, const struct mt_config *config);
/* Rank 0: makes the folders, takes the lock and removes what unfinished saves left, before anything
 * needs room. MT_ERR_CONFIG when another process has it, naming its host, pid and start, and when
 * the path is too long for what comes below it; MT_ERR_RESOURCE when the folder cannot be written,
 * or something else is there under the name of a file of the run. */
enum mt_status mt_run_dir_open(struct mt_run_dir *dir);
/* Rank 0, before close, of a start that came to nothing: what was not there before goes again,
 * files and folders. As far as that is possible; without the lock nothing is touched. */
void mt_run_dir_take_back(const struct mt_run_dir *dir);
void mt_run_dir_close(struct mt_run_dir *dir);
/* A run has begun here before: it left metrics. */
bool mt_run_dir_is_used(const struct mt_run_dir *dir);
/* Rank 0: config.toml, the resolved configuration. */
enum mt_status mt_run_dir_write_config(const struct mt_run_dir *dir,
                                       const struct mt_config *config);

#endif
