/* What a machine consists of, as hwloc sees it: packages, caches, cores, and which GPUs and network
 * cards hang where. For people and for `moetrain doctor`; nothing is computed from it. */
#ifndef MT_DEVICE_MACHINE_H
#define MT_DEVICE_MACHINE_H

#include <hwloc.h>
#include <stdint.h>

enum { MT_MACHINE_MAX_DEVICES = 32 };

/* A GPU or a network card. */
struct mt_machine_device {
    char name[32]; /* "eth0", "mlx5_1", "card0"; a GPU without a driver: its PCI address */
    int numa;      /* memory node that it is near to; -1: all alike */
    int nearest;   /* GPUs: index of the network card with the most bridges in common; -1: none */
};

struct mt_machine {
    int n_package, n_numa, n_core, n_unit; /* units: hardware threads */
    int n_cache[3];                        /* levels 1 (data), 2, 3 */
    int64_t cache_bytes[3];                /* of one; 0: unknown */
    int64_t memory_bytes;
    int n_gpu, n_nic; /* beyond MT_MACHINE_MAX_DEVICES the others are left out */
    struct mt_machine_device gpu[MT_MACHINE_MAX_DEVICES], nic[MT_MACHINE_MAX_DEVICES];
};

/* This machine. All zeros when hwloc cannot say. */
void mt_machine_read(struct mt_machine *machine);
/* From a loaded topology, whose I/O types were kept (hwloc_topology_set_io_types_filter). */
void mt_machine_describe(hwloc_topology_t topology, struct mt_machine *machine);

/* Bits of the memory nodes of the processing units that this process is bound to; 0: unknown. */
uint64_t mt_machine_numa_mask(void);

#endif
