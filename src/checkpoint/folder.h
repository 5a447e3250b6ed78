/* The run's checkpoints/ folder: which steps there are, and removing them.
 *
 *   step-00000100         a checkpoint
 *   step-00000080.failed  set aside: starts from it came to nothing (attempts.h)
 *   step-00000120.left    set aside: training went on from an earlier one
 *   .step-00000200.tmp    being written, or left by a killed save
 *   .step-00000050.old.tmp  being removed, or left by a killed removal */
#ifndef MT_CHECKPOINT_FOLDER_H
#define MT_CHECKPOINT_FOLDER_H

#include "base/status.h"

#include <stdint.h>

enum { MT_STEP_NAME_BYTES = 48 };
void mt_folder_step_name(char *name, int64_t step);      /* [MT_STEP_NAME_BYTES] */
void mt_folder_temporary_name(char *name, int64_t step); /* [MT_STEP_NAME_BYTES] */

/* Of a checkpoint's name, spelled as above; -1: it is none. */
int64_t mt_folder_parse_step(const char *name);
/* Keeps a checkpoint under another name, as none; one of the same name from before goes. */
#define MT_ASIDE_FAILED ".failed"
#define MT_ASIDE_LEFT   ".left"
enum mt_status mt_folder_set_aside(const char *folder, int64_t step, const char *ending);
/* step [n], newest first; freed by mt_memory_free. n = 0 when the folder is missing. */
enum mt_status mt_folder_steps(const char *folder, int64_t **step, int64_t *n);
/* Removes what killed saves and removals left, all that it can; the first failure is returned. */
enum mt_status mt_folder_clean(const char *folder);
/* Removes a checkpoint: renamed first, so that a killed removal leaves no half checkpoint. */
enum mt_status mt_folder_discard(const char *folder, int64_t step);
/* What stays among the checkpoints up to one step: newer ones belong to a course of training that
 * was left. */
struct mt_folder_rule {
    int64_t keep;       /* newest; < 1: all */
    int64_t keep_every; /* and every so many steps; 0: none */
    int keep_full;      /* and so many newest that have all experts of their own step */
};
/* Removes all that it can; the first failure is returned. */
enum mt_status mt_folder_retire(const char *folder, int64_t newest,
                                const struct mt_folder_rule *rule);

#endif
