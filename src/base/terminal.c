#include "base/terminal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USUAL_COLUMNS = 80 };

static int columns_of(int fd)
{
    struct winsize size = {0};
    if (!isatty(fd)) {
        return 0;
    }
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        return USUAL_COLUMNS;
    }
    return size.ws_col;
}

int mt_terminal_columns(int fd)
{
    const char *kind = getenv("TERM");
    if (kind == NULL || strcmp(kind, "dumb") == 0) {
        return 0;
    }
    if (getenv("OMPI_COMM_WORLD_SIZE") == NULL) {
        return columns_of(fd);
    }
    char path[64];
    struct stat info;
    (void)snprintf(path, sizeof(path), "/proc/%ld/fd/%d", (long)getppid(), fd);
    if (stat(path, &info) != 0 || !S_ISCHR(info.st_mode)) {
        return 0;
    }
    const int parents = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (parents < 0) {
        return 0;
    }
    const int n_column = columns_of(parents);
    (void)close(parents);
    return n_column;
}
