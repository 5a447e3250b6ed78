/* What this process asks of the disk below one folder: recorded, held up, refused or falsified. A
 * listener of fault/interpose.h, which test programs link beside this. */
#ifndef MT_TEST_CHECKPOINT_INTERCEPT_H
#define MT_TEST_CHECKPOINT_INTERCEPT_H

#include <stdbool.h>
#include <stdint.h>

/* From here on; forgets what was. folder: an absolute path. */
void mt_test_intercept(const char *folder);
void mt_test_intercept_end(void);

/* Calls as text, "write shard-00000-of-00002.h5", "sync .", "rename .step-00000001.tmp"; paths
 * begin below the folder; equal ones in a row count once. */
int mt_test_intercept_count(void);
const char *mt_test_intercept_line(int index);
/* Index of the first such line from `from` on; -1: none. */
int mt_test_intercept_find(const char *line, int from);

/* Writes to files with `name` in their path wait until let go. "": none. */
void mt_test_intercept_hold(const char *name);
/* The k-th write (from 0) to a file with `name` in its path fails with `error`. */
void mt_test_intercept_fail(const char *name, int64_t k, int error);
/* The first byte of the first write to such a file is another one on the disk. */
void mt_test_intercept_falsify(const char *name);

#endif
