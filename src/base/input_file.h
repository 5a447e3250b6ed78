/* Files that somebody else made: a name may be a pipe that waits for ever, a folder, or a terabyte.
 */
#ifndef MT_BASE_INPUT_FILE_H
#define MT_BASE_INPUT_FILE_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the regular file `path` for reading, without ever waiting, and measures it. `expected` ends
 * the message: "a data file was expected; check the path". MT_ERR_INPUT, and *descriptor = -1. */
enum mt_status mt_input_open(const char *path, const char *expected, int *descriptor,
                             int64_t *n_byte);

/* All of it into *data [*n_byte + 1, a 0 behind the last], the caller's to mt_memory_free. A file
 * of more than `most` bytes is refused before memory is taken for it. MT_ERR_INPUT,
 * MT_ERR_RESOURCE; *data = NULL then. */
enum mt_status mt_input_read(const char *path, const char *expected, int64_t most, char **data,
                             int64_t *n_byte);

/* What a library quotes from such a file, for a message of one line: what is not printable ASCII
 * becomes '?'. Returns text. */
char *mt_input_quote(char *text);

/* Bytes [offset, offset + n_byte) into data; returns how many there are, fewer only where the file
 * ends. -1: errno says why they cannot be read. */
int64_t mt_input_read_at(int descriptor, int64_t offset, void *data, int64_t n_byte);

#ifdef __cplusplus
}
#endif

#endif
