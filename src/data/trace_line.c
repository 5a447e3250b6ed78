/* Lines of a text that somebody else may have made: any bytes, any length, cut anywhere. */
#include "base/memory.h"
#include "base/size.h"
#include "data/trace_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* 4096 ranks x 512 experts with counts of six digits are 15 MB a line. */
enum { FIRST_BYTES = 1 << 16, MAX_LINE_BYTES = 1 << 26 };

enum mt_status mt_trace_lines_fail(const struct mt_trace_lines *lines, const char *format, ...)
{
    char text[1024];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    return MT_FAIL(MT_ERR_INPUT, "%s:%lld: %s", lines->path, (long long)lines->number, text);
}

static enum mt_status open_regular(const char *path, bool write, int *descriptor)
{
    struct stat about;
    /* Not blocking: a pipe would wait for somebody to write into it. */
    *descriptor = open(path, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_NONBLOCK | O_CLOEXEC, 0666);
    if (*descriptor < 0) {
        return MT_FAIL(write ? MT_ERR_RESOURCE : MT_ERR_INPUT,
                       "cannot open %s: %s; a %s trace file was expected; check the path and its "
                       "permissions",
                       path, strerror(errno), write ? "writable" : "readable");
    }
    if (fstat(*descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
        (void)close(*descriptor);
        return MT_FAIL(MT_ERR_INPUT,
                       "%s is not a regular file; a trace in a file of its own was expected; check "
                       "the path",
                       path);
    }
    return MT_OK;
}

enum mt_status mt_trace_lines_open(struct mt_trace_lines *lines, const char *path, bool write)
{
    int descriptor = -1;
    *lines = (struct mt_trace_lines){.path = path, .capacity = FIRST_BYTES};
    MT_TRY(MT_ALLOCATE(lines->text, lines->capacity, "line of a trace"));
    MT_TRY(open_regular(path, write, &descriptor));
    lines->file = fdopen(descriptor, write ? "r+" : "r");
    if (lines->file == NULL) {
        (void)close(descriptor);
        return MT_FAIL(MT_ERR_RESOURCE, "cannot open %s: %s", path, strerror(errno));
    }
    return MT_OK;
}

void mt_trace_lines_close(struct mt_trace_lines *lines)
{
    if (lines->file != NULL) {
        (void)fclose(lines->file);
        lines->file = NULL;
    }
    mt_memory_free(lines->text);
    lines->text = NULL;
}

static enum mt_status grow(struct mt_trace_lines *lines)
{
    char *larger = NULL;
    if (lines->capacity == MAX_LINE_BYTES) {
        return mt_trace_lines_fail(lines,
                                   "a line of more than %d bytes; one layer's counts were "
                                   "expected; use .h5 for traces this large",
                                   MAX_LINE_BYTES - 1);
    }
    MT_TRY(MT_ALLOCATE(larger, 2 * lines->capacity, "line of a trace"));
    memcpy(larger, lines->text, (size_t)lines->capacity);
    mt_memory_free(lines->text);
    lines->text = larger;
    lines->capacity *= 2;
    return MT_OK;
}

/* Up to the newline; *last: that, or EOF. */
static enum mt_status read_text(struct mt_trace_lines *lines, int *last)
{
    lines->length = 0;
    *last = getc_unlocked(lines->file);
    while (*last != EOF && *last != '\n') {
        MT_TRY(lines->length + 1 == lines->capacity ? grow(lines) : MT_OK);
        lines->text[lines->length++] = (char)*last;
        *last = getc_unlocked(lines->file);
    }
    return MT_OK;
}

/* Spreadsheets begin a file with a byte-order mark and end lines with a carriage return. */
static void strip_marks(struct mt_trace_lines *lines)
{
    static const char mark[] = "\xEF\xBB\xBF";
    const int64_t n = (int64_t)sizeof(mark) - 1;
    if (lines->length > 0 && lines->text[lines->length - 1] == '\r') {
        --lines->length;
    }
    if (lines->offset == 0 && lines->length >= n && memcmp(lines->text, mark, (size_t)n) == 0) {
        lines->length -= n;
        memmove(lines->text, lines->text + n, (size_t)lines->length);
    }
}

enum mt_status mt_trace_lines_next(struct mt_trace_lines *lines, bool *found)
{
    int last = EOF;
    lines->offset = lines->end;
    ++lines->number;
    MT_TRY(read_text(lines, &last));
    if (ferror(lines->file) != 0) {
        return mt_trace_lines_fail(lines, "cannot be read: %s; check the disk", strerror(errno));
    }
    *found = last != EOF || lines->length > 0;
    lines->is_unended = last == EOF;
    lines->end = lines->offset + lines->length + (last == EOF ? 0 : 1);
    strip_marks(lines);
    lines->text[lines->length] = '\0';
    return MT_OK;
}

enum mt_status mt_trace_lines_seek(struct mt_trace_lines *lines, int64_t offset)
{
    /* Flushed first: what was read ahead may no longer be what the file holds. */
    if (fflush(lines->file) != 0 || fseeko(lines->file, (off_t)offset, SEEK_SET) != 0) {
        return MT_FAIL(MT_ERR_INPUT, "cannot read %s at offset %lld: %s; check the disk",
                       lines->path, (long long)offset, strerror(errno));
    }
    lines->end = offset;
    return MT_OK;
}
