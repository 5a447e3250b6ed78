#include "checkpoint/commit.h"

#include "base/memory.h"
#include "checkpoint/checksum.h"
#include "checkpoint/disk.h"

#include <stdio.h>

/* Every rank has read its own shards back, but not where rank 0 sees them: on machines without a
 * disk in common each has a folder of that name. */
static enum mt_status check_shards(const struct mt_commit *commit)
{
    for (int64_t i = 1; i < commit->manifest->n_file; ++i) {
        const struct mt_manifest_file *file = &commit->manifest->file[i];
        const int64_t n_byte = mt_disk_size(commit->temporary, file->name);
        if (n_byte != file->n_byte) {
            return MT_FAIL(MT_ERR_RESOURCE,
                           "%s/%s %s, though a rank has written it; one folder for all ranks was "
                           "expected, which nobody else changes; put the run directory on a disk "
                           "that all machines share",
                           commit->temporary, file->name,
                           n_byte < 0 ? "is not there" : "has another size");
        }
    }
    return MT_OK;
}

/* A new file of the checkpoint, on the disk and read back. */
static enum mt_status add_file(const struct mt_commit *commit, const char *name, const char *data,
                               int64_t n_byte, uint64_t *checksum)
{
    char path[MT_PATH_BYTES];
    MT_TRY(mt_disk_join(path, commit->temporary, name));
    *checksum = XXH3_64bits(data, (size_t)n_byte);
    MT_TRY(mt_disk_write_file(path, data, n_byte));
    return mt_disk_read_back(path, n_byte, *checksum);
}

static enum mt_status add_index(struct mt_commit *commit)
{
    struct mt_manifest_file *file = &commit->manifest->file[0];
    file->n_byte = commit->index->n_byte;
    return add_file(commit, file->name, commit->index->image, file->n_byte, &file->checksum);
}

static enum mt_status add_manifest(const struct mt_commit *commit)
{
    char *text = NULL;
    int64_t n_byte = 0;
    uint64_t ignored = 0; /* the manifest ends in a checksum of its own */
    MT_TRY(mt_manifest_to_text(commit->manifest, &text, &n_byte));
    const enum mt_status status = add_file(commit, "manifest.json", text, n_byte, &ignored);
    mt_memory_free(text);
    return status;
}

enum mt_status mt_commit_run(struct mt_commit *commit)
{
    MT_TRY(check_shards(commit));
    MT_TRY(add_index(commit));
    MT_TRY(add_manifest(commit));
    MT_TRY(mt_disk_sync_folder(commit->temporary));
    MT_TRY(mt_disk_rename(commit->folder, commit->temporary_name, commit->name));
    if (mt_folder_retire(commit->folder, commit->step, &commit->rule) != MT_OK) {
        (void)snprintf(commit->warning, sizeof(commit->warning), "%.*s",
                       (int)sizeof(commit->warning) - 1, mt_error_last()->text);
        mt_error_clear();
    }
    return MT_OK;
}
