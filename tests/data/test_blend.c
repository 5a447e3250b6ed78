/* Which source a sequence comes from: shares, order, and what survives a change of the blend. */
#include "data/blend.h"
#include "support/test.h"

#include <string.h>

enum { MANY = 3 * MT_BLEND_SLOTS + 77 };

/* Every source gives its sequences in order, none twice, and has its share to within one. */
static void expect_shares(const struct mt_blend *blend, const double *weight)
{
    int64_t next[MT_MAX_PATHS] = {0};
    double sum = 0;
    for (int k = 0; k < blend->n_source; ++k) {
        sum += weight[k];
    }
    for (int64_t s = 0; s < MANY; ++s) {
        int source = -1;
        int64_t index = -1;
        mt_blend_place(blend, s, &source, &index);
        assert_in_range(source, 0, blend->n_source - 1);
        assert_int_equal(index, next[source]);
        if (s % 101 == 0 || s % MT_BLEND_SLOTS < 2) {
            assert_int_equal(mt_blend_drawn(blend, source, s), index);
        }
        ++next[source];
        for (int k = 0; k < blend->n_source; ++k) {
            /* slots are a 4096th: the rounding of a weight adds up over the periods */
            const double slack = 1.01 + (double)(s + 1) / MT_BLEND_SLOTS;
            const double share = (double)(s + 1) * weight[k] / sum;
            assert_true((double)next[k] > share - slack && (double)next[k] < share + slack);
        }
    }
}

static void each_source_has_its_share_in_order(void **state)
{
    MT_UNUSED(state);
    static const double weights[][4] = {{1, 1, 1, 1}, {0.7, 0.2, 0.05, 0.05}, {3, 1e-9, 2, 1}};
    for (int i = 0; i < 3; ++i) {
        for (int n = 1; n <= 4; ++n) {
            struct mt_blend blend;
            mt_blend_init(&blend, n, weights[i]);
            expect_shares(&blend, weights[i]);
        }
    }
}

static void the_smallest_weight_still_has_a_slot(void **state)
{
    MT_UNUSED(state);
    double weight[MT_MAX_PATHS];
    struct mt_blend blend;
    int64_t sum = 0;
    for (int k = 0; k < MT_MAX_PATHS; ++k) {
        weight[k] = k == 3 ? 1e9 : 1e-300;
    }
    mt_blend_init(&blend, MT_MAX_PATHS, weight);
    for (int k = 0; k < MT_MAX_PATHS; ++k) {
        assert_true(blend.count[k] >= 1);
        sum += blend.count[k];
    }
    assert_int_equal(sum, MT_BLEND_SLOTS);
    assert_int_equal(blend.count[3], MT_BLEND_SLOTS - MT_MAX_PATHS + 1);
}

/* Three sources a, b, c whose name and content are these numbers. */
static const struct mt_blend_source abc[] = {{10, 100}, {11, 101}, {12, 102}};

/* Sequences [first, end) of the stream: marks what each source of abc gives; `which` maps the
 * blend's sources to abc's. */
static void give(const struct mt_blend *blend, const int *which, int64_t first, int64_t end,
                 unsigned char seen[3][MANY])
{
    for (int64_t s = first; s < end; ++s) {
        int source = -1;
        int64_t index = -1;
        mt_blend_place(blend, s, &source, &index);
        assert_in_range(index, 0, MANY - 1);
        ++seen[which[source]][index];
    }
}

/* What was given is a prefix of the source, each once: none lost, none twice. */
static int64_t prefix(const unsigned char *seen)
{
    int64_t n = 0;
    while (n < MANY && seen[n] == 1) {
        ++n;
    }
    for (int64_t i = n; i < MANY; ++i) {
        assert_int_equal(seen[i], 0);
    }
    return n;
}

static void a_change_of_blend_loses_and_repeats_nothing(void **state)
{
    MT_UNUSED(state);
    static unsigned char seen[3][MANY];
    static const int all[] = {0, 1, 2};
    static const int swapped[] = {2, 0};
    static const struct mt_blend_source two[] = {{12, 102}, {10, 100}};
    static const double first_weights[] = {5, 3, 2};
    static const double other_weights[] = {1, 4};
    int64_t kept[MT_BLEND_STATE];
    struct mt_blend blend;
    int changed = 0;
    memset(seen, 0, sizeof(seen));
    mt_blend_init(&blend, 3, first_weights);
    give(&blend, all, 0, 1234, seen);
    mt_blend_save(&blend, abc, kept);

    mt_blend_init(&blend, 3, first_weights); /* the same again */
    assert_true(mt_blend_state_is_valid(kept, 1234));
    assert_false(mt_blend_resume(&blend, abc, kept, 1234, &changed));
    assert_int_equal(changed, -1);
    give(&blend, all, 1234, 1500, seen);
    mt_blend_save(&blend, abc, kept);

    mt_blend_init(&blend, 2, other_weights); /* one left out, the others in another order */
    assert_true(mt_blend_resume(&blend, two, kept, 1500, &changed));
    assert_int_equal(changed, -1);
    give(&blend, swapped, 1500, 7000, seen);
    mt_blend_save(&blend, two, kept);

    mt_blend_init(&blend, 1, NULL); /* one alone */
    assert_true(mt_blend_resume(&blend, abc, kept, 7000, &changed));
    give(&blend, all, 7000, 8000, seen);
    mt_blend_save(&blend, abc, kept);

    mt_blend_init(&blend, 3, first_weights); /* back again, also what two blends were without */
    assert_true(mt_blend_state_is_valid(kept, 8000));
    assert_true(mt_blend_resume(&blend, abc, kept, 8000, &changed));
    assert_int_equal(blend.n_absent, 0);
    give(&blend, all, 8000, 9000, seen);
    assert_int_equal(prefix(seen[0]) + prefix(seen[1]) + prefix(seen[2]), 9000);
}

static void changed_content_is_told_by_its_name(void **state)
{
    MT_UNUSED(state);
    struct mt_blend_source now[3];
    int64_t kept[MT_BLEND_STATE];
    struct mt_blend blend;
    int changed = -1;
    memcpy(now, abc, sizeof(now));
    now[1].fingerprint = 999;
    mt_blend_init(&blend, 3, NULL);
    mt_blend_save(&blend, abc, kept);
    assert_true(mt_blend_resume(&blend, now, kept, 300, &changed));
    assert_int_equal(changed, 1);
    assert_int_equal(blend.start[0] + blend.start[1] + blend.start[2], 300);
    now[1].name = 77; /* another file: a new source, from its beginning */
    mt_blend_init(&blend, 3, NULL);
    assert_true(mt_blend_resume(&blend, now, kept, 300, &changed));
    assert_int_equal(changed, -1);
    assert_int_equal(blend.start[1], 0);
}

static void two_sources_of_one_content_stay_two(void **state)
{
    MT_UNUSED(state);
    static const struct mt_blend_source twins[] = {{1, 5}, {2, 5}};
    static const double weights[] = {3, 1};
    int64_t kept[MT_BLEND_STATE];
    struct mt_blend blend;
    int changed = -1;
    mt_blend_init(&blend, 2, weights);
    mt_blend_save(&blend, twins, kept);
    mt_blend_init(&blend, 2, NULL);
    assert_true(mt_blend_resume(&blend, twins, kept, 4 * 100, &changed));
    assert_int_equal(blend.start[0], 300);
    assert_int_equal(blend.start[1], 100);
}

static void a_state_that_no_run_wrote_is_refused(void **state)
{
    MT_UNUSED(state);
    static const int64_t wrong[][2] = {
        {0, -1},  {0, MT_MAX_PATHS + 1}, {1, -1}, {1, 301}, {4, -1}, {4, 301}, {5, 0}, {5, 9999},
        {16, 301}};
    int64_t kept[MT_BLEND_STATE];
    struct mt_blend blend;
    mt_blend_init(&blend, 3, NULL);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
        mt_blend_save(&blend, abc, kept);
        assert_true(mt_blend_state_is_valid(kept, 300));
        kept[wrong[i][0]] = wrong[i][1];
        assert_false(mt_blend_state_is_valid(kept, 300));
    }
    memset(kept, 0, sizeof(kept));
    int changed = 0;
    assert_true(mt_blend_state_is_valid(kept, 300));
    assert_false(mt_blend_resume(&blend, abc, kept, 300, &changed));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_source_has_its_share_in_order),
        cmocka_unit_test(the_smallest_weight_still_has_a_slot),
        cmocka_unit_test(a_change_of_blend_loses_and_repeats_nothing),
        cmocka_unit_test(changed_content_is_told_by_its_name),
        cmocka_unit_test(two_sources_of_one_content_stay_two),
        cmocka_unit_test(a_state_that_no_run_wrote_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
