#include "checkpoint/attempts.h"

#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/folder.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BYTES = 64 };

/* False: no room for the path, so there is no such file either. */
static bool path_of(char *path, const char *folder)
{
    const bool fits = mt_disk_join(path, folder, "attempts") == MT_OK;
    if (!fits) {
        mt_error_clear();
    }
    return fits;
}

void mt_attempts_read(const char *folder, int64_t *step, int64_t *n)
{
    char path[MT_PATH_BYTES];
    char name[MT_STEP_NAME_BYTES] = "";
    char *text = NULL;
    int64_t n_byte = 0;
    int count = 0;
    *step = -1;
    *n = 0;
    if (!path_of(path, folder) || access(path, F_OK) != 0) {
        return;
    }
    if (mt_disk_read_file(path, MAX_BYTES, &text, &n_byte) != MT_OK) {
        mt_error_clear();
        return;
    }
    /* NOLINTNEXTLINE(cert-err34-c): a number that does not fit is no step that is there */
    if (sscanf(text, "%47s %d", name, &count) == 2 && count > 0) {
        *step = mt_folder_parse_step(name);
        *n = *step >= 0 ? count : 0;
    }
    mt_memory_free(text);
}

static void put(const char *folder, int64_t step, int64_t n)
{
    char path[MT_PATH_BYTES];
    char name[MT_STEP_NAME_BYTES];
    char text[MAX_BYTES + 1];
    if (!path_of(path, folder)) {
        return;
    }
    (void)unlink(path);
    mt_folder_step_name(name, step);
    const int n_byte = snprintf(text, sizeof(text), "%s %lld\n", name, (long long)n);
    if (n > 0 && mt_disk_write_file(path, text, n_byte) != MT_OK) {
        mt_error_clear();
    }
}

void mt_attempts_add(const char *folder, int64_t step)
{
    int64_t known = -1;
    int64_t n = 0;
    mt_attempts_read(folder, &known, &n);
    put(folder, step, known == step ? n + 1 : 1);
}

void mt_attempts_take_back(const char *folder)
{
    int64_t step = -1;
    int64_t n = 0;
    mt_attempts_read(folder, &step, &n);
    if (n > 0) {
        put(folder, step, n - 1);
    }
}

void mt_attempts_forget(const char *folder)
{
    char path[MT_PATH_BYTES];
    if (path_of(path, folder)) {
        (void)unlink(path);
    }
}
