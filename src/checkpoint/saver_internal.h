/* What saver.c and saver_begin.c share. */
#ifndef MT_CHECKPOINT_SAVER_INTERNAL_H
#define MT_CHECKPOINT_SAVER_INTERNAL_H

#include "checkpoint/commit.h"
#include "checkpoint/folder.h"
#include "checkpoint/gather.h"
#include "checkpoint/index.h"
#include "checkpoint/saver.h"
#include "checkpoint/shard.h"
#include "checkpoint/writer.h"

enum mt_saver_phase {
    MT_SAVER_IDLE,
    MT_SAVER_WRITING, /* every rank's shard */
    MT_SAVER_COMMITTING
};

struct mt_saver {
    struct mt_store *store;
    struct mt_comm *comm;
    const struct mt_checkpoint_options *options;
    float *staging; /* NULL: written from the store */
    struct mt_writer *writer;
    enum mt_saver_phase phase; /* the same on every rank, as is what follows */
    bool is_prepared;          /* the folder is there, and clean */
    int64_t newest;            /* step that the folder has */
    bool has_layout;
    uint64_t owners; /* hash of those that the layout is for */
    struct mt_shard shard;
    struct mt_gather gather;
    struct mt_manifest manifest; /* rank 0, as are index and commit */
    struct mt_index index;
    struct mt_commit commit;
    char name[MT_STEP_NAME_BYTES], temporary_name[MT_STEP_NAME_BYTES];
    char path[MT_PATH_BYTES], temporary[MT_PATH_BYTES], shard_path[MT_PATH_BYTES];
    struct mt_saver_times times;
    struct mt_saver_times task; /* parts of the running task, the writer's until it is done */
};

void mt_saver_clear_layout(struct mt_saver *saver);

#endif
