/* What a disk may hold after a crash: a recorded save (interpose.h), played again up to any call.
 *
 * A killed process leaves the effect of all its calls so far. A power cut leaves less: bytes last
 * when their file was synced, names when their folder was; of the rest any part may have reached
 * the disk. So the state after n calls is made of those that were synced among them, and of the
 * others none, all, or a seeded choice. Folders are at most one level deep. */
#ifndef MT_TEST_FAULT_CRASH_STATES_H
#define MT_TEST_FAULT_CRASH_STATES_H

#include "fault/interpose.h"

#include <stdbool.h>
#include <stdint.h>

struct mt_crash;

/* Before the save: what is in `folder` now is on the disk. */
struct mt_crash *mt_crash_begin(const char *folder);
/* After it: reads the records of n_rank ranks beside `control` (mt_fault_open). */
void mt_crash_read(struct mt_crash *crash, const char *control, int n_rank);
void mt_crash_end(struct mt_crash *crash);

int mt_crash_n_call(const struct mt_crash *crash);
/* One call, in the order in which they were made; path and path_to below the folder. */
struct mt_crash_call {
    enum mt_fault_call kind;
    int rank;
    bool creates, is_folder;
    const char *path, *path_to; /* "": the folder itself */
};
struct mt_crash_call mt_crash_call(const struct mt_crash *crash, int index);

/* What of the calls that were not synced is on the disk. */
enum mt_crash_luck { MT_LUCK_NONE, MT_LUCK_ALL, MT_LUCK_ANY };
/* Makes the folder `to`, which is missing, as readers see the disk after the first n calls.
 * is_torn: of the last of them, if a write, only half. seed: of MT_LUCK_ANY. False, and nothing is
 * made, when an earlier call made the same (after all n calls it is made in any case). */
bool mt_crash_make(struct mt_crash *crash, const char *to, int n, enum mt_crash_luck luck,
                   uint64_t seed, bool is_torn);

#endif
