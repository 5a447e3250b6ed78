#include "support/folder.h"

#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>

enum { PATH_BYTES = 512 };

static char folder[PATH_BYTES / 2];

int mt_test_folder_make(void **state)
{
    const char *where = getenv("TMPDIR");
    MT_UNUSED(state);
    (void)snprintf(folder, sizeof(folder), "%s/mt-test-XXXXXX", where != NULL ? where : "/tmp");
    return mkdtemp(folder) == NULL;
}

int mt_test_folder_remove(void **state)
{
    char command[PATH_BYTES];
    MT_UNUSED(state);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command); /* NOLINT(cert-env33-c): the folder's name is this file's own */
}

const char *mt_test_folder(void)
{
    return folder;
}

const char *mt_test_path(const char *name)
{
    static char path[2][PATH_BYTES];
    static int next;
    next = !next;
    (void)snprintf(path[next], sizeof(path[next]), "%s/%s", folder, name);
    return path[next];
}
