/* Files that other programs wrote: nothing in them is trusted, and every one that is read whole has
 * a most that it may have. What is wrong with them is MT_ERR_INPUT, naming the file. */
#ifndef MT_INTERCHANGE_FOREIGN_H
#define MT_INTERCHANGE_FOREIGN_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

/* Of config.json, of an index and of a header. The index of a model with 384 experts in each of 61
 * layers has 8 MB. Parsed, text takes about ten times its bytes, and at most thirty: one with more
 * values than a quarter of its bytes, of which such files have an eighth, is not parsed. */
enum { MT_FOREIGN_MOST_BYTES = 16 << 20, MT_FOREIGN_VALUE_BYTES = 4 };

enum mt_status mt_foreign_open(const char *path, int *descriptor, int64_t *n_byte);
/* data [n_byte] from offset, whole. */
enum mt_status mt_foreign_read(int descriptor, const char *path, int64_t offset, void *data,
                               int64_t n_byte);
bool mt_foreign_is_there(const char *folder, const char *name);

/* text [n_byte] as a JSON object without duplicate keys; `what` names it, "the header".
 * json_decref. */
enum mt_status mt_foreign_parse(const char *path, const char *what, const char *text,
                                int64_t n_byte, json_t **object);
/* A file that is one JSON object. */
enum mt_status mt_foreign_read_json(const char *path, json_t **object);

/* A value as JSON in ASCII, cut where it is long, for messages. text [n_byte] */
void mt_foreign_describe(const json_t *value, char *text, size_t n_byte);
/* Names go into messages, which are one line: no control characters, 1 to most bytes. */
bool mt_foreign_is_name(const char *name, size_t most);

#endif
