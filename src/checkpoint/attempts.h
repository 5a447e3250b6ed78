/* Starts from a checkpoint that came to nothing: checkpoints/attempts, "step-00000100 2".
 *
 * A checkpoint may be whole, and every start from it end before the first step is done: bytes that
 * were wrong when they were summed, a state that no step survives. A start writes itself down
 * before it loads, and takes that back when a step is done, or when it ends in order. Who was
 * killed or crashed cannot, so after MT_ATTEMPTS_MOST of them in a row the next start takes the
 * checkpoint before it. Rank 0 alone. */
#ifndef MT_CHECKPOINT_ATTEMPTS_H
#define MT_CHECKPOINT_ATTEMPTS_H

#include "base/status.h"

#include <stdint.h>

enum { MT_ATTEMPTS_MOST = 3 };

/* *n: starts from *step that were not taken back; 0: none, also when the file is no such file. */
void mt_attempts_read(const char *folder, int64_t *step, int64_t *n);
/* One more from this step. What cannot be written is not counted. */
void mt_attempts_add(const char *folder, int64_t step);
/* One less. */
void mt_attempts_take_back(const char *folder);
/* None. */
void mt_attempts_forget(const char *folder);

#endif
