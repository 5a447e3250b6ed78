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

enum { MT_MAX_SHARDS = 1 + MT_EXPERT_PARTS };

/* Which of a rank's shards a save writes; the others are linked from the checkpoint before. The
 * same on every rank. */
struct mt_turn {
    bool has_base;   /* ... which this saver has committed under the layout in force */
    bool wants_full; /* the next save writes all */
    bool is_written[MT_MAX_SHARDS];
    int64_t n_since_full; /* saves */
    char base[MT_PATH_BYTES];
};

struct mt_saver {
    struct mt_store *store;
    struct mt_comm *comm;
    const struct mt_checkpoint_options *options;
    bool fetches;   /* from a GPU, before the writers begin */
    float *staging; /* NULL: written from the store */
    struct mt_writer *writer;
    enum mt_saver_phase phase; /* the same on every rank, as is what follows */
    bool is_prepared;          /* the folder is there, and clean */
    int64_t newest;            /* step that the folder has */
    bool has_layout;
    uint64_t owners; /* hash of those that the layout is for */
    int n_shard;     /* of a rank: 1, or 1 + MT_EXPERT_PARTS: dense tensors, parts of experts */
    struct mt_shard shard[MT_MAX_SHARDS];
    struct mt_turn turn;
    struct mt_gather gather;
    struct mt_manifest manifest; /* rank 0, as are index and commit */
    struct mt_index index;
    struct mt_commit commit;
    char name[MT_STEP_NAME_BYTES], temporary_name[MT_STEP_NAME_BYTES];
    char path[MT_PATH_BYTES], temporary[MT_PATH_BYTES];
    struct mt_saver_times times;
    struct mt_saver_times task; /* parts of the running task, the writer's until it is done */
};

/* Rank 0: something old could not be removed, which is no reason not to save; "": nothing. */
void mt_saver_warn(const struct mt_saver *saver, const char *text);
void mt_saver_clear_layout(struct mt_saver *saver);
struct mt_folder_rule mt_saver_rule(const struct mt_saver *saver);

/* ---- saver_turn.c ---- */
/* Of a rank: 1, or where experts are to be saved in turn, and there are some, MT_MAX_SHARDS. */
int mt_turn_n_shard(const struct mt_store *store, const struct mt_checkpoint_options *options);
/* Decides what the save of a step writes, and tells rank 0's manifest. */
void mt_turn_choose(struct mt_saver *saver, int64_t step, int64_t n_update);
/* The save is complete, or is none. */
void mt_turn_end(struct mt_saver *saver, bool is_complete);
/* What a GPU holds of a rank's shards is in staging afterwards; the CPU's stays where it is. */
enum mt_status mt_turn_fetch(struct mt_saver *saver);
/* The writer thread: a rank's shards are staged, then written and read back, or linked. */
void mt_turn_stage(struct mt_saver *saver);
enum mt_status mt_turn_write(struct mt_saver *saver, struct mt_saver_times *times);

#endif
