/* Products of a bfloat16 device: rounding, and every product against the reference on rounded
 * operands. Run a second time as on a processor without products of bfloat16 (CMakeLists.txt). */
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/gemm_primitive.h"
#include "kernel/pair.h"
#include "kernel/product.h"

/* Operands are rounded alike on both sides, products of them are exact: what is left is float32
 * sums of up to 300 terms of order 1, as in test_linear. */
static const double bound = 2e-6;

static const int64_t shapes[][2] = {{1, 1},   {1, 33},   {33, 1},   {8, 17},   {17, 8},
                                    {33, 33}, {64, 192}, {192, 64}, {129, 65}, {256, 193}};
static const int64_t row_counts[] = {0, 1, 2, 7, 16, 63, 64, 65, 127, 129, 300};

/* ---- rounding ---- */

static float rounded(float x)
{
    uint16_t bits = 0;
    mt_bf16_round(&bits, &x, 1);
    return mt_float_from_bits((uint32_t)bits << 16);
}

static void the_nearest_bfloat16_is_taken_and_ties_go_to_even(void **state)
{
    MT_UNUSED(state);
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4099) {
        for (uint32_t low = 0; low < 4; low++) { /* below, at and above the middle */
            static const uint32_t lows[4] = {0x7fff, 0x8000, 0x8001, 0xffff};
            const float x = mt_float_from_bits(((uint32_t)bits & 0xffff0000U) | lows[low]);
            if (!isfinite(x) || fabsf(x) < 0x1p-126F) {
                continue;
            }
            const double want = product_bf16((double)x);
            const float limit = 0x1.fep127F;
            if (fabs(want) > (double)limit) {
                assert_true(isinf(rounded(x)) && (rounded(x) > 0.0F) == (x > 0.0F));
            } else {
                assert_true((double)rounded(x) == want);
            }
        }
    }
}

static void not_a_number_infinity_and_zero_stay_what_they_are(void **state)
{
    MT_UNUSED(state);
    static const uint32_t nans[] = {0x7f800001U, 0xff800001U, 0x7fffffffU, 0x7fc00000U,
                                    0xffffffffU};
    for (int i = 0; i < N_ITEM(nans); i++) {
        assert_true(isnan(rounded(mt_float_from_bits(nans[i]))));
        assert_true(isnan(mt_bf16_value(mt_float_from_bits(nans[i]))));
    }
    assert_true(isinf(rounded((float)INFINITY)) && rounded((float)-INFINITY) < 0.0F);
    assert_true(rounded(0.0F) == 0.0F && signbit(rounded(-0.0F)) && !signbit(rounded(0.0F)));
}

static void both_ways_to_round_agree_at_every_length(void **state)
{
    MT_UNUSED(state);
    enum { MOST = 100 };
    float x[MOST];
    float values[MOST + 1];
    uint16_t bits[MOST + 1];
    mt_test_fill_uniform(x, MOST, 7, -3.0, 3.0);
    for (int64_t n = 0; n <= MOST; n++) {
        values[n] = pair_canary;
        bits[n] = 0x1234;
        mt_bf16_round(bits, x, n);
        mt_bf16_round_values(values, x, n);
        for (int64_t i = 0; i < n; i++) {
            assert_true(values[i] == mt_float_from_bits((uint32_t)bits[i] << 16));
        }
        assert_true(values[n] == pair_canary && bits[n] == 0x1234);
    }
}

/* ---- products ---- */

static void compute(struct product *p)
{
    mt_linear_forward(&p->device, p->y, p->x, &p->weight[0], p->n);
    mt_linear_backward_input(&p->device, p->d_x, p->d_y, &p->weight[0], p->n, true);
    mt_linear_backward_weight(&p->device, p->d_w[0], p->d_y, p->x, p->n_out, p->n_in, p->n);
}

static void products_match_the_reference_on_rounded_operands(void **state)
{
    MT_UNUSED(state);
    for (int shape = 0; shape < N_ITEM(shapes); shape++) {
        for (int rows = 0; rows < N_ITEM(row_counts); rows++) {
            struct product p;
            product_init_as(&p, MT_BFLOAT16, &row_counts[rows], 1, shapes[shape][0],
                            shapes[shape][1], 1);
            compute(&p);
            product_expect(&p, true);
            product_check(&p, bound);
            product_clear(&p);
        }
    }
}

static const int64_t ragged[][8] = {{0, 0, 0, 0, 0, 0, 0, 0},
                                    {17, 3, 64, 65, 63, 2, 1, 7},
                                    {0, 0, 300, 0, 0, 0, 0, 0},
                                    {5, 0, 64, 1, 129, 0, 33, 256}};
enum { N_GROUP = 8 };

static void groups_match_the_reference_and_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < N_ITEM(ragged); i++) {
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            struct product one;
            product_init_as(&one, MT_BFLOAT16, ragged[i], N_GROUP, 192, 129, 1);
            product_compute(&one, accumulate != 0);
            for (int n_thread = 2; n_thread <= 3; n_thread++) {
                struct product many;
                product_init_as(&many, MT_BFLOAT16, ragged[i], N_GROUP, 192, 129, n_thread);
                product_compute(&many, accumulate != 0);
                product_same_bits(&one, &many);
                product_clear(&many);
            }
            product_expect(&one, accumulate != 0);
            product_check(&one, bound);
            product_clear(&one);
        }
    }
}

/* As experts are when tokens are few; a GPU multiplies these by a kernel of its own. */
static void groups_of_few_rows_match_the_reference(void **state)
{
    MT_UNUSED(state);
    static const int64_t few[][N_GROUP] = {{16, 0, 1, 9, 8, 3, 0, 16}, {0, 0, 0, 0, 0, 0, 0, 7}};
    static const int64_t sizes[][2] = {{16, 32}, {50, 8}, {33, 296}, {1, 160}};
    for (int i = 0; i < N_ITEM(few) * N_ITEM(sizes); i++) {
        const int64_t *size = sizes[i / N_ITEM(few)];
        struct product p;
        product_init_as(&p, MT_BFLOAT16, few[i % N_ITEM(few)], N_GROUP, size[0], size[1], 1);
        product_compute(&p, false);
        product_expect(&p, false);
        product_check(&p, bound);
        product_clear(&p);
    }
}

/* What travels between ranks may be rounded before: nothing changes. */
static void operands_that_are_rounded_already_give_the_same_bits(void **state)
{
    MT_UNUSED(state);
    struct product p;
    struct product before;
    product_init_as(&p, MT_BFLOAT16, ragged[1], N_GROUP, 96, 65, 1);
    product_init_as(&before, MT_BFLOAT16, ragged[1], N_GROUP, 96, 65, 1);
    mt_bf16_round_values(before.x, before.x, before.n * before.n_in);
    mt_bf16_round_values(before.d_y, before.d_y, before.n * before.n_out);
    for (int group = 0; group < N_GROUP; group++) {
        mt_bf16_round_values(before.w[group], before.w[group], before.n_out * before.n_in);
        mt_weight_pack(&before.device, &before.weight[group], before.w[group]);
    }
    product_compute(&p, true);
    product_compute(&before, true);
    product_same_bits(&p, &before);
    product_clear(&p);
    product_clear(&before);
}

static void rounding_once_for_several_products_gives_the_same_bits(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 37;
    struct product p;
    product_init_as(&p, MT_BFLOAT16, &n, 1, 96, 65, 1);
    const struct mt_gemm *gemm = mt_gemm_find(MT_BFLOAT16, MT_GEMM_FORWARD, 96, 65);
    float again[37 * 96];
    mt_linear_forward(&p.device, p.y, p.x, &p.weight[0], n);
    const void *rows = mt_gemm_round(gemm, 0, p.x, n);
    mt_gemm_tile_rounded(gemm, 0, again, rows, p.weight[0].forward_pack, n, false);
    MT_TEST_SAME_BITS(again, p.y, n * p.n_out);
    product_clear(&p);
}

static void a_nan_stays_in_its_row(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 100;
    const int64_t bad_row = 66;
    struct product p;
    product_init_as(&p, MT_BFLOAT16, &n, 1, 48, 80, 1);
    p.x[bad_row * p.n_in + 5] = NAN;
    mt_linear_forward(&p.device, p.y, p.x, &p.weight[0], n);
    for (int64_t i = 0; i < n * p.n_out; i++) {
        assert_int_equal(isnan(p.y[i]) != 0, i / p.n_out == bad_row);
    }
    product_clear(&p);
}

static void packs_take_half_the_bytes_or_as_many(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    const int64_t whole = mt_weight_bytes(&device, 256, 512, true);
    device.dtype = MT_BFLOAT16;
    const int64_t half = mt_weight_bytes(&device, 256, 512, true);
    assert_true(half == whole / 2 || half == whole);
    MT_TEST_OK(mt_linear_prepare(&device, 256, 512));
    assert_int_equal(mt_weight_bytes(&device, 256, 512, true), half);
}

static void a_step_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct product p;
    product_init_as(&p, MT_BFLOAT16, ragged[3], N_GROUP, 64, 48, 2);
    const int64_t before = mt_memory_n_allocated();
    product_compute(&p, true);
    assert_int_equal(mt_memory_n_allocated(), before);
    product_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_bfloat16_is_taken_and_ties_go_to_even),
        cmocka_unit_test(not_a_number_infinity_and_zero_stay_what_they_are),
        cmocka_unit_test(both_ways_to_round_agree_at_every_length),
        cmocka_unit_test(products_match_the_reference_on_rounded_operands),
        cmocka_unit_test(groups_match_the_reference_and_any_number_of_threads),
        cmocka_unit_test(groups_of_few_rows_match_the_reference),
        cmocka_unit_test(operands_that_are_rounded_already_give_the_same_bits),
        cmocka_unit_test(rounding_once_for_several_products_gives_the_same_bits),
        cmocka_unit_test(a_nan_stays_in_its_row),
        cmocka_unit_test(packs_take_half_the_bytes_or_as_many),
        cmocka_unit_test(a_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
