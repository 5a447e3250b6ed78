/* A file of JSON lines, whatever is there under its name: a pipe, a folder, a line without end. */
#ifndef MT_PROFILE_LINES_H
#define MT_PROFILE_LINES_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

/* 16 MiB; a run's longest, the rows of 4096 experts in 64 layers, takes 4. */
enum { MT_LINE_BYTES = 1 << 24 };

struct mt_lines {
    int descriptor;
    char *text; /* [MT_LINE_BYTES] of which [next, n) is read and not handed out */
    int64_t next, n;
    int64_t first;    /* [first, next) is the line that was handed out last, ... */
    bool has_newline; /* ... with its newline; the last one of a file may have none */
    bool is_too_long; /* a line has more than MT_LINE_BYTES: it is the end */
    bool has_failed;  /* the disk: it is the end */
};

/* Opens a regular file, without ever waiting; `expected` as in base/input_file.h. MT_ERR_INPUT,
 * MT_ERR_RESOURCE. */
enum mt_status mt_lines_open(const char *path, const char *expected, struct mt_lines *lines);
void mt_lines_close(struct mt_lines *lines);

/* *line: the next one, the caller's to json_decref; NULL: it is no JSON, or *is_blank. False at the
 * end. */
bool mt_lines_next(struct mt_lines *lines, json_t **line, bool *is_blank);

#endif
