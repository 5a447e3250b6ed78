/* What a machine consists of, from descriptions in hwloc's forms: synthetic ones, and one with
 * devices. */
#include "device/machine.h"
#include "support/test.h"

#include <string.h>

#define PCI_DEVICE(index, class_, bus, kind, name)                                         \
    "<object type=\"PCIDev\" gp_index=\"" #index "\" pci_busid=\"0000:" bus                \
    ":00.0\" pci_type=\"" class_ " [1234:5678] [0000:0000] 00\" pci_link_speed=\"0.0\">"   \
    "<object type=\"OSDev\" gp_index=\"1" #index "\" name=\"" name "\" osdev_type=\"" kind \
    "\"/></object>"
#define BRIDGE(index, first, last)                                                     \
    "<object type=\"Bridge\" gp_index=\"" #index "\" bridge_type=\"0-1\" depth=\"0\" " \
    "bridge_pci=\"0000:[" first "-" last "]\">"
#define PACKAGE(index, set)                                                                       \
    "<object type=\"Package\" os_index=\"" #index "\" cpuset=\"" set "\" complete_cpuset=\"" set  \
    "\" nodeset=\"" set "\" complete_nodeset=\"" set "\" gp_index=\"10" #index "\">"              \
    "<object type=\"NUMANode\" os_index=\"" #index "\" cpuset=\"" set "\" complete_cpuset=\"" set \
    "\" nodeset=\"" set "\" complete_nodeset=\"" set "\" gp_index=\"11" #index                    \
    "\" local_memory=\"1073741824\"/>"                                                            \
    "<object type=\"Core\" os_index=\"" #index "\" cpuset=\"" set "\" complete_cpuset=\"" set     \
    "\" nodeset=\"" set "\" complete_nodeset=\"" set "\" gp_index=\"12" #index                    \
    "\"><object type=\"PU\" os_index=\"" #index "\" cpuset=\"" set "\" complete_cpuset=\"" set    \
    "\" nodeset=\"" set "\" complete_nodeset=\"" set "\" gp_index=\"13" #index "\"/></object>"

/* Two sockets of one core; on the first a GPU and two faces of one card, on the second the same. */
static const char two_sockets[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE topology SYSTEM \"hwloc2.dtd\">"
    "<topology version=\"2.0\"><object type=\"Machine\" os_index=\"0\" cpuset=\"0x3\" "
    "complete_cpuset=\"0x3\" allowed_cpuset=\"0x3\" nodeset=\"0x3\" complete_nodeset=\"0x3\" "
    "allowed_nodeset=\"0x3\" gp_index=\"1\">" PACKAGE(0, "0x1") BRIDGE(200, "01", "02")
        PCI_DEVICE(201, "0302", "01", "1", "card0")
            PCI_DEVICE(202, "0207", "02", "3", "mlx5_0") "</object></object>" PACKAGE(1, "0x2")
                BRIDGE(300, "81", "83") PCI_DEVICE(301, "0207", "81", "3", "mlx5_1")
                    PCI_DEVICE(302, "0302", "82", "1", "card1")
                        PCI_DEVICE(303, "1200", "83", "5",
                                   "accelerator0") "</object></object></object></topology>";

static void open_topology(hwloc_topology_t *topology, const char *synthetic, const char *xml)
{
    assert_int_equal(hwloc_topology_init(topology), 0);
    (void)hwloc_topology_set_io_types_filter(*topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    assert_int_equal(xml != NULL
                         ? hwloc_topology_set_xmlbuffer(*topology, xml, (int)strlen(xml) + 1)
                         : hwloc_topology_set_synthetic(*topology, synthetic),
                     0);
    assert_int_equal(hwloc_topology_load(*topology), 0);
}

static void parts_are_counted(void **state)
{
    struct mt_machine machine;
    hwloc_topology_t topology;
    MT_UNUSED(state);
    open_topology(&topology, "package:2 [numa] l3:2(size=16777216) l2:4 l1d:1 core:1 pu:2", NULL);
    mt_machine_describe(topology, &machine);
    hwloc_topology_destroy(topology);
    assert_int_equal(machine.n_package, 2);
    assert_int_equal(machine.n_numa, 2);
    assert_int_equal(machine.n_core, 16);
    assert_int_equal(machine.n_unit, 32);
    assert_int_equal(machine.n_cache[0], 16);
    assert_int_equal(machine.n_cache[2], 4);
    assert_int_equal(machine.cache_bytes[2], 16777216);
    assert_int_equal(machine.n_gpu, 0);
    assert_int_equal(machine.n_nic, 0);
}

static void units_stand_for_cores_where_none_are_shown(void **state)
{
    struct mt_machine machine;
    hwloc_topology_t topology;
    MT_UNUSED(state);
    open_topology(&topology, "numa:1 pu:6", NULL);
    mt_machine_describe(topology, &machine);
    hwloc_topology_destroy(topology);
    assert_int_equal(machine.n_core, 6);
    assert_int_equal(machine.n_cache[2], 0);
    assert_int_equal(machine.cache_bytes[2], 0);
}

static void a_gpu_is_near_the_card_behind_the_same_bridge(void **state)
{
    struct mt_machine machine;
    hwloc_topology_t topology;
    MT_UNUSED(state);
    open_topology(&topology, NULL, two_sockets);
    mt_machine_describe(topology, &machine);
    hwloc_topology_destroy(topology);
    assert_int_equal(machine.n_gpu, 3); /* the accelerator, too */
    assert_int_equal(machine.n_nic, 2);
    assert_string_equal(machine.nic[0].name, "mlx5_0");
    assert_string_equal(machine.nic[1].name, "mlx5_1");
    assert_string_equal(machine.gpu[0].name, "0000:01:00.0");
    assert_string_equal(machine.gpu[1].name, "0000:82:00.0");
    for (int gpu = 0; gpu < machine.n_gpu; gpu++) {
        assert_int_equal(machine.gpu[gpu].numa, gpu > 0);
        assert_int_equal(machine.gpu[gpu].nearest, gpu > 0);
    }
    assert_int_equal(machine.nic[1].numa, 1);
}

static void this_machine_has_a_core_and_memory(void **state)
{
    struct mt_machine machine;
    MT_UNUSED(state);
    mt_machine_read(&machine);
    assert_true(machine.n_core >= 1 && machine.n_unit >= machine.n_core);
    assert_true(machine.memory_bytes > 0);
    assert_true(mt_machine_numa_mask() != 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(parts_are_counted),
    cmocka_unit_test(units_stand_for_cores_where_none_are_shown),
    cmocka_unit_test(a_gpu_is_near_the_card_behind_the_same_bridge),
    cmocka_unit_test(this_machine_has_a_core_and_memory),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
