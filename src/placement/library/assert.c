/* In the library nobody else may speak for a job: a bug ends the process at its place. */
#include "base/status.h"

#include <stdio.h>

void mt_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    (void)fprintf(stderr, "libmtplace: %s:%d: %s: assertion failed: %s; please report it\n", file,
                  line, function, condition);
    __builtin_trap();
}
