/* The measured bounds: not how fast, only that they are numbers a benchmark can divide by. */
#include "base/memory.h"
#include "device/isa.h"
#include "kernel/kernel.h"
#include "support/test.h"

#include <math.h>
#include <string.h>

static void bounds_are_positive_and_finite(void **state)
{
    MT_UNUSED(state);
    const double peak = mt_measure_peak_gflops(MT_FLOAT32);
    const double loaded = mt_measure_loaded_gflops(MT_FLOAT32);
    const double copy = mt_measure_copy_gbytes_per_s();
    assert_true(isfinite(peak) && peak > 0.0);
    assert_true(isfinite(loaded) && loaded > 0.0);
    assert_true(isfinite(copy) && copy > 0.0);
    assert_int_equal(mt_memory_n_live(), 0);
}

static void instruction_set_has_one_of_three_names(void **state)
{
    MT_UNUSED(state);
    const char *isa = mt_isa_name(mt_isa_detect());
    assert_true(strcmp(isa, "avx512") == 0 || strcmp(isa, "avx2") == 0 ||
                strcmp(isa, "baseline") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_positive_and_finite),
        cmocka_unit_test(instruction_set_has_one_of_three_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
