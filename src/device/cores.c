#include "device/cores.h"

#include "base/size.h"

#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>

int mt_cores_divide(int n_granted, int n_bound, int n_quota, int local_size)
{
    const int64_t n_usable = n_quota > 0 ? mt_min_i64(n_granted, n_quota) : n_granted;
    const int64_t share = mt_max_i64(1, n_usable / local_size);
    return mt_size_to_int(mt_max_i64(1, mt_min_i64(share, n_bound)));
}

/* CPUs' worth of time in cgroup v2's cpu.max ("200000 100000" is 2); 0 = no limit. A container's
 * own group is the root of what it sees, so one file is enough. */
static int read_quota(void)
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

/* Cores, not hardware threads: two threads of a core share the units that matrix products fill. */
static int count_cores(hwloc_topology_t topology, hwloc_const_cpuset_t set)
{
    const int n_core = hwloc_get_nbobjs_inside_cpuset_by_type(topology, set, HWLOC_OBJ_CORE);
    const int n_unit = hwloc_get_nbobjs_inside_cpuset_by_type(topology, set, HWLOC_OBJ_PU);
    return n_core > 0 ? n_core : n_unit;
}

int mt_cores_share(int local_size)
{
    hwloc_topology_t topology = NULL;
    int n_granted = 1;
    int n_bound = 1;
    if (hwloc_topology_init(&topology) != 0) {
        return 1;
    }
    if (hwloc_topology_load(topology) == 0) {
        hwloc_cpuset_t bound = hwloc_bitmap_alloc();
        n_granted = count_cores(topology, hwloc_topology_get_allowed_cpuset(topology));
        n_bound = n_granted;
        if (bound != NULL && hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_PROCESS) == 0) {
            n_bound = count_cores(topology, bound);
        }
        hwloc_bitmap_free(bound);
    }
    hwloc_topology_destroy(topology);
    return mt_cores_divide(n_granted, n_bound, read_quota(), local_size);
}
