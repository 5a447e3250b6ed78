/* mt_panels_*: the same bytes as the library's own reorder, and only where its layout is known. */
#include "base/memory.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/cpu/panels.h"
#include "support/fill.h"
#include "support/test.h"

#include <string.h>

static void check_bytes(int64_t n_out, int64_t n_in, bool streams)
{
    struct mt_weight weight;
    struct mt_device device;
    char *want = NULL;
    void *memory = NULL;
    float *values = NULL;
    mt_device_init_plain(&device);
    const int64_t forward_bytes = mt_weight_bytes(&device, n_out, n_in, false);
    const int64_t bytes = mt_weight_bytes(&device, n_out, n_in, true);
    MT_TEST_OK(MT_ALLOCATE(want, bytes, "test"));
    MT_TEST_OK(mt_memory_allocate(bytes, "test", &memory));
    MT_TEST_OK(MT_ALLOCATE(values, n_out * n_in, "test"));
    mt_test_fill_uniform(values, n_out * n_in, 5, -1.0, 1.0);
    memset(memory, 7, (size_t)bytes);
    mt_weight_init(&device, &weight, n_out, n_in, true, memory);
    mt_gemm_pack(mt_gemm_find(MT_FLOAT32, MT_GEMM_FORWARD, n_out, n_in), 0, want, values);
    mt_gemm_pack(mt_gemm_find(MT_FLOAT32, MT_GEMM_BACKWARD_INPUT, n_out, n_in), 0,
                 want + forward_bytes, values);
    const struct mt_panels panels = {&weight, values, streams};
    for (int64_t slab = 0; slab < mt_panels_n_slab(&weight); slab++) {
        mt_panels_pack(&panels, slab);
    }
    assert_memory_equal(memory, want, (size_t)bytes);
    mt_memory_free(want);
    mt_memory_free(memory);
    mt_memory_free(values);
}

static void slabs_have_the_bytes_of_the_librarys_reorder(void **state)
{
    MT_UNUSED(state);
    static const int64_t shapes[][2] = {{64, 64}, {64, 192}, {192, 64}, {256, 512}, {1024, 320}};
    struct mt_device device;
    mt_device_init_plain(&device);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mt_weight weight = {.n_out = shapes[i][0], .n_in = shapes[i][1]};
        MT_TEST_OK(mt_linear_prepare(&device, weight.n_out, weight.n_in));
        if (mt_panels_fit(MT_FLOAT32, &weight)) { /* else this processor's layout is another */
            check_bytes(weight.n_out, weight.n_in, false);
            check_bytes(weight.n_out, weight.n_in, true);
        }
    }
    mt_kernel_clear();
}

static void shapes_with_padding_are_left_to_the_library(void **state)
{
    MT_UNUSED(state);
    static const int64_t shapes[][2] = {{1, 1}, {63, 64}, {64, 48}, {80, 64}, {128, 100}};
    struct mt_device device;
    mt_device_init_plain(&device);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct mt_weight weight = {.n_out = shapes[i][0], .n_in = shapes[i][1]};
        MT_TEST_OK(mt_linear_prepare(&device, weight.n_out, weight.n_in));
        assert_false(mt_panels_fit(MT_FLOAT32, &weight));
    }
    mt_kernel_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slabs_have_the_bytes_of_the_librarys_reorder),
        cmocka_unit_test(shapes_with_padding_are_left_to_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
