/* The thread-local error record. It is static, so recording an error needs no memory. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local struct mt_error error_record;

const struct mt_error *mt_error_last(void)
{
    return &error_record;
}

void mt_error_clear(void)
{
    error_record.code = MT_OK;
    error_record.file = NULL;
    error_record.line = 0;
    error_record.text[0] = '\0';
}

/* Names from files, and paths, may hold what a terminal obeys; U+0080 to U+009F are C2 80 to C2 9F.
 * Ends of lines stay: a message may list several mistakes. */
static void hide_controls(char *text)
{
    for (char *c = text; *c != '\0'; ++c) {
        const unsigned char byte = (unsigned char)c[0];
        const unsigned char next = (unsigned char)c[1];
        const bool is_long = byte == 0xC2 && next >= 0x80 && next <= 0x9F;
        if ((byte < 0x20 && byte != '\n') || byte == 0x7F || is_long) {
            *c = '?';
            c[is_long] = '?';
        }
    }
}

enum mt_status mt_error_set(enum mt_status code, const char *file, int line, const char *format,
                            ...)
{
    MT_ASSERT(code >= 1 && code <= 255);
    if (error_record.code != MT_OK) {
        return code;
    }
    error_record.code = code;
    error_record.file = file;
    error_record.line = line;
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(error_record.text, sizeof(error_record.text), format, arguments);
    va_end(arguments);
    if (length < 0) {
        (void)snprintf(error_record.text, sizeof(error_record.text),
                       "(a message could not be formatted: %s)", format);
    }
    hide_controls(error_record.text);
    return code;
}
