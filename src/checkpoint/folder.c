#include "checkpoint/folder.h"

#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char STEP_PREFIX[] = "step-";
enum { MIN_STEP_DIGITS = 8, MAX_STEP_DIGITS = 18 };

void mt_folder_step_name(char *name, int64_t step)
{
    (void)snprintf(name, MT_STEP_NAME_BYTES, "%s%08lld", STEP_PREFIX, (long long)step);
}

void mt_folder_temporary_name(char *name, int64_t step)
{
    (void)snprintf(name, MT_STEP_NAME_BYTES, ".%s%08lld.tmp", STEP_PREFIX, (long long)step);
}

int64_t mt_folder_parse_step(const char *name)
{
    const size_t prefix = strlen(STEP_PREFIX);
    if (strncmp(name, STEP_PREFIX, prefix) != 0) {
        return -1;
    }
    const size_t n_digit = strlen(name + prefix);
    if (n_digit < MIN_STEP_DIGITS || n_digit > MAX_STEP_DIGITS ||
        strspn(name + prefix, "0123456789") != n_digit) {
        return -1;
    }
    const int64_t step = strtoll(name + prefix, NULL, 10);
    char spelled[MT_STEP_NAME_BYTES];
    mt_folder_step_name(spelled, step);
    return strcmp(name, spelled) == 0 ? step : -1; /* with more zeros it is another folder */
}

static int compare_newest_first(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;
    return x > y ? -1 : x < y;
}

enum mt_status mt_folder_steps(const char *folder, int64_t **step, int64_t *n)
{
    struct mt_disk_names names;
    *step = NULL;
    *n = 0;
    if (access(folder, F_OK) != 0 && errno == ENOENT) {
        return MT_OK;
    }
    MT_TRY(mt_disk_list(folder, &names));
    const enum mt_status status = MT_ALLOCATE(*step, names.n, "steps of checkpoints");
    for (int64_t i = 0; i < names.n && status == MT_OK; ++i) {
        const int64_t parsed = mt_folder_parse_step(names.name[i]);
        if (parsed >= 0) {
            (*step)[(*n)++] = parsed;
        }
    }
    mt_disk_names_clear(&names);
    MT_TRY(status);
    qsort(*step, (size_t)*n, sizeof(**step), compare_newest_first);
    return MT_OK;
}

static bool is_left_over(const char *name)
{
    const size_t length = strlen(name);
    return name[0] == '.' && strncmp(name + 1, STEP_PREFIX, strlen(STEP_PREFIX)) == 0 &&
           length > 4 && strcmp(name + length - 4, ".tmp") == 0;
}

static enum mt_status remove_from(const char *folder, const char *name)
{
    char path[MT_PATH_BYTES];
    MT_TRY(mt_disk_join(path, folder, name));
    return mt_disk_remove(path);
}

enum mt_status mt_folder_clean(const char *folder)
{
    struct mt_disk_names names;
    enum mt_status status = MT_OK;
    MT_TRY(mt_disk_list(folder, &names));
    for (int64_t i = 0; i < names.n; ++i) {
        if (is_left_over(names.name[i])) {
            const enum mt_status removed = remove_from(folder, names.name[i]);
            status = status == MT_OK ? removed : status;
        }
    }
    mt_disk_names_clear(&names);
    return status;
}

enum mt_status mt_folder_discard(const char *folder, int64_t step)
{
    char name[MT_STEP_NAME_BYTES];
    char removed[MT_STEP_NAME_BYTES + 16];
    mt_folder_step_name(name, step);
    (void)snprintf(removed, sizeof(removed), ".%s.old.tmp", name);
    MT_TRY(mt_disk_rename(folder, name, removed));
    return remove_from(folder, removed);
}

enum mt_status mt_folder_set_aside(const char *folder, int64_t step, const char *ending)
{
    char name[MT_STEP_NAME_BYTES];
    char aside[MT_STEP_NAME_BYTES + 16];
    mt_folder_step_name(name, step);
    (void)snprintf(aside, sizeof(aside), "%s%s", name, ending);
    MT_TRY(remove_from(folder, aside)); /* of the same step, once before */
    return mt_disk_rename(folder, name, aside);
}

static bool is_full(const char *folder, int64_t step)
{
    char name[MT_STEP_NAME_BYTES];
    char path[MT_PATH_BYTES];
    struct mt_manifest manifest;
    mt_folder_step_name(name, step);
    if (mt_disk_join(path, folder, name) != MT_OK || mt_manifest_read(path, &manifest) != MT_OK) {
        mt_error_clear();
        return false; /* nothing to fall back to */
    }
    const bool has_all = mt_manifest_is_full(&manifest);
    mt_manifest_clear(&manifest);
    return has_all;
}

/* step [n], newest first; those that go move to the front. Returns how many. */
static int64_t choose_old(const char *folder, int64_t newest, const struct mt_folder_rule *rule,
                          int64_t *step, int64_t n)
{
    int64_t n_seen = 0;
    int64_t n_old = 0;
    int n_full = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (step[i] > newest) {
            continue;
        }
        ++n_seen;
        const bool is_kept_full = n_full < rule->keep_full && is_full(folder, step[i]);
        n_full += is_kept_full;
        if (n_seen > rule->keep && !is_kept_full &&
            (rule->keep_every < 1 || step[i] % rule->keep_every != 0)) {
            step[n_old++] = step[i];
        }
    }
    return n_old;
}

enum mt_status mt_folder_retire(const char *folder, int64_t newest,
                                const struct mt_folder_rule *rule)
{
    int64_t *step = NULL;
    int64_t n = 0;
    if (rule->keep < 1) {
        return MT_OK;
    }
    MT_TRY(mt_folder_steps(folder, &step, &n));
    enum mt_status status = MT_OK;
    const int64_t n_old = choose_old(folder, newest, rule, step, n);
    for (int64_t i = 0; i < n_old; ++i) {
        const enum mt_status removed = mt_folder_discard(folder, step[i]);
        status = status == MT_OK ? removed : status;
    }
    mt_memory_free(step);
    return status;
}
