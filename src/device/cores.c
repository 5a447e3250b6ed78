#include "device/cores.h"

#include "base/size.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

/* CPUs' worth of time in cgroup v2's cpu.max ("200000 100000" is 2). A container's own group is the
 * root of what it sees, so one file is enough. */
int mt_cores_quota(void)
{
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file == NULL) {
        return 0;
    }
    char line[64] = "";
    const bool has_line = fgets(line, sizeof(line), file) != NULL;
    (void)fclose(file);
    char *end = line;
    const int64_t quota = has_line ? strtoll(line, &end, 10) : 0;
    const int64_t period = strtoll(end, NULL, 10);
    if (quota <= 0 || period <= 0) {
        return 0; /* "max 100000" */
    }
    return (int)mt_min_i64(mt_ceil_div(quota, period), 1 << 20);
}

/* Where the system shows no cores, its processing units are taken for them. */
static hwloc_obj_type_t core_type(hwloc_topology_t topology)
{
    return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

struct mt_core_set mt_cores_of(hwloc_topology_t topology, hwloc_const_cpuset_t set)
{
    const hwloc_obj_type_t type = core_type(topology);
    const int n_core = hwloc_get_nbobjs_by_type(topology, type);
    struct mt_core_set cores = {0, 0, 0};
    for (int i = 0; i < n_core; ++i) {
        const struct hwloc_obj *core = hwloc_get_obj_by_type(topology, type, (unsigned)i);
        if (hwloc_bitmap_intersects(core->cpuset, set)) {
            cores.first = cores.n == 0 ? i : cores.first;
            cores.last = i;
            ++cores.n;
        }
    }
    return cores;
}

bool mt_cores_units(hwloc_topology_t topology, hwloc_const_cpuset_t set, int index,
                    hwloc_bitmap_t out)
{
    const hwloc_obj_type_t type = core_type(topology);
    const int n_core = hwloc_get_nbobjs_by_type(topology, type);
    int n_before = 0;
    for (int i = 0; i < n_core; ++i) {
        const struct hwloc_obj *core = hwloc_get_obj_by_type(topology, type, (unsigned)i);
        if (hwloc_bitmap_intersects(core->cpuset, set) && n_before++ == index) {
            return hwloc_bitmap_and(out, core->cpuset, set) == 0;
        }
    }
    return false;
}

static bool is_same(const struct mt_core_set *a, const struct mt_core_set *b)
{
    return a->n == b->n && a->first == b->first && a->last == b->last;
}

/* Cores of all ranks together, as far as sets do not overlap. */
static int64_t count_all(const struct mt_core_set *set, int local_size)
{
    int64_t n = 0;
    for (int i = 0; i < local_size; ++i) {
        bool is_new = true;
        for (int j = 0; j < i && is_new; ++j) {
            is_new = !is_same(&set[j], &set[i]);
        }
        n += is_new ? set[i].n : 0;
    }
    return n;
}

static bool is_apart(const struct mt_core_set *a, const struct mt_core_set *b)
{
    return a->last < b->first || b->last < a->first;
}

struct mt_core_share mt_cores_share(const struct mt_core_set *set, int local_size, int local,
                                    int n_quota)
{
    MT_ASSERT(local >= 0 && local < local_size);
    const struct mt_core_set *mine = &set[local];
    int64_t n_same = 1;  /* with my set, me too */
    int64_t n_lower = 0; /* of these, before me */
    int64_t n_close = 1; /* whose sets overlap mine, me too */
    for (int i = 0; i < local_size; ++i) {
        const bool is_other = i != local;
        n_same += is_other && is_same(&set[i], mine) ? 1 : 0;
        n_lower += i < local && is_same(&set[i], mine) ? 1 : 0;
        n_close += is_other && !is_apart(&set[i], mine) ? 1 : 0;
    }
    const bool is_short = n_quota > 0 && n_quota < count_all(set, local_size);
    int64_t n = mine->n / n_close;
    if (is_short) {
        n = mt_min_i64(n, n_quota / local_size);
    }
    struct mt_core_share share = {.n = mt_size_to_int(mt_max_i64(1, n))};
    share.is_alone = !is_short && n_close == n_same && mine->n >= n_same;
    share.start = share.is_alone ? mt_size_to_int(n_lower * mine->n / n_same) : 0;
    return share;
}

/* What the process was bound to before it bound its threads: read once. */
static hwloc_bitmap_t read_granted(hwloc_topology_t topology)
{
    static hwloc_bitmap_t granted;
    if (granted != NULL) {
        return granted;
    }
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set == NULL || hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) != 0) {
        hwloc_bitmap_free(set);
        return NULL;
    }
    granted = set;
    return granted;
}

/* This machine and what this process is granted of it. NULL: hwloc cannot say. */
static hwloc_topology_t open_machine(hwloc_bitmap_t *granted)
{
    hwloc_topology_t topology = NULL;
    *granted = NULL;
    if (hwloc_topology_init(&topology) != 0) {
        return NULL;
    }
    if (hwloc_topology_load(topology) == 0) {
        *granted = read_granted(topology);
    }
    if (*granted == NULL) {
        hwloc_topology_destroy(topology);
        return NULL;
    }
    return topology;
}

struct mt_core_set mt_cores_granted(void)
{
    struct mt_core_set set = {0, 0, 0};
    hwloc_bitmap_t granted = NULL;
    hwloc_topology_t topology = open_machine(&granted);
    if (topology != NULL) {
        set = mt_cores_of(topology, granted);
        hwloc_topology_destroy(topology);
    }
    return set;
}

static bool bind_threads(hwloc_topology_t topology, hwloc_const_bitmap_t granted, int start,
                         int n_thread)
{
    int n_bound = 0;
#pragma omp parallel num_threads(n_thread) reduction(+ : n_bound)
    {
        hwloc_bitmap_t core = hwloc_bitmap_alloc();
        if (core != NULL && mt_cores_units(topology, granted, start + omp_get_thread_num(), core) &&
            hwloc_set_cpubind(topology, core, HWLOC_CPUBIND_THREAD) == 0) {
            n_bound = 1;
        }
        hwloc_bitmap_free(core);
    }
    if (n_bound == n_thread) {
        return true;
    }
#pragma omp parallel num_threads(n_thread)
    (void)hwloc_set_cpubind(topology, granted, HWLOC_CPUBIND_THREAD);
    return false;
}

/* The units of cores start .. start + n - 1 of the set. */
static void describe(hwloc_topology_t topology, hwloc_const_bitmap_t set,
                     const struct mt_core_share *share, char *text, size_t bytes)
{
    hwloc_bitmap_t all = hwloc_bitmap_alloc();
    hwloc_bitmap_t core = hwloc_bitmap_alloc();
    for (int i = 0; all != NULL && core != NULL && i < share->n; ++i) {
        if (mt_cores_units(topology, set, share->start + i, core)) {
            (void)hwloc_bitmap_or(all, all, core);
        }
    }
    if (all != NULL) {
        (void)hwloc_bitmap_list_snprintf(text, bytes, all);
    }
    hwloc_bitmap_free(all);
    hwloc_bitmap_free(core);
}

bool mt_cores_bind(const struct mt_core_share *share, int n_thread, char *text, size_t bytes)
{
    MT_ASSERT(share->is_alone && n_thread == share->n && bytes > 0);
    hwloc_bitmap_t granted = NULL;
    hwloc_topology_t topology = open_machine(&granted);
    text[0] = '\0';
    if (topology == NULL) {
        return false;
    }
    const bool is_bound = bind_threads(topology, granted, share->start, n_thread);
    if (is_bound) {
        describe(topology, granted, share, text, bytes);
    }
    hwloc_topology_destroy(topology);
    return is_bound;
}
