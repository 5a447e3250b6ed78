#include "checkpoint/checkpoint.h"

#include "base/memory.h"
#include "base/size.h"
#include "checkpoint/attempts.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"
#include "checkpoint/together.h"

#include <stdio.h>
#include <string.h>

/* Steps that are looked at: more invalid ones in a row are not an accident. */
enum { MAX_CANDIDATES = 1024, NOTHING = -1 };

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

/* Where a search stands. */
struct search {
    int64_t step;
    char *path; /* [MT_PATH_BYTES] */
    char *notes;
    size_t notes_bytes;
    bool has_passed_over; /* the one that is not trusted */
};

static void append_note(const struct search *search, const char *name, const char *text)
{
    char *notes = search->notes;
    const size_t used = strlen(notes);
    if (used < search->notes_bytes) {
        (void)snprintf(notes + used, search->notes_bytes - used, "%s%s is not used: %s",
                       used > 0 ? "\n" : "", name, text);
    }
}

/* Step `distrusted` is passed over. */
static enum mt_status find(struct mt_comm *comm, const char *folder, int64_t distrusted,
                           struct search *search)
{
    int64_t step[MAX_CANDIDATES];
    int64_t n = 0;
    char *path = search->path;
    path[0] = '\0';
    search->step = -1;
    if (search->notes_bytes > 0) {
        search->notes[0] = '\0';
    }
    MT_TRY(list_candidates(comm, folder, step, &n));
    for (int64_t i = 0; i < n; ++i) {
        char name[MT_STEP_NAME_BYTES];
        struct mt_manifest manifest;
        mt_folder_step_name(name, step[i]);
        if (step[i] == distrusted) {
            search->has_passed_over = true;
            append_note(search, name,
                        "all of the last starts from it ended before a step was done; it is kept "
                        "beside, as .failed: rename it back to try again");
            continue;
        }
        MT_TRY(mt_disk_join(path, folder, name));
        const enum mt_status status = mt_together_verify_step(comm, path, step[i], &manifest);
        if (status == MT_OK) {
            mt_manifest_clear(&manifest);
            search->step = step[i];
            return MT_OK;
        }
        path[0] = '\0';
        if (status != MT_ERR_INPUT) {
            return status; /* memory, communication: not the checkpoint's fault */
        }
        append_note(search, name, mt_error_last()->text);
        mt_error_clear();
    }
    return MT_OK;
}

enum mt_status mt_checkpoint_find(struct mt_comm *comm, const char *folder, char *path, char *notes,
                                  size_t notes_bytes)
{
    struct search search = {.path = path, .notes = notes, .notes_bytes = notes_bytes};
    return find(comm, folder, NOTHING, &search);
}

enum mt_status mt_checkpoint_find_to_start(struct mt_comm *comm, const char *folder, char *path,
                                           char *notes, size_t notes_bytes)
{
    struct search search = {.path = path, .notes = notes, .notes_bytes = notes_bytes};
    int64_t attempt[2] = {NOTHING, 0}; /* step, starts */
    if (comm->rank == 0) {
        mt_attempts_read(folder, &attempt[0], &attempt[1]);
    }
    MT_TRY(mt_together_share(comm, attempt, 2));
    const int64_t distrusted = attempt[1] >= MT_ATTEMPTS_MOST ? attempt[0] : NOTHING;
    MT_TRY(find(comm, folder, distrusted, &search));
    if (!search.has_passed_over) {
        return MT_OK;
    }
    if (search.step < 0) {
        return find(comm, folder, NOTHING, &search); /* the last one is never given up */
    }
    return mt_together_agree(
        comm, comm->rank == 0 ? mt_folder_set_aside(folder, distrusted, MT_ASIDE_FAILED) : MT_OK);
}
