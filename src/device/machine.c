#include "device/machine.h"

#include "base/size.h"

#include <stdio.h>
#include <string.h>

/* GPUs by PCI class: 03, of which 0302 has no screen, and processing
 * accelerators, 12. */
enum { PCI_DISPLAY = 0x03, PCI_ACCELERATOR = 0x12 };

static int count(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const int n = hwloc_get_nbobjs_by_type(topology, type);
    return n > 0 ? n : 0;
}

static int numa_of(hwloc_topology_t topology, hwloc_obj_t device)
{
    const struct hwloc_obj *home = hwloc_get_non_io_ancestor_obj(topology, device);
    if (home == NULL || home->nodeset == NULL || hwloc_bitmap_weight(home->nodeset) != 1) {
        return -1;
    }
    return hwloc_bitmap_first(home->nodeset);
}

static hwloc_obj_t parent_pci(hwloc_obj_t os_device)
{
    hwloc_obj_t at = os_device;
    while (at != NULL && at->type != HWLOC_OBJ_PCI_DEVICE) {
        at = at->parent;
    }
    return at;
}

static int depth_of(hwloc_obj_t object)
{
    int depth = 0;
    for (; object->parent != NULL; object = object->parent) {
        ++depth;
    }
    return depth;
}

/* How far below the root two objects part. */
static int depth_in_common(hwloc_obj_t a, hwloc_obj_t b)
{
    int depth_a = depth_of(a);
    int depth_b = depth_of(b);
    for (; depth_a > depth_b; --depth_a) {
        a = a->parent;
    }
    for (; depth_b > depth_a; --depth_b) {
        b = b->parent;
    }
    for (; a != b; --depth_a) {
        a = a->parent;
        b = b->parent;
    }
    return depth_a;
}

/* Found devices beside what is told of them. */
struct found {
    hwloc_obj_t gpu[MT_MACHINE_MAX_DEVICES], nic[MT_MACHINE_MAX_DEVICES];
};

static void add_device(hwloc_topology_t topology, hwloc_obj_t object, const char *name,
                       struct mt_machine_device *device)
{
    (void)snprintf(device->name, sizeof(device->name), "%s", name);
    device->numa = numa_of(topology, object);
    device->nearest = -1;
}

/* Cards that have a PCI device: a container's loopback and bridges have none. */
static void find_nics(hwloc_topology_t topology, struct mt_machine *machine, struct found *found)
{
    hwloc_obj_t at = NULL;
    while ((at = hwloc_get_next_osdev(topology, at)) != NULL) {
        const bool is_nic = at->attr->osdev.type == HWLOC_OBJ_OSDEV_NETWORK ||
                            at->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
        const hwloc_obj_t pci = parent_pci(at);
        bool is_new = is_nic && pci != NULL && machine->n_nic < MT_MACHINE_MAX_DEVICES;
        for (int i = 0; i < machine->n_nic && is_new; ++i) {
            is_new = found->nic[i] != pci; /* one card shows as eth0 and as mlx5_0 */
        }
        if (is_new) {
            found->nic[machine->n_nic] = pci;
            add_device(topology, pci, at->name != NULL ? at->name : "network",
                       &machine->nic[machine->n_nic++]);
        }
    }
}

static void find_gpus(hwloc_topology_t topology, struct mt_machine *machine, struct found *found)
{
    hwloc_obj_t at = NULL;
    while ((at = hwloc_get_next_pcidev(topology, at)) != NULL) {
        const struct hwloc_pcidev_attr_s *pci = &at->attr->pcidev;
        const int kind = pci->class_id >> 8;
        char address[32];
        if ((kind != PCI_DISPLAY && kind != PCI_ACCELERATOR) ||
            machine->n_gpu >= MT_MACHINE_MAX_DEVICES) {
            continue;
        }
        (void)snprintf(address, sizeof(address), "%04x:%02x:%02x.%x", pci->domain, pci->bus,
                       pci->dev, pci->func);
        found->gpu[machine->n_gpu] = at;
        add_device(topology, at, address, &machine->gpu[machine->n_gpu++]);
    }
}

static void find_nearest(struct mt_machine *machine, const struct found *found)
{
    for (int gpu = 0; gpu < machine->n_gpu; ++gpu) {
        int deepest = -1;
        for (int nic = 0; nic < machine->n_nic; ++nic) {
            const int depth = depth_in_common(found->gpu[gpu], found->nic[nic]);
            if (depth > deepest) {
                deepest = depth;
                machine->gpu[gpu].nearest = nic;
            }
        }
    }
}

static void describe_caches(hwloc_topology_t topology, struct mt_machine *machine)
{
    static const hwloc_obj_type_t level[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                             HWLOC_OBJ_L3CACHE};
    for (int i = 0; i < (int)(sizeof(level) / sizeof(level[0])); ++i) {
        const struct hwloc_obj *cache = hwloc_get_obj_by_type(topology, level[i], 0);
        machine->n_cache[i] = count(topology, level[i]);
        machine->cache_bytes[i] = cache != NULL ? (int64_t)cache->attr->cache.size : 0;
    }
}

void mt_machine_describe(hwloc_topology_t topology, struct mt_machine *machine)
{
    struct found found;
    memset(machine, 0, sizeof(*machine));
    machine->n_package = count(topology, HWLOC_OBJ_PACKAGE);
    machine->n_numa = count(topology, HWLOC_OBJ_NUMANODE);
    machine->n_unit = count(topology, HWLOC_OBJ_PU);
    machine->n_core = count(topology, HWLOC_OBJ_CORE);
    if (machine->n_core == 0) {
        machine->n_core = machine->n_unit;
    }
    machine->memory_bytes = (int64_t)hwloc_get_root_obj(topology)->total_memory;
    describe_caches(topology, machine);
    find_nics(topology, machine, &found);
    find_gpus(topology, machine, &found);
    find_nearest(machine, &found);
}

void mt_machine_read(struct mt_machine *machine)
{
    hwloc_topology_t topology = NULL;
    memset(machine, 0, sizeof(*machine));
    if (hwloc_topology_init(&topology) != 0) {
        return;
    }
    (void)hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(topology) == 0) {
        mt_machine_describe(topology, machine);
    }
    hwloc_topology_destroy(topology);
}

uint64_t mt_machine_numa_mask(void)
{
    hwloc_topology_t topology = NULL;
    uint64_t mask = 0;
    if (hwloc_topology_init(&topology) != 0) {
        return 0;
    }
    hwloc_bitmap_t units = hwloc_bitmap_alloc();
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    if (units != NULL && nodes != NULL && hwloc_topology_load(topology) == 0 &&
        hwloc_get_cpubind(topology, units, HWLOC_CPUBIND_PROCESS) == 0) {
        (void)hwloc_cpuset_to_nodeset(topology, units, nodes);
        mask = hwloc_bitmap_to_ulong(nodes);
    }
    hwloc_bitmap_free(nodes);
    hwloc_bitmap_free(units);
    hwloc_topology_destroy(topology);
    return mask;
}
