/* Packs written slab by slab have the bytes of whole ones: both types, any edges. Whole ones come
 * from the library's reorder; in panels (gemm_panel.h) from one call, and test_gemm_panel knows the
 * layout. */
#include "base/memory.h"
#include "device/isa.h"
#include "kernel/cpu/weight_pack.h"
#include "support/fill.h"
#include "support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const enum mt_dtype dtypes[] = {MT_FLOAT32, MT_BFLOAT16};
enum { N_DTYPE = sizeof(dtypes) / sizeof(dtypes[0]) };

struct packs {
    struct mt_device device;
    struct mt_weight weight;
    struct mt_weight_pack pack;
    float *values;
    char *want;
    void *memory;
    int64_t n_bytes;
};

static void packs_init(struct packs *p, enum mt_dtype dtype, int64_t n_out, int64_t n_in)
{
    mt_device_init_plain(&p->device);
    p->device.dtype = dtype;
    MT_TEST_OK(mt_linear_prepare(&p->device, n_out, n_in));
    p->n_bytes = mt_weight_bytes(&p->device, n_out, n_in, true);
    MT_TEST_OK(MT_ALLOCATE(p->want, p->n_bytes, "test"));
    MT_TEST_OK(mt_memory_allocate(p->n_bytes, "test", &p->memory));
    MT_TEST_OK(MT_ALLOCATE(p->values, n_out * n_in, "test"));
    mt_test_fill_uniform(p->values, n_out * n_in, 5, -1.0, 1.0);
    memset(p->memory, 7, (size_t)p->n_bytes);
    memset(p->want, 7, (size_t)p->n_bytes); /* also between the packs */
    mt_weight_init(&p->device, &p->weight, n_out, n_in, true, p->memory);
    p->pack = mt_weight_pack_find(dtype, &p->weight);
}

static void packs_clear(struct packs *p)
{
    mt_memory_free(p->values);
    mt_memory_free(p->want);
    mt_memory_free(p->memory);
}

static void pack_by_library(struct packs *p)
{
    const int64_t backward = (char *)p->weight.backward_pack - (char *)p->memory;
    mt_gemm_pack(p->pack.forward, 0, p->want, p->values);
    mt_gemm_pack(p->pack.backward, 0, p->want + backward, p->values);
}

static void check_slabs(struct packs *p)
{
    memset(p->memory, 7, (size_t)p->n_bytes);
    for (int64_t slab = mt_weight_pack_n_slab(&p->weight) - 1; slab >= 0; slab--) {
        mt_weight_pack_slab(&p->pack, &p->weight, p->values, slab);
    }
    assert_memory_equal(p->memory, p->want, (size_t)p->n_bytes);
}

static void check_shape(enum mt_dtype dtype, int64_t n_out, int64_t n_in)
{
    struct packs p;
    packs_init(&p, dtype, n_out, n_in);
    pack_by_library(&p);
    mt_weight_pack(&p.device, &p.weight, p.values);
    assert_memory_equal(p.memory, p.want, (size_t)p.n_bytes);
    if (p.pack.has_slabs) { /* else this processor's layout is another */
        check_slabs(&p);
    }
    packs_clear(&p);
}

static void slabs_have_the_bytes_of_the_librarys_reorder(void **state)
{
    MT_UNUSED(state);
    static const int64_t shapes[][2] = {{64, 64},  {64, 192}, {192, 64}, {256, 512}, {1024, 320},
                                        {1, 1},    {1, 100},  {100, 1},  {63, 65},   {65, 63},
                                        {80, 300}, {300, 80}, {33, 31},  {127, 129}, {48, 16}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int d = 0; d < N_DTYPE; d++) {
            check_shape(dtypes[d], shapes[i][0], shapes[i][1]);
        }
    }
    mt_kernel_clear();
}

/* The bytes of the other pack stay. */
static void a_pass_alone_packs_what_its_products_read(void **state)
{
    MT_UNUSED(state);
    static const int64_t shapes[][2] = {{256, 512}, {63, 65}};
    for (int d = 0; d < N_DTYPE; d++) {
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            struct packs p;
            packs_init(&p, dtypes[d], shapes[i][0], shapes[i][1]);
            const int64_t backward = (char *)p.weight.backward_pack - (char *)p.memory;
            mt_gemm_pack(p.pack.forward, 0, p.want, p.values);
            mt_weight_pack_for(&p.device, &p.weight, MT_PASS_FORWARD, p.values);
            assert_memory_equal(p.memory, p.want, (size_t)p.n_bytes);
            memset(p.memory, 7, (size_t)p.n_bytes);
            memset(p.want, 7, (size_t)p.n_bytes);
            mt_gemm_pack(p.pack.backward, 0, p.want + backward, p.values);
            mt_weight_pack_for(&p.device, &p.weight, MT_PASS_BACKWARD, p.values);
            assert_memory_equal(p.memory, p.want, (size_t)p.n_bytes);
            packs_clear(&p);
        }
    }
    mt_kernel_clear();
}

static void infinities_and_ties_round_as_the_librarys(void **state)
{
    MT_UNUSED(state);
    static const float values[] = {INFINITY, -INFINITY, 3.4e38F,     -3.4e38F, 1.00390625F,
                                   -0.0F,    0.0F,      1.01171875F, 1e-30F,   -1.00390625F};
    enum { N_VALUE = sizeof(values) / sizeof(values[0]), N_OUT = 70, N_IN = 50 };
    for (int d = 0; d < N_DTYPE; d++) {
        struct packs p;
        packs_init(&p, dtypes[d], N_OUT, N_IN);
        for (int i = 0; i < N_OUT * N_IN; i++) {
            p.values[i] = values[i % N_VALUE];
        }
        pack_by_library(&p);
        mt_weight_pack(&p.device, &p.weight, p.values);
        assert_memory_equal(p.memory, p.want, (size_t)p.n_bytes);
        packs_clear(&p);
    }
    mt_kernel_clear();
}

static void the_preferred_layout_of_common_shapes_has_slabs(void **state)
{
    MT_UNUSED(state);
#if defined(__x86_64__)
    if (mt_isa_detect() >= MT_ISA_AVX512 && getenv("DNNL_MAX_CPU_ISA") == NULL) {
        for (int d = 0; d < N_DTYPE; d++) {
            struct packs p;
            packs_init(&p, dtypes[d], 512, 256);
            assert_true(p.pack.has_slabs || (dtypes[d] == MT_BFLOAT16 && !mt_isa_has_bf16()));
            packs_clear(&p);
        }
        mt_kernel_clear();
    }
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slabs_have_the_bytes_of_the_librarys_reorder),
        cmocka_unit_test(a_pass_alone_packs_what_its_products_read),
        cmocka_unit_test(infinities_and_ties_round_as_the_librarys),
        cmocka_unit_test(the_preferred_layout_of_common_shapes_has_slabs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
