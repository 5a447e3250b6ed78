/* Saving: every rank writes its shard below a temporary name; rank 0 adds index and manifest and
 * renames. The order of the system calls is the promise:
 *
 *   each rank   shard: write, fsync                       -> agree
 *   rank 0      index: write, fsync;  manifest: write, fsync;  fsync temporary folder;
 *               rename;  fsync parent;  only then removal of old checkpoints
 *
 * Whenever it stops, the newest complete checkpoint is untouched. */
#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"
#include "checkpoint/gather.h"
#include "checkpoint/index.h"
#include "checkpoint/shard.h"
#include "checkpoint/together.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct save {
    struct mt_comm *comm;
    const struct mt_run_state *state;
    const struct mt_checkpoint_options *options;
    char name[MT_STEP_NAME_BYTES], temporary_name[MT_STEP_NAME_BYTES];
    char path[MT_PATH_BYTES], temporary[MT_PATH_BYTES];
    bool is_there;    /* something has the final name */
    bool is_complete; /* and it is a valid checkpoint */
    struct mt_shard shard;
};

static enum mt_status name_paths(struct save *save)
{
    const char *folder = save->options->folder;
    mt_folder_step_name(save->name, save->state->step);
    mt_folder_temporary_name(save->temporary_name, save->state->step);
    MT_TRY(mt_disk_join(save->path, folder, save->name));
    return mt_disk_join(save->temporary, folder, save->temporary_name);
}

/* Whether the step was saved before: a run that resumes and stops at once comes here again. */
static enum mt_status look_for_existing(struct save *save)
{
    struct mt_manifest manifest;
    int64_t is_there = access(save->path, F_OK) == 0;
    MT_TRY(mt_together_share(save->comm, &is_there, 1));
    save->is_there = is_there != 0;
    if (!save->is_there) {
        return MT_OK;
    }
    const enum mt_status status = mt_together_verify(save->comm, save->path, &manifest);
    save->is_complete = status == MT_OK;
    if (save->is_complete) {
        mt_manifest_clear(&manifest);
    }
    if (status == MT_ERR_INPUT) {
        mt_error_clear(); /* an invalid one is replaced */
        return MT_OK;
    }
    return status; /* memory, communication: it may be whole */
}

/* Rank 0. */
static enum mt_status make_room(const struct save *save)
{
    const char *folder = save->options->folder;
    MT_TRY(mt_disk_make_folder(folder));
    MT_TRY(mt_folder_clean(folder));
    if (save->is_there) {
        MT_TRY(mt_folder_discard(folder, save->state->step));
    }
    return mt_disk_make_folder(save->temporary);
}

static enum mt_status write_shard(struct save *save)
{
    char name[MT_MANIFEST_FILE_NAME_BYTES];
    char path[MT_PATH_BYTES];
    mt_manifest_file_name(name, save->comm->topology.n_rank, 1 + (int64_t)save->comm->rank);
    MT_TRY(mt_disk_join(path, save->temporary, name));
    return mt_shard_write(&save->shard, path);
}

static enum mt_status write_index(const struct save *save, struct mt_manifest *manifest)
{
    char path[MT_PATH_BYTES];
    struct mt_manifest_file *file = &manifest->file[0];
    MT_TRY(mt_disk_join(path, save->temporary, file->name));
    MT_TRY(mt_index_write(manifest, save->state, path));
    return mt_disk_checksum(path, &file->n_byte, &file->checksum);
}

static enum mt_status write_manifest(const struct save *save, const struct mt_manifest *manifest)
{
    char path[MT_PATH_BYTES];
    char *text = NULL;
    int64_t n_byte = 0;
    MT_TRY(mt_disk_join(path, save->temporary, "manifest.json"));
    MT_TRY(mt_manifest_to_text(manifest, &text, &n_byte));
    const enum mt_status status = mt_disk_write_file(path, text, n_byte);
    mt_memory_free(text);
    return status;
}

/* Rank 0. */
static enum mt_status commit(const struct save *save, struct mt_manifest *manifest)
{
    manifest->state = *save->state;
    manifest->state.n_array = 0;
    manifest->state.array = NULL;
    manifest->config_hash = save->options->config_hash;
    MT_TRY(write_index(save, manifest));
    MT_TRY(write_manifest(save, manifest));
    MT_TRY(mt_disk_sync_folder(save->temporary));
    return mt_disk_rename(save->options->folder, save->temporary_name, save->name);
}

/* All that may fail before the checkpoint is complete. */
static enum mt_status write_all(struct save *save, struct mt_store *store)
{
    struct mt_manifest manifest;
    struct mt_comm *comm = save->comm;
    MT_TRY(mt_together_agree(comm, comm->rank == 0 ? make_room(save) : MT_OK));
    enum mt_status status = mt_shard_plan(store, &save->shard);
    status = status == MT_OK ? write_shard(save) : status;
    MT_TRY(mt_together_agree(comm, status));
    MT_TRY(mt_gather_manifest(comm, &save->shard, save->options->config_text, &manifest));
    status = comm->rank == 0 ? commit(save, &manifest) : MT_OK;
    mt_manifest_clear(&manifest);
    return mt_together_agree(comm, status);
}

/* Gives a full disk its room back. Should that fail too, the next save tries again. */
static void remove_unfinished(const struct save *save)
{
    if (save->comm->rank == 0) {
        (void)mt_disk_remove(save->temporary);
    }
}

enum mt_status mt_checkpoint_save(struct mt_store *store, struct mt_comm *comm,
                                  const struct mt_run_state *state,
                                  const struct mt_checkpoint_options *options, char *path)
{
    struct save save = {.comm = comm, .state = state, .options = options};
    MT_TRY(name_paths(&save)); /* alike on every rank */
    MT_TRY(look_for_existing(&save));
    if (!save.is_complete) {
        const enum mt_status status = write_all(&save, store);
        mt_shard_clear(&save.shard);
        if (status != MT_OK) {
            remove_unfinished(&save);
            return status;
        }
    }
    if (path != NULL) {
        (void)snprintf(path, MT_PATH_BYTES, "%s", save.path);
    }
    const enum mt_status retired =
        comm->rank == 0
            ? mt_folder_retire(options->folder, state->step, options->keep, options->keep_every)
            : MT_OK;
    return mt_together_agree(comm, retired);
}
