/* mt_grouped_*: ragged groups against the naive products, group by group. */
#include "kernel/product.h"
#include "support/compare.h"
#include "support/test.h"

static const double bound = 2e-6;

struct ragged {
    int n_group;
    int64_t rows[PRODUCT_MAX_GROUP];
};

static const struct ragged cases[] = {
    {1, {0}},
    {3, {0, 0, 0}},
    {1, {17}},
    {4, {0, 0, 300, 0}},
    {5, {5, 0, 64, 1, 129}},
    {8, {17, 3, 64, 65, 63, 2, 1, 7}},
    {8, {64, 64, 64, 64, 64, 64, 64, 64}},
};
enum { N_CASE = (int)(sizeof(cases) / sizeof(cases[0])) };

static const int64_t shapes[][2] = {{1, 8}, {8, 1}, {33, 17}, {64, 48}, {192, 128}, {256, 33}};
enum { N_SHAPE = (int)(sizeof(shapes) / sizeof(shapes[0])) };

static void groups_match_the_reference(void **state)
{
    MT_UNUSED(state);
    for (int shape = 0; shape < N_SHAPE; shape++) {
        for (int ragged = 0; ragged < N_CASE; ragged++) {
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                struct product p;
                product_init(&p, cases[ragged].rows, cases[ragged].n_group, shapes[shape][0],
                             shapes[shape][1], 1);
                product_compute(&p, accumulate != 0);
                product_expect(&p, accumulate != 0);
                product_check(&p, bound);
                product_clear(&p);
            }
        }
    }
}

static void many_groups_match_the_reference_on_three_threads(void **state)
{
    MT_UNUSED(state);
    int64_t rows[PRODUCT_MAX_GROUP];
    for (int group = 0; group < PRODUCT_MAX_GROUP; group++) {
        rows[group] = group % 9 == 0 ? 70 : group % 5;
    }
    struct product p;
    product_init(&p, rows, PRODUCT_MAX_GROUP, 24, 32, 3);
    product_compute(&p, false);
    product_expect(&p, false);
    product_check(&p, bound);
    product_clear(&p);
}

static void groups_have_the_same_bits_on_any_number_of_threads(void **state)
{
    MT_UNUSED(state);
    for (int ragged = 0; ragged < N_CASE; ragged++) {
        const struct ragged *c = &cases[ragged];
        struct product one;
        product_init(&one, c->rows, c->n_group, 192, 128, 1);
        product_compute(&one, true);
        for (int n_thread = 1; n_thread <= 3; n_thread++) {
            struct product many;
            product_init(&many, c->rows, c->n_group, 192, 128, n_thread);
            product_compute(&many, true);
            product_same_bits(&one, &many);
            product_clear(&many);
        }
        product_clear(&one);
    }
}

static void a_group_gets_what_linear_gives_for_its_rows(void **state)
{
    MT_UNUSED(state);
    const struct ragged *c = &cases[5];
    struct product grouped;
    struct product dense;
    product_init(&grouped, c->rows, c->n_group, 160, 96, 1);
    product_init(&dense, c->rows, c->n_group, 160, 96, 1);
    product_compute(&grouped, true);
    for (int group = 0; group < c->n_group; group++) {
        const int64_t row = dense.offset[group];
        float *y = dense.y + row * dense.n_out;
        float *d_x = dense.d_x + row * dense.n_in;
        const float *d_y = dense.d_y + row * dense.n_out;
        const float *x = dense.x + row * dense.n_in;
        mt_linear_forward(&dense.device, y, x, &dense.weight[group], c->rows[group]);
        mt_linear_backward_input(&dense.device, d_x, d_y, &dense.weight[group], c->rows[group],
                                 true);
        mt_linear_backward_weight(&dense.device, dense.d_w[group], d_y, x, dense.n_out, dense.n_in,
                                  c->rows[group]);
    }
    product_same_bits(&grouped, &dense);
    product_clear(&grouped);
    product_clear(&dense);
}

/* Resident experts first, then the late ones: two calls do what one does. */
static void a_range_of_groups_gives_what_all_give(void **state)
{
    MT_UNUSED(state);
    const struct ragged *c = &cases[5];
    const struct mt_weight *weight[PRODUCT_MAX_GROUP];
    struct product all;
    struct product parts;
    product_init(&all, c->rows, c->n_group, 160, 96, 1);
    product_init(&parts, c->rows, c->n_group, 160, 96, 1);
    product_compute(&all, true);
    for (int group = 0; group < c->n_group; group++) {
        weight[group] = &parts.weight[group];
    }
    for (int half = 0; half < 2; half++) {
        const int first = half * 3;
        const int end = half == 0 ? 3 : c->n_group;
        const struct mt_groups groups = {end - first, parts.offset + first};
        mt_grouped_forward(&parts.device, parts.y, parts.x, weight + first, groups);
        mt_grouped_backward_input(&parts.device, parts.d_x, parts.d_y, weight + first, groups,
                                  true);
        mt_grouped_backward_weight(&parts.device, parts.d_w + first, parts.d_y, parts.x,
                                   parts.n_out, parts.n_in, groups);
    }
    product_same_bits(&all, &parts);
    product_clear(&all);
    product_clear(&parts);
}

static void an_empty_group_keeps_its_gradient(void **state)
{
    MT_UNUSED(state);
    const struct ragged *c = &cases[3];
    struct product p;
    struct product before;
    product_init(&p, c->rows, c->n_group, 64, 48, 1);
    product_init(&before, c->rows, c->n_group, 64, 48, 1);
    product_compute(&p, false);
    for (int group = 0; group < c->n_group; group++) {
        if (c->rows[group] == 0) {
            MT_TEST_SAME_BITS(p.d_w[group], before.d_w[group], p.n_out * p.n_in);
        }
    }
    product_clear(&p);
    product_clear(&before);
}

static void no_group_at_all_is_no_work(void **state)
{
    MT_UNUSED(state);
    struct mt_device device;
    mt_device_init_plain(&device);
    const int64_t offset[1] = {0};
    const struct mt_groups none = {0, offset};
    mt_grouped_forward(&device, NULL, NULL, NULL, none);
    mt_grouped_backward_input(&device, NULL, NULL, NULL, none, false);
    mt_grouped_backward_weight(&device, NULL, NULL, NULL, 8, 8, none);
}

static void a_warm_step_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct product p;
    product_init(&p, cases[5].rows, cases[5].n_group, 64, 48, 2);
    const int64_t before = mt_memory_n_allocated();
    product_compute(&p, true);
    assert_int_equal(mt_memory_n_allocated(), before);
    product_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_match_the_reference),
        cmocka_unit_test(many_groups_match_the_reference_on_three_threads),
        cmocka_unit_test(groups_have_the_same_bits_on_any_number_of_threads),
        cmocka_unit_test(a_group_gets_what_linear_gives_for_its_rows),
        cmocka_unit_test(a_range_of_groups_gives_what_all_give),
        cmocka_unit_test(an_empty_group_keeps_its_gradient),
        cmocka_unit_test(no_group_at_all_is_no_work),
        cmocka_unit_test(a_warm_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
