/* mt_linear_*, mt_weight_*: against the naive products, on awkward shapes. */
#include "base/clock.h"
#include "kernel/product.h"
#include "reference/difference.h"
#include "reference/linear.h"
#include "support/compare.h"
#include "support/fill.h"
#include "support/test.h"

#include <math.h>

/* Sums of up to 300 terms of order 1 in float32; the largest error seen is 4e-7. */
static const double bound = 2e-6;

static const int64_t shapes[][2] = {{1, 1},   {1, 33},   {33, 1},   {8, 17},   {17, 8},
                                    {33, 33}, {64, 192}, {192, 64}, {129, 65}, {256, 192}};
static const int64_t row_counts[] = {0, 1, 2, 3, 17, 64, 65, 127, 129, 300};

#define N_ITEM(array) ((int)(sizeof(array) / sizeof((array)[0])))

static void linear_compute(struct product *p, bool accumulate)
{
    mt_linear_forward(&p->device, p->y, p->x, &p->weight[0], p->n);
    mt_linear_backward_input(&p->device, p->d_x, p->d_y, &p->weight[0], p->n, accumulate);
    mt_linear_backward_weight(&p->device, p->d_w[0], p->d_y, p->x, p->n_out, p->n_in, p->n);
}

static void products_match_the_reference_on_awkward_shapes(void **state)
{
    MT_UNUSED(state);
    for (int shape = 0; shape < N_ITEM(shapes); shape++) {
        for (int rows = 0; rows < N_ITEM(row_counts); rows++) {
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                struct product p;
                product_init(&p, &row_counts[rows], 1, shapes[shape][0], shapes[shape][1], 1);
                linear_compute(&p, accumulate != 0);
                product_expect(&p, accumulate != 0);
                product_check(&p, bound);
                product_clear(&p);
            }
        }
    }
}

static void every_number_of_rows_up_to_two_tiles_is_right(void **state)
{
    MT_UNUSED(state);
    for (int64_t n = 1; n <= 130; n++) {
        struct product p;
        product_init(&p, &n, 1, 40, 24, 1);
        linear_compute(&p, true);
        product_expect(&p, true);
        product_check(&p, bound);
        product_clear(&p);
    }
}

static void results_have_the_same_bits_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 300;
    for (int shape = 0; shape < N_ITEM(shapes); shape++) {
        struct product one;
        product_init(&one, &n, 1, shapes[shape][0], shapes[shape][1], 1);
        linear_compute(&one, true);
        for (int n_thread = 2; n_thread <= 3; n_thread++) {
            struct product many;
            product_init(&many, &n, 1, shapes[shape][0], shapes[shape][1], n_thread);
            linear_compute(&many, true);
            product_same_bits(&one, &many);
            product_clear(&many);
        }
        product_clear(&one);
    }
}

static void rows_need_no_alignment(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 70;
    struct product p;
    struct product shifted;
    product_init(&p, &n, 1, 33, 17, 1);
    product_init(&shifted, &n, 1, 33, 17, 1);
    mt_linear_forward(&p.device, p.y + p.n_out, p.x + p.n_in, &p.weight[0], n - 1);
    for (int64_t row = 1; row < n; row += 3) {
        const int64_t rows = n - row < 3 ? n - row : 3;
        mt_linear_forward(&p.device, shifted.y + row * p.n_out, shifted.x + row * p.n_in,
                          &shifted.weight[0], rows);
    }
    product_expect(&p, false);
    MT_TEST_CLOSE(p.y + p.n_out, p.y_ref + p.n_out, (n - 1) * p.n_out, bound);
    MT_TEST_CLOSE(shifted.y + p.n_out, p.y_ref + p.n_out, (n - 1) * p.n_out, bound);
    product_clear(&p);
    product_clear(&shifted);
}

static void a_nan_stays_in_its_row(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 100;
    const int64_t bad_row = 66;
    struct product p;
    product_init(&p, &n, 1, 48, 80, 1);
    p.x[bad_row * p.n_in + 5] = NAN;
    mt_linear_forward(&p.device, p.y, p.x, &p.weight[0], n);
    for (int64_t i = 0; i < n * p.n_out; i++) {
        assert_int_equal(isnan(p.y[i]) != 0, i / p.n_out == bad_row);
    }
    product_clear(&p);
}

static void no_rows_touch_nothing(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 0;
    struct product p;
    product_init(&p, &n, 1, 8, 8, 1);
    mt_linear_forward(&p.device, NULL, NULL, &p.weight[0], 0);
    mt_linear_backward_input(&p.device, NULL, NULL, &p.weight[0], 0, false);
    mt_linear_backward_weight(&p.device, p.d_w[0], NULL, NULL, 8, 8, 0);
    product_check(&p, 0.0);
    product_clear(&p);
}

struct scalar {
    double *x, *w, *y;
    const double *weights; /* of the elements of y */
    int64_t n, n_out, n_in;
};

static double weighted_sum(void *context)
{
    const struct scalar *s = context;
    double sum = 0.0;
    mt_ref_linear_forward(s->y, s->x, s->w, s->n, s->n_out, s->n_in);
    for (int64_t i = 0; i < s->n * s->n_out; i++) {
        sum += s->weights[i] * s->y[i];
    }
    return sum;
}

static void reference_gradients_match_central_differences(void **state)
{
    MT_UNUSED(state);
    enum { ROWS = 7, OUT = 5, IN = 6, N_X = ROWS * IN, N_W = OUT * IN, N_Y = ROWS * OUT };
    double x[N_X];
    double w[N_W];
    double y[N_Y];
    double d_y[N_Y];
    double d_x[N_X] = {0.0};
    double d_w[N_W] = {0.0};
    mt_ref_fill(x, N_X, 1);
    mt_ref_fill(w, N_W, 2);
    mt_ref_fill(d_y, N_Y, 3);
    struct scalar scalar = {x, w, y, d_y, ROWS, OUT, IN};
    mt_ref_linear_backward_input(d_x, d_y, w, ROWS, OUT, IN);
    assert_true(mt_ref_gradient_error(weighted_sum, &scalar, x, N_X, d_x) < 1e-8);
    mt_ref_linear_backward_weight(d_w, d_y, x, ROWS, OUT, IN);
    assert_true(mt_ref_gradient_error(weighted_sum, &scalar, w, N_W, d_w) < 1e-8);
}

static void check_pack_bytes(struct mt_device *device, int64_t n_out, int64_t n_in)
{
    const int64_t both = mt_weight_bytes(device, n_out, n_in, true);
    const int64_t forward = mt_weight_bytes(device, n_out, n_in, false);
    MT_TEST_OK(mt_linear_prepare(device, n_out, n_in));
    MT_TEST_OK(mt_linear_prepare(device, n_out, n_in));
    assert_int_equal(both, mt_weight_bytes(device, n_out, n_in, true));
    assert_int_equal(forward, mt_weight_bytes(device, n_out, n_in, false));
    assert_int_equal(both % 64, 0);
    assert_int_equal(forward % 64, 0);
    assert_true(forward >= 4 * n_out * n_in && both >= 8 * n_out * n_in);
}

static void packs_have_the_planned_size_before_and_after_preparing(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    mt_kernel_clear();
    for (int shape = 0; shape < N_ITEM(shapes); shape++) {
        check_pack_bytes(&device, shapes[shape][0], shapes[shape][1]);
    }
}

static void inference_needs_one_pack(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 9;
    struct product p;
    product_init(&p, &n, 1, 24, 40, 1);
    struct mt_weight weight;
    mt_weight_init(&p.device, &weight, 24, 40, false, p.weight[0].forward_pack);
    assert_null(weight.backward_pack);
    mt_weight_pack(&p.device, &weight, p.w[0]);
    mt_linear_forward(&p.device, p.y, p.x, &weight, n);
    product_expect(&p, false);
    MT_TEST_CLOSE(p.y, p.y_ref, n * p.n_out, bound);
    product_clear(&p);
}

static void too_many_threads_are_refused(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    device.n_thread = 1000;
    MT_TEST_FAILS(mt_linear_prepare(&device, 8, 8), MT_ERR_CONFIG, "1000 threads");
}

static void a_paced_device_takes_at_least_the_modelled_time(void **state)
{
    MT_UNUSED(state);
    const int64_t n = 64;
    struct product p;
    product_init(&p, &n, 1, 128, 128, 1);
    p.device.pace_gflops = 0.1;
    const double flops = 2.0 * 64.0 * 128.0 * 128.0;
    const int64_t start_ns = mt_clock_ns();
    mt_linear_forward(&p.device, p.y, p.x, &p.weight[0], n);
    mt_device_settle(&p.device);
    assert_true((double)(mt_clock_ns() - start_ns) >= flops / 0.1);
    product_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_the_reference_on_awkward_shapes),
        cmocka_unit_test(every_number_of_rows_up_to_two_tiles_is_right),
        cmocka_unit_test(results_have_the_same_bits_on_any_number_of_threads),
        cmocka_unit_test(rows_need_no_alignment),
        cmocka_unit_test(a_nan_stays_in_its_row),
        cmocka_unit_test(no_rows_touch_nothing),
        cmocka_unit_test(reference_gradients_match_central_differences),
        cmocka_unit_test(packs_have_the_planned_size_before_and_after_preparing),
        cmocka_unit_test(inference_needs_one_pack),
        cmocka_unit_test(too_many_threads_are_refused),
        cmocka_unit_test(a_paced_device_takes_at_least_the_modelled_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
