#include "support/test.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void mt_test_expect_ok(enum mt_status status, const char *call, const char *file, int line)
{
    if (status != MT_OK) {
        print_error("%s: code %d: %s\n", call, (int)status, mt_error_last()->text);
        _fail(file, line);
    }
}

void mt_test_expect_failure(enum mt_status status, enum mt_status code, const char *part,
                            const char *call, const char *file, int line)
{
    const struct mt_error *error = mt_error_last();
    if (status != code || error->code != code || strstr(error->text, part) == NULL) {
        print_error("%s: expected code %d with \"%s\", got code %d with \"%s\"\n", call, (int)code,
                    part, (int)status, error->text);
        _fail(file, line);
    }
    mt_error_clear();
}

void mt_test_expect_assert(void (*body)(void *), void *context, const char *name, const char *file,
                           int line)
{
    int ends[2];
    if (pipe(ends) != 0) {
        _fail(file, line);
    }
    const pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        body(context);
        _exit(0);
    }
    char text[512];
    (void)close(ends[1]);
    const ssize_t n = child > 0 ? read(ends[0], text, sizeof(text) - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    (void)close(ends[0]);
    int state = 0;
    if (child < 0 || waitpid(child, &state, 0) != child || !WIFEXITED(state) ||
        WEXITSTATUS(state) != MT_ERR_INTERNAL || strstr(text, "does not hold") == NULL) {
        print_error("%s did not fail an assertion (wait status %x): %s\n", name, (unsigned)state,
                    text);
        _fail(file, line);
    }
}
