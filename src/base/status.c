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
    return code;
}
