/* The three windows and the micro-batch loss against counts worked out by hand: 2 layers of 4
 * experts. */
#include "moe/balance.h"
#include "support/test.h"

enum { N_LAYER = 2, N_EXPERT = 4, LAYER = 1 };

static const int64_t FIRST[N_EXPERT] = {4, 2, 2, 0};  /* of 8 */
static const int64_t SECOND[N_EXPERT] = {0, 2, 0, 6}; /* of 8 */

static void make(struct mt_balance *balance, enum mt_balance_loss loss,
                 enum mt_balance_window window)
{
    MT_TEST_OK(mt_balance_init(balance, loss, window, N_LAYER, N_EXPERT));
    mt_balance_begin_step(balance);
}

static void assert_share(struct mt_balance *balance, double a, double b, double c, double d)
{
    const double want[N_EXPERT] = {a, b, c, d};
    const int64_t own[N_EXPERT] = {1, 0, 0, 0};
    const float *f = mt_balance_share(balance, LAYER, own);
    assert_non_null(f);
    for (int e = 0; e < N_EXPERT; ++e) {
        assert_true((double)f[e] == want[e]);
    }
}

static void assert_no_share(struct mt_balance *balance)
{
    const int64_t own[N_EXPERT] = {0, 0, 0, 0};
    assert_null(mt_balance_share(balance, LAYER, own));
}

static void running_window_holds_the_micro_batches_so_far(void **state)
{
    (void)state;
    struct mt_balance balance;
    make(&balance, MT_BALANCE_GLOBAL, MT_WINDOW_RUNNING);
    assert_no_share(&balance);
    mt_balance_add(&balance, LAYER, FIRST, true);
    assert_share(&balance, 0.5, 0.25, 0.25, 0.0);
    mt_balance_add(&balance, LAYER, SECOND, true);
    assert_share(&balance, 0.25, 0.25, 0.125, 0.375);
    mt_balance_begin_step(&balance);
    assert_no_share(&balance);
    mt_balance_clear(&balance);
}

static void lagged_window_is_the_previous_step_and_absent_in_the_first(void **state)
{
    (void)state;
    struct mt_balance balance;
    const int64_t step[N_LAYER * N_EXPERT] = {9, 9, 9, 9, 0, 2, 0, 6};
    make(&balance, MT_BALANCE_GLOBAL, MT_WINDOW_LAGGED);
    mt_balance_add(&balance, LAYER, FIRST, true);
    assert_no_share(&balance);
    mt_balance_end_step(&balance, step);
    mt_balance_begin_step(&balance);
    mt_balance_add(&balance, LAYER, FIRST, true);
    assert_share(&balance, 0.0, 0.25, 0.0, 0.75);
    mt_balance_clear(&balance);
}

static void exact_window_is_complete_after_the_counting_pass(void **state)
{
    (void)state;
    struct mt_balance balance;
    make(&balance, MT_BALANCE_GLOBAL, MT_WINDOW_EXACT);
    mt_balance_set_counting(&balance, true);
    mt_balance_add(&balance, LAYER, FIRST, false);
    mt_balance_add(&balance, LAYER, SECOND, false);
    mt_balance_set_counting(&balance, false);
    mt_balance_add(&balance, LAYER, FIRST, true); /* forward again: already counted */
    assert_share(&balance, 0.25, 0.25, 0.125, 0.375);
    mt_balance_begin_step(&balance);
    mt_balance_add(&balance, LAYER, FIRST, true); /* one micro-batch: no counting pass */
    assert_share(&balance, 0.5, 0.25, 0.25, 0.0);
    mt_balance_clear(&balance);
}

static void evaluation_forwards_count_for_nothing(void **state)
{
    (void)state;
    struct mt_balance balance;
    make(&balance, MT_BALANCE_GLOBAL, MT_WINDOW_RUNNING);
    mt_balance_add(&balance, LAYER, FIRST, false);
    assert_no_share(&balance);
    mt_balance_clear(&balance);
}

static void windows_agree_when_there_is_one_micro_batch(void **state)
{
    (void)state;
    struct mt_balance running;
    struct mt_balance exact;
    make(&running, MT_BALANCE_GLOBAL, MT_WINDOW_RUNNING);
    make(&exact, MT_BALANCE_GLOBAL, MT_WINDOW_EXACT);
    mt_balance_add(&running, LAYER, SECOND, true);
    mt_balance_add(&exact, LAYER, SECOND, true);
    assert_share(&running, 0.0, 0.25, 0.0, 0.75);
    assert_share(&exact, 0.0, 0.25, 0.0, 0.75);
    mt_balance_clear(&running);
    mt_balance_clear(&exact);
}

static void micro_loss_uses_own_counts_and_none_uses_nothing(void **state)
{
    (void)state;
    struct mt_balance balance;
    make(&balance, MT_BALANCE_MICRO, MT_WINDOW_RUNNING);
    assert_no_share(&balance); /* a rank without tokens */
    mt_balance_add(&balance, LAYER, FIRST, true);
    assert_share(&balance, 1.0, 0.0, 0.0, 0.0);
    mt_balance_clear(&balance);
    make(&balance, MT_BALANCE_NONE, MT_WINDOW_EXACT);
    mt_balance_add(&balance, LAYER, FIRST, true);
    assert_null(mt_balance_share(&balance, LAYER, FIRST));
    mt_balance_clear(&balance);
}

static void sequence_loss_is_refused(void **state)
{
    (void)state;
    struct mt_balance balance;
    MT_TEST_FAILS(mt_balance_init(&balance, MT_BALANCE_SEQUENCE, MT_WINDOW_EXACT, 1, 1),
                  MT_ERR_CONFIG, "not in this version");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_window_holds_the_micro_batches_so_far),
        cmocka_unit_test(lagged_window_is_the_previous_step_and_absent_in_the_first),
        cmocka_unit_test(exact_window_is_complete_after_the_counting_pass),
        cmocka_unit_test(evaluation_forwards_count_for_nothing),
        cmocka_unit_test(windows_agree_when_there_is_one_micro_batch),
        cmocka_unit_test(micro_loss_uses_own_counts_and_none_uses_nothing),
        cmocka_unit_test(sequence_loss_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
