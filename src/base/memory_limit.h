/* How much memory this process may still take: the machine's MemAvailable, narrowed by the cgroup
 * (version 1 or 2) and by RLIMIT_AS. Reads /proc and /sys/fs/cgroup; used by memory.c and its
 * tests only. */
#ifndef MT_BASE_MEMORY_LIMIT_H
#define MT_BASE_MEMORY_LIMIT_H

#include <stdint.h>

/* The same with the two trees elsewhere, for tests. INT64_MAX: nothing known. */
int64_t mt_memory_limit_available_bytes(const char *proc_root, const char *cgroup_root);

#endif
