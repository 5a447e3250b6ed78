#include "profile/lines.h"

#include "base/input_file.h"
#include "base/memory.h"
#include "base/size.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

enum mt_status mt_lines_open(const char *path, const char *expected, struct mt_lines *lines)
{
    int64_t n_byte = 0;
    *lines = (struct mt_lines){.descriptor = -1};
    MT_TRY(mt_input_open(path, expected, &lines->descriptor, &n_byte));
    const enum mt_status status = MT_ALLOCATE(lines->text, MT_LINE_BYTES, "lines of a file");
    if (status != MT_OK) {
        mt_lines_close(lines);
    }
    return status;
}

void mt_lines_close(struct mt_lines *lines)
{
    (void)close(lines->descriptor);
    mt_memory_free(lines->text);
    *lines = (struct mt_lines){.descriptor = -1};
}

/* More of the file behind what is there; false: there is none. */
static bool read_more(struct mt_lines *lines)
{
    ssize_t got = 0;
    memmove(lines->text, lines->text + lines->next, (size_t)(lines->n - lines->next));
    lines->n -= lines->next;
    lines->next = 0;
    lines->is_too_long = lines->n == MT_LINE_BYTES;
    const size_t most = (size_t)mt_min_i64(READ_BYTES, MT_LINE_BYTES - lines->n);
    do {
        got = most > 0 ? read(lines->descriptor, lines->text + lines->n, most) : 0;
    } while (got < 0 && errno == EINTR);
    lines->has_failed = got < 0;
    lines->n += got > 0 ? got : 0;
    return got > 0;
}

bool mt_lines_next(struct mt_lines *lines, json_t **line, bool *is_blank)
{
    const char *end = NULL;
    int64_t n = 0;
    do {
        end = memchr(lines->text + lines->next, '\n', (size_t)(lines->n - lines->next));
    } while (end == NULL && read_more(lines));
    if (lines->is_too_long || lines->has_failed || lines->next == lines->n) {
        return false;
    }
    const char *begin = lines->text + lines->next;
    n = end != NULL ? end - begin : lines->n - lines->next; /* the last one may have no end */
    *is_blank = n == 0;
    *line = json_loadb(begin, (size_t)n, 0, NULL);
    lines->first = lines->next;
    lines->has_newline = end != NULL;
    lines->next += end != NULL ? n + 1 : n;
    return true;
}
