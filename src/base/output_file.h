/* Files that people ask for by name: they are there whole, or what was there before is.
 *
 * Written under a passing name in the same folder, synced, then renamed. */
#ifndef MT_BASE_OUTPUT_FILE_H
#define MT_BASE_OUTPUT_FILE_H

#include "base/status.h"

#include <stdio.h>

enum { MT_OUTPUT_PATH_BYTES = 4096 + 64 };

struct mt_output {
    FILE *file;         /* to write into */
    const char *advice; /* ends messages: "choose another with -o" */
    char path[MT_OUTPUT_PATH_BYTES], passing[MT_OUTPUT_PATH_BYTES];
};

/* `path` may be a regular file or a link to one, which are replaced; pipes, devices and folders are
 * refused. MT_ERR_RESOURCE. */
enum mt_status mt_output_open(const char *path, const char *advice, struct mt_output *output);
/* Puts the file in its place; `error`, of errno, not 0: its content could not be written, and
 * nothing is left of it. Closes in either case. MT_ERR_RESOURCE. */
enum mt_status mt_output_close(struct mt_output *output, int error);

#endif
