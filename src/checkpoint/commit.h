/* What makes shards a checkpoint: index and manifest beside them, then the name. Rank 0's work, by
 * its writer thread, after every rank's shard is on the disk. */
#ifndef MT_CHECKPOINT_COMMIT_H
#define MT_CHECKPOINT_COMMIT_H

#include "checkpoint/folder.h"
#include "checkpoint/index.h"
#include "checkpoint/manifest.h"

enum { MT_COMMIT_WARNING_BYTES = 2048 };

struct mt_commit {
    const char *folder;         /* the run's checkpoints/ */
    const char *temporary;      /* path of the unfinished checkpoint */
    const char *temporary_name; /* of it, in folder */
    const char *name;           /* that it gets */
    int64_t step;
    struct mt_folder_rule rule; /* what of older ones stays */
    const struct mt_index *index;
    struct mt_manifest *manifest;          /* but for the index's size and checksum */
    char warning[MT_COMMIT_WARNING_BYTES]; /* after success: an old one that could not go; or "" */
};

/* Order: all shards are there; index written, synced, read back; manifest likewise; the temporary
 * folder synced; renamed; the parent synced; then old checkpoints go, as far as they can: the new
 * one is saved either way. */
enum mt_status mt_commit_run(struct mt_commit *commit);

#endif
