/* Which cores of a machine its ranks compute on.
 *
 * Whoever starts the ranks (mpirun, Slurm, a container) grants each a set of cores; often it is the
 * whole machine for all. Ranks with the same set divide it into contiguous runs of equal length, in
 * the order of the machine's hierarchy, where neighbours share caches and memory:
 *
 *     8 cores, 3 ranks     0 0 1 1 . 2 2 .
 *
 * Cores, not hardware threads: two threads of a core share the units that matrix products fill. */
#ifndef MT_DEVICE_CORES_H
#define MT_DEVICE_CORES_H

#include "base/status.h"

#include <hwloc.h>
#include <stdbool.h>
#include <stdint.h>

/* A set of cores by hwloc's logical numbers, which follow the hierarchy. */
struct mt_core_set {
    int64_t first, last; /* lowest and highest */
    int64_t n;           /* 0: unknown to hwloc */
};
/* Cores of the topology that have a processing unit in the set. */
struct mt_core_set mt_cores_of(hwloc_topology_t topology, hwloc_const_cpuset_t set);
/* What this process is granted. */
struct mt_core_set mt_cores_granted(void);
/* CPUs' worth of time that the control group grants all processes together; 0: no limit. */
int mt_cores_quota(void);

/* A rank's part of its set: its cores number start .. start + n - 1. */
struct mt_core_share {
    int start;
    int n;         /* >= 1: threads that have work to do at the same time */
    bool is_alone; /* no other rank computes on them, and they are all there is time for */
};
/* Of local rank `local` of `local_size` on one machine with these sets [local_size]. Sets that
 * overlap and differ are not divided: then, under a quota below the cores, and with more ranks than
 * cores nobody is alone. */
struct mt_core_share mt_cores_share(const struct mt_core_set *set, int local_size, int local,
                                    int n_quota);

/* The processing units in `set` of core number `index` of it, into out. False: there is none. */
bool mt_cores_units(hwloc_topology_t topology, hwloc_const_cpuset_t set, int index,
                    hwloc_bitmap_t out);

/* Binds each of the n_thread OpenMP threads to one core of the share, which is alone and has as
 * many. text [bytes]: the processing units, as Linux numbers them ("4-7,12-15"). False: the system
 * refuses; nothing is bound. */
bool mt_cores_bind(const struct mt_core_share *share, int n_thread, char *text, size_t bytes);

#endif
