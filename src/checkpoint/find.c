#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"
#include "checkpoint/together.h"

#include <stdio.h>
#include <string.h>

/* Steps that are looked at: more invalid ones in a row are not an accident. */
enum { MAX_CANDIDATES = 1024 };

/* Rank 0 lists: folders of a network file system need not look the same to all ranks. step
 * [MAX_CANDIDATES], newest first */
static enum mt_status list_candidates(struct mt_comm *comm, const char *folder, int64_t *step,
                                      int64_t *n)
{
    enum mt_status status = MT_OK;
    int64_t *listed = NULL;
    *n = 0;
    if (comm->rank == 0) {
        status = mt_folder_steps(folder, &listed, n);
        *n = mt_min_i64(*n, MAX_CANDIDATES);
        if (*n > 0) {
            memcpy(step, listed, (size_t)*n * sizeof(*step));
        }
        mt_memory_free(listed);
    }
    MT_TRY(mt_together_agree(comm, status));
    MT_TRY(mt_together_share(comm, n, 1));
    return mt_together_share(comm, step, *n);
}

static void append_note(char *notes, size_t notes_bytes, const char *name, const char *text)
{
    const size_t used = strlen(notes);
    if (used < notes_bytes) {
        (void)snprintf(notes + used, notes_bytes - used, "%s%s is not used: %s",
                       used > 0 ? "\n" : "", name, text);
    }
}

enum mt_status mt_checkpoint_find(struct mt_comm *comm, const char *folder, char *path, char *notes,
                                  size_t notes_bytes)
{
    int64_t step[MAX_CANDIDATES];
    int64_t n = 0;
    path[0] = '\0';
    if (notes_bytes > 0) {
        notes[0] = '\0';
    }
    MT_TRY(list_candidates(comm, folder, step, &n));
    for (int64_t i = 0; i < n; ++i) {
        char name[MT_STEP_NAME_BYTES];
        struct mt_manifest manifest;
        mt_folder_step_name(name, step[i]);
        MT_TRY(mt_disk_join(path, folder, name));
        const enum mt_status status = mt_together_verify(comm, path, &manifest);
        if (status == MT_OK) {
            mt_manifest_clear(&manifest);
            return MT_OK;
        }
        path[0] = '\0';
        if (status != MT_ERR_INPUT) {
            return status; /* memory, communication: not the checkpoint's fault */
        }
        append_note(notes, notes_bytes, name, mt_error_last()->text);
        mt_error_clear();
    }
    return MT_OK;
}
