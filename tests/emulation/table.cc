/* A GPU, emulated or not, as the device of kernel.h, linked in place of src/kernel/kernel.c: the
 * tests of tests/kernel/ run on it as they are. */
#include "emulation/staging.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
#include <cmocka.h>
}

static struct mt_kernel_table make_table()
{
    struct mt_kernel_table table = {};
    emu_fill_products(&table);
    emu_fill_layers(&table);
    emu_fill_experts(&table);
    emu_fill_rows(&table);
    return table;
}

extern "C" const struct mt_kernel_table *mt_kernel_table(const struct mt_device *)
{
    static const struct mt_kernel_table table = make_table();
    return &table;
}

extern "C" const struct mt_kernel_table *mt_kernel_begin(struct mt_device *device, double flops,
                                                         double bytes)
{
    return mt_kernel_begin_as(device, MT_WORK_OTHER, flops, bytes);
}

extern "C" const struct mt_kernel_table *
mt_kernel_begin_as(struct mt_device *device, enum mt_work work, double flops, double bytes)
{
    mt_device_operation_begin(device, work, flops, bytes);
    return mt_kernel_table(device);
}

/* Tests that are about the CPU's own code. */
static const char *const of_the_cpu[] = {
    "packs_have_the_planned_size_before_and_after_preparing", /* two packs, a GPU has one */
    "too_many_threads_are_refused",
    "the_nearest_bfloat16_is_taken_and_ties_go_to_even",
    "rounding_once_for_several_products_gives_the_same_bits",
    "every_gradient_of_this_processor_matches_the_naive_one",
    "a_gradient_has_the_same_bits_however_it_is_cut",
    "one_call_has_the_bits_of_the_operations_apart", /* SwiGLU apart is the CPU's */
};

extern "C" int __real__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests,
                                              size_t n, CMFixtureFunction setup,
                                              CMFixtureFunction teardown);

extern "C" int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests,
                                              size_t n, CMFixtureFunction setup,
                                              CMFixtureFunction teardown)
{
    std::vector<struct CMUnitTest> kept;
    for (size_t i = 0; i < n; i++) {
        bool is_kept = !staging_is_left_out(tests[i].name);
        for (const char *other : of_the_cpu) {
            is_kept = is_kept && std::strcmp(tests[i].name, other) != 0;
        }
        if (is_kept) {
            kept.push_back(tests[i]);
        }
    }
    return __real__cmocka_run_group_tests(name, kept.data(), kept.size(), setup, teardown);
}
