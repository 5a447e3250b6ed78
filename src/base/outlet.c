#include "base/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a reader may keep a line waiting; after a line was dropped, not at all. */
enum { PATIENCE_MS = 200 };

static int outlet = -1;
static bool is_stuck;

/* Terminals and pipes are opened again: O_NONBLOCK on the descriptor we were given would reach
 * whoever shares it, the user's shell among them. Files do not block, and keep their offset. */
void mt_outlet_open(void)
{
    struct stat about;
    if (outlet > STDERR_FILENO) {
        (void)close(outlet);
    }
    outlet = STDOUT_FILENO;
    is_stuck = false;
    if (fstat(STDOUT_FILENO, &about) == 0 && (S_ISCHR(about.st_mode) || S_ISFIFO(about.st_mode))) {
        const int again =
            open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_APPEND);
        outlet = again >= 0 ? again : STDOUT_FILENO;
    }
}

void mt_outlet_write(const char *text, size_t bytes)
{
    if (outlet < 0) {
        mt_outlet_open();
    }
    while (bytes > 0) {
        struct pollfd ready = {.fd = outlet, .events = POLLOUT};
        if (poll(&ready, 1, is_stuck ? 0 : PATIENCE_MS) <= 0 || (ready.revents & POLLOUT) == 0) {
            is_stuck = true;
            return;
        }
        const ssize_t n = write(outlet, text, bytes);
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            return; /* nobody listens */
        }
        is_stuck = n < 0 && errno == EAGAIN; /* room was promised and is gone: wait no longer */
        if (is_stuck) {
            return;
        }
        if (n > 0) {
            text += n;
            bytes -= (size_t)n;
        }
    }
}
