/* The step line's straggler: shown when it stays, and never without reason. */
#include "support/test.h"

#include "base/memory.h"
#include "base/random.h"
#include "profile/live.h"

#include <string.h>

enum { N_RANK = 5, STRIDE = MT_N_LIVE + 3 };

/* A step in which `slow` takes `factor` times as long; rows_of: times the rows. */
static double noise = 0.01;

static void add_step(struct mt_live *live, int slow, double factor, double rows, uint64_t draw)
{
    double all[N_RANK * STRIDE] = {0};
    for (int r = 0; r < N_RANK; ++r) {
        double *item = all + (int64_t)r * STRIDE;
        const double chance = 1 + noise * mt_random_normal(9, (uint64_t)r, draw);
        const double pace = (r == slow ? factor : 1.0) * chance;
        item[MT_LIVE_TOKENS] = 1000;
        item[MT_LIVE_ROWS] = r == slow ? 2000 * rows : 2000;
        item[MT_LIVE_TOKEN_S] = 0.040 * pace;
        item[MT_LIVE_EXPERT_S] = 30e-6 * item[MT_LIVE_ROWS] * pace;
        item[MT_LIVE_BUSY_S] = item[MT_LIVE_TOKEN_S] + item[MT_LIVE_EXPERT_S] + 0.005;
    }
    MT_TEST_OK(mt_live_add(live, all, STRIDE));
}

static void expect_after(int n, int slow, double factor, double rows, const char *shown)
{
    struct mt_live live;
    char text[64];
    MT_TEST_OK(mt_live_open(&live, N_RANK, 50));
    for (int i = 0; i < n; ++i) {
        add_step(&live, slow, factor, rows, (uint64_t)i);
    }
    mt_live_print(&live, text, sizeof(text));
    if (shown[0] == '\0') {
        assert_string_equal(text, "");
    } else {
        assert_non_null(strstr(text, shown));
    }
    mt_live_clear(&live);
    assert_int_equal(mt_memory_n_live(), 0);
}

static void a_straggler_that_stays_is_shown_with_its_cause(void **state)
{
    MT_UNUSED(state);
    expect_after(20, 3, 1.3, 1.0, "  rank 3 slow-device ");
    expect_after(70, 0, 1.0, 1.8, "  rank 0 routing-load ");
}

static void nothing_is_shown_before_it_has_stayed(void **state)
{
    MT_UNUSED(state);
    expect_after(19, 3, 1.3, 1.0, "");
    expect_after(100, -1, 1.0, 1.0, "");
}

static void a_straggler_that_is_gone_is_shown_no_more(void **state)
{
    MT_UNUSED(state);
    struct mt_live live;
    char text[64];
    MT_TEST_OK(mt_live_open(&live, N_RANK, 20));
    for (int i = 0; i < 100; ++i) {
        add_step(&live, 2, i < 40 ? 1.5 : 1.0, 1.0, (uint64_t)i);
    }
    mt_live_print(&live, text, sizeof(text));
    assert_string_equal(text, "");
    mt_live_clear(&live);
}

/* After a burst of what ranks cost each other by chance, only more than that is shown for long. */
static void what_is_within_chance_is_not_shown(void **state)
{
    MT_UNUSED(state);
    struct mt_live live;
    char text[64];
    for (int is_loud = 0; is_loud < 2; ++is_loud) {
        MT_TEST_OK(mt_live_open(&live, N_RANK, 20));
        noise = is_loud ? 0.2 : 0.01;
        for (int i = 0; i < 60; ++i) {
            add_step(&live, -1, 1, 1.0, (uint64_t)i);
        }
        noise = 0.01;
        for (int i = 60; i < 120; ++i) {
            add_step(&live, 2, 1.06, 1.0, (uint64_t)i);
        }
        mt_live_print(&live, text, sizeof(text));
        assert_int_equal(strstr(text, "rank 2 slow-device") != NULL, !is_loud);
        mt_live_clear(&live);
    }
}

static void ranks_that_recorded_nothing_say_nothing(void **state)
{
    MT_UNUSED(state);
    struct mt_live live;
    double all[MT_N_LIVE] = {0};
    char text[64];
    MT_TEST_OK(mt_live_open(&live, 1, 1));
    for (int i = 0; i < 30; ++i) {
        MT_TEST_OK(mt_live_add(&live, all, MT_N_LIVE));
    }
    mt_live_print(&live, text, sizeof(text));
    assert_string_equal(text, "");
    mt_live_clear(&live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_straggler_that_stays_is_shown_with_its_cause),
        cmocka_unit_test(nothing_is_shown_before_it_has_stayed),
        cmocka_unit_test(a_straggler_that_is_gone_is_shown_no_more),
        cmocka_unit_test(what_is_within_chance_is_not_shown),
        cmocka_unit_test(ranks_that_recorded_nothing_say_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
