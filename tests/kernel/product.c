#include "kernel/product.h"

#include "reference/linear.h"
#include "support/compare.h"
#include "support/fill.h"
#include "support/test.h"

#include <math.h>
#include <string.h>

static const float canary = -12345.0F;

/* [n] random floats with canaries behind, and their double twin when asked. */
static float *make_floats(struct product *product, int64_t n, uint64_t seed, double **twin)
{
    float *values = mt_arena_cut(&product->arena, (n + PRODUCT_CANARIES) * 4);
    mt_test_fill_uniform(values, n, seed, -1.0, 1.0);
    for (int64_t i = n; i < n + PRODUCT_CANARIES; i++) {
        values[i] = canary;
    }
    *twin = mt_arena_cut(&product->arena, n * 8);
    mt_test_widen(*twin, values, n);
    return values;
}

double product_bf16(double x)
{
    if (x == 0.0) {
        return x;
    }
    /* 8 significant bits: an integer in [128, 256) times a power of two; rint ties to even. */
    const int shift = ilogb(x) - 7;
    return ldexp(rint(ldexp(x, -shift)), shift);
}

/* The twin of an operand is what products read. */
static void round_twin(const struct product *product, double *twin, int64_t n)
{
    for (int64_t i = 0; product->device.dtype == MT_BFLOAT16 && i < n; i++) {
        twin[i] = product_bf16(twin[i]);
    }
}

static void check_canaries(const float *values, int64_t n)
{
    for (int64_t i = n; i < n + PRODUCT_CANARIES; i++) {
        assert_true(values[i] == canary);
    }
}

static void init_group(struct product *product, int group)
{
    const int64_t n_weight = product->n_out * product->n_in;
    const uint64_t seed = 100U + 2U * (uint64_t)group;
    product->w[group] = make_floats(product, n_weight, seed, &product->w_ref[group]);
    round_twin(product, product->w_ref[group], n_weight);
    product->d_w[group] = make_floats(product, n_weight, seed + 1, &product->d_w_ref[group]);
    void *memory = mt_arena_cut(
        &product->arena, mt_weight_bytes(&product->device, product->n_out, product->n_in, true));
    mt_weight_init(&product->device, &product->weight[group], product->n_out, product->n_in, true,
                   memory);
    mt_weight_pack(&product->device, &product->weight[group], product->w[group]);
    product->weights[group] = &product->weight[group];
}

void product_init(struct product *product, const int64_t *rows, int n_group, int64_t n_out,
                  int64_t n_in, int n_thread)
{
    product_init_as(product, MT_FLOAT32, rows, n_group, n_out, n_in, n_thread);
}

void product_init_as(struct product *product, enum mt_dtype dtype, const int64_t *rows, int n_group,
                     int64_t n_out, int64_t n_in, int n_thread)
{
    memset(product, 0, sizeof(*product));
    assert_true(n_group >= 0 && n_group <= PRODUCT_MAX_GROUP);
    mt_device_init_plain(&product->device);
    product->device.dtype = dtype;
    product->device.n_thread = n_thread;
    product->n_out = n_out;
    product->n_in = n_in;
    product->n_group = n_group;
    for (int group = 0; group < n_group; group++) {
        product->offset[group + 1] = product->offset[group] + rows[group];
    }
    product->n = product->offset[n_group];
    product->groups = (struct mt_groups){n_group, product->offset};
    MT_TEST_OK(mt_linear_prepare(&product->device, n_out, n_in));
    const int64_t row_bytes = 32 * (n_out + n_in);
    const int64_t group_bytes =
        32 * n_out * n_in + mt_weight_bytes(&product->device, n_out, n_in, true);
    MT_TEST_OK(mt_arena_init(&product->arena,
                             product->n * row_bytes + n_group * (group_bytes + 1024) + 4096,
                             "product under test"));
    product->x = make_floats(product, product->n * n_in, 1, &product->x_ref);
    product->d_x = make_floats(product, product->n * n_in, 2, &product->d_x_ref);
    product->y = make_floats(product, product->n * n_out, 3, &product->y_ref);
    product->d_y = make_floats(product, product->n * n_out, 4, &product->d_y_ref);
    round_twin(product, product->x_ref, product->n * n_in);
    round_twin(product, product->d_y_ref, product->n * n_out);
    for (int group = 0; group < n_group; group++) {
        init_group(product, group);
    }
}

void product_clear(struct product *product)
{
    mt_arena_clear(&product->arena);
}

void product_expect(struct product *product, bool accumulate)
{
    const int64_t n_out = product->n_out;
    const int64_t n_in = product->n_in;
    if (!accumulate) {
        memset(product->d_x_ref, 0, (size_t)(product->n * n_in) * sizeof(double));
    }
    for (int group = 0; group < product->n_group; group++) {
        const int64_t row = product->offset[group];
        const int64_t n = product->offset[group + 1] - row;
        const double *d_y = product->d_y_ref + row * n_out;
        const double *x = product->x_ref + row * n_in;
        mt_ref_linear_forward(product->y_ref + row * n_out, x, product->w_ref[group], n, n_out,
                              n_in);
        mt_ref_linear_backward_input(product->d_x_ref + row * n_in, d_y, product->w_ref[group], n,
                                     n_out, n_in);
        mt_ref_linear_backward_weight(product->d_w_ref[group], d_y, x, n, n_out, n_in);
    }
}

void product_check(const struct product *product, double bound)
{
    const int64_t n_weight = product->n_out * product->n_in;
    MT_TEST_CLOSE(product->y, product->y_ref, product->n * product->n_out, bound);
    MT_TEST_CLOSE(product->d_x, product->d_x_ref, product->n * product->n_in, bound);
    check_canaries(product->y, product->n * product->n_out);
    check_canaries(product->d_x, product->n * product->n_in);
    for (int group = 0; group < product->n_group; group++) {
        MT_TEST_CLOSE(product->d_w[group], product->d_w_ref[group], n_weight, bound);
        check_canaries(product->d_w[group], n_weight);
    }
}

void product_compute(struct product *product, bool accumulate)
{
    mt_grouped_forward(&product->device, product->y, product->x, product->weights, product->groups);
    mt_grouped_backward_input(&product->device, product->d_x, product->d_y, product->weights,
                              product->groups, accumulate);
    mt_grouped_backward_weight(&product->device, product->d_w, product->d_y, product->x,
                               product->n_out, product->n_in, product->groups);
}

void product_same_bits(const struct product *a, const struct product *b)
{
    MT_TEST_SAME_BITS(a->y, b->y, a->n * a->n_out);
    MT_TEST_SAME_BITS(a->d_x, b->d_x, a->n * a->n_in);
    for (int group = 0; group < a->n_group; group++) {
        MT_TEST_SAME_BITS(a->d_w[group], b->d_w[group], a->n_out * a->n_in);
    }
}
