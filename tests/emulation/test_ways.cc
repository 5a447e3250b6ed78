/* Products of several weights by both of their ways, and by both at once: who goes which way is a
 * function of sizes, and the results are the same. */
#include "emulation/staging.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

extern "C" {
#include "kernel/product.h"

#include <cmocka.h>
}
#include "kernel/cuda/product_ways.h"

namespace
{
const double bound = 2e-6;

struct mt_cuda_product product_of(int m, int n, int k)
{
    struct mt_cuda_product p = {};
    p.m = m;
    p.n = n;
    p.k = k;
    return p;
}

bool goes_apart(cudaDataType type, int m, int n, int k)
{
    const struct mt_cuda_ways ways = mt_cuda_planned_ways();
    const struct mt_cuda_product p = product_of(m, n, k);
    return mt_cuda_goes_apart(&ways, type, &p);
}

/* An expert of OLMoE: W_gate is [1024, 2048], W_down [2048, 1024]. */
void large_products_go_apart(void **)
{
    assert_false(goes_apart(CUDA_R_32F, 1024, 1, 2048));
    assert_false(goes_apart(CUDA_R_32F, 1024, 384, 2048)); /* 24 tiles */
    assert_true(goes_apart(CUDA_R_32F, 1024, 385, 2048));  /* 32 tiles */
    assert_true(goes_apart(CUDA_R_32F, 2048, 129, 1024));
    /* Gradients of weights have 128 tiles, whatever the rows; few rows are too little work. */
    assert_false(goes_apart(CUDA_R_32F, 2048, 1024, 23));
    assert_true(goes_apart(CUDA_R_32F, 2048, 1024, 24));
    assert_true(goes_apart(CUDA_R_16BF, 8, 1, 8));
}

/* Sizes that exist in no memory are counted, not cut off. */
void the_largest_sizes_are_counted(void **)
{
    assert_true(goes_apart(CUDA_R_32F, 1 << 20, 1 << 20, 1 << 20));
}

void limits_send_all_or_none(void **)
{
    struct mt_cuda_ways ways = mt_cuda_planned_ways();
    const struct mt_cuda_product small = product_of(1, 1, 1);
    const struct mt_cuda_product large = product_of(1 << 20, 1 << 20, 1 << 20);
    ways.apart_tiles = 0;
    ways.apart_flops = 0;
    assert_true(mt_cuda_goes_apart(&ways, CUDA_R_32F, &small));
    ways.apart_flops = INT64_MAX;
    assert_false(mt_cuda_goes_apart(&ways, CUDA_R_32F, &large));
    assert_true(mt_cuda_goes_apart(&ways, CUDA_R_16BF, &small)); /* has no other way */
}

/* All three products of these rows, products from `apart_flops` on apart. */
void compute(struct product *p, const int64_t *rows, int n_group, int n_thread, int64_t apart_flops)
{
    product_init(p, rows, n_group, 40, 24, n_thread);
    struct mt_cuda *cuda = emu_context(&p->device);
    cuda->ways.apart_tiles = 0;
    cuda->ways.apart_flops = apart_flops;
    product_compute(p, true);
    cuda->ways = mt_cuda_planned_ways();
}

/* The double of cuBLAS sums in one order, so a product's bits tell whether it was made once, of its
 * own operands and none too early; a missing wait is found by the history of memory. */
void both_ways_and_their_mixtures_give_the_same_bits(void **)
{
    enum { MANY = 80, FLOPS_A_ROW = 2 * 40 * 24 };
    int64_t many[MANY];
    for (int i = 0; i < MANY; i++) {
        many[i] = i % 7 == 0 ? 0 : i % 11;
    }
    const int64_t few[5] = {3, 0, 65, 17, 64};
    const int64_t one[4] = {0, 0, 70, 0};
    const int64_t *const rows[3] = {many, few, one};
    const int n_group[3] = {MANY, 5, 4};
    /* none, only the largest, all but the smallest, all */
    const int64_t limits[4] = {INT64_MAX, 64 * FLOPS_A_ROW, 4 * FLOPS_A_ROW, 0};
    for (int i = 0; i < 3; i++) {
        struct product first;
        compute(&first, rows[i], n_group[i], 1, limits[0]);
        product_expect(&first, true);
        product_check(&first, bound);
        for (const int64_t limit : limits) {
            for (int n_thread = 1; n_thread <= 3; n_thread++) {
                struct product other;
                compute(&other, rows[i], n_group[i], n_thread, limit);
                product_same_bits(&first, &other);
                product_clear(&other);
            }
        }
        product_clear(&first);
    }
}
}  // namespace

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_products_go_apart),
        cmocka_unit_test(the_largest_sizes_are_counted),
        cmocka_unit_test(limits_send_all_or_none),
        cmocka_unit_test(both_ways_and_their_mixtures_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
