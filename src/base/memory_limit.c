/* A cgroup's limit holds for all groups below it, so the path is walked from this process's group
 * up to the root; inside a container only the root may be visible, and that is enough. Page cache
 * that has not been used lately (inactive_file) is given back under pressure, so it counts as
 * available, as it does in MemAvailable. */
#include "base/memory_limit.h"

#include "base/memory.h"
#include "base/size.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* The two generations of the same files. */
struct cgroup_names {
    const char *line;   /* how the line in /proc/self/cgroup begins after its number */
    const char *folder; /* below the root */
    const char *limit;
    const char *usage;
    const char *reclaimable; /* key in memory.stat */
};
static const struct cgroup_names CGROUP_2 = {"::", "", "memory.max", "memory.current",
                                             "inactive_file"};
static const struct cgroup_names CGROUP_1 = {":memory:", "/memory", "memory.limit_in_bytes",
                                             "memory.usage_in_bytes", "total_inactive_file"};

/* The number after `key` at the start of a line of the file; "" means the file's first number.
 * -1: no such file, line or number. */
static int64_t read_number(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return -1;
    }
    const size_t key_bytes = strlen(key);
    char line[256];
    int64_t number = -1;
    while (number < 0 && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, key_bytes) != 0) {
            continue;
        }
        char *end = NULL;
        errno = 0;
        const long long value = strtoll(line + key_bytes, &end, 10);
        if (end != line + key_bytes && errno == 0 && value >= 0) {
            number = value;
        }
    }
    (void)fclose(file);
    return number;
}

/* What one group allows still; INT64_MAX when it sets no limit. */
static int64_t group_available(const char *folder, const struct cgroup_names *names)
{
    char path[PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, names->limit);
    const int64_t limit = read_number(path, "");
    (void)snprintf(path, sizeof(path), "%s/%s", folder, names->usage);
    const int64_t usage = read_number(path, "");
    /* Version 1 writes "no limit" as 2^63 rounded down to a page. */
    if (limit < 0 || usage < 0 || limit >= INT64_MAX - (1 << 24)) {
        return INT64_MAX;
    }
    (void)snprintf(path, sizeof(path), "%s/memory.stat", folder);
    char key[32];
    (void)snprintf(key, sizeof(key), "%s ", names->reclaimable);
    const int64_t reclaimable = mt_max_i64(read_number(path, key), 0);
    return mt_max_i64(limit - usage + mt_min_i64(reclaimable, usage), 0);
}

/* The least of all groups from `group` (e.g. "/user/job") up to the root. */
static int64_t path_available(const char *cgroup_root, char *group,
                              const struct cgroup_names *names)
{
    char folder[PATH_MAX];
    int64_t available = INT64_MAX;
    for (;;) {
        const int length =
            snprintf(folder, sizeof(folder), "%s%s%s", cgroup_root, names->folder, group);
        if (length > 0 && length < (int)sizeof(folder)) {
            available = mt_min_i64(available, group_available(folder, names));
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return available;
        }
        *slash = '\0';
    }
}

static int64_t cgroup_available(const char *proc_root, const char *cgroup_root)
{
    char line[PATH_MAX];
    (void)snprintf(line, sizeof(line), "%s/self/cgroup", proc_root);
    FILE *file = fopen(line, "re");
    if (file == NULL) {
        return INT64_MAX;
    }
    int64_t available = INT64_MAX;
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *rest = strchr(line, ':');
        const struct cgroup_names *all[] = {&CGROUP_2, &CGROUP_1};
        for (int i = 0; rest != NULL && i < 2; ++i) {
            const size_t n = strlen(all[i]->line);
            if (strncmp(rest, all[i]->line, n) == 0) {
                available = mt_min_i64(available, path_available(cgroup_root, rest + n, all[i]));
                break;
            }
        }
    }
    (void)fclose(file);
    return available;
}

static int64_t status_kib(const char *proc_root, const char *key)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/self/status", proc_root);
    return read_number(path, key);
}

int64_t mt_memory_limit_available_bytes(const char *proc_root, const char *cgroup_root)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/meminfo", proc_root);
    const int64_t machine_kib = read_number(path, "MemAvailable:");
    int64_t available = machine_kib < 0 ? INT64_MAX : machine_kib * 1024;
    available = mt_min_i64(available, cgroup_available(proc_root, cgroup_root));
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur <= INT64_MAX) {
        const int64_t used = mt_max_i64(status_kib(proc_root, "VmSize:"), 0) * 1024;
        available = mt_min_i64(available, mt_max_i64((int64_t)limit.rlim_cur - used, 0));
    }
    return available;
}

int64_t mt_memory_available_bytes(void)
{
    return mt_memory_limit_available_bytes("/proc", "/sys/fs/cgroup");
}

int64_t mt_memory_peak_resident_bytes(void)
{
    /* Not getrusage: its ru_maxrss survives exec, so a fat parent would show. */
    return mt_max_i64(status_kib("/proc", "VmHWM:"), 0) * 1024;
}
