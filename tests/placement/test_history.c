/* The load history keeps the last `window` steps of every layer, newest last. */
#include "support/test.h"

#include "base/memory.h"
#include "placement/placement.h"

enum { N_LAYER = 3, N_EXPERT = 5 };

static int64_t count_of(int step, int layer, int expert)
{
    return ((int64_t)step << 33) + (int64_t)layer * 100 + expert;
}

static void run_steps(int window, int n_step)
{
    struct mt_history history;
    const int64_t n_live = mt_memory_n_live();
    MT_TEST_OK(mt_history_init(&history, N_LAYER, N_EXPERT, window));
    assert_int_equal(history.n_step, 0);
    for (int step = 1; step <= n_step; ++step) {
        int64_t counts[N_LAYER * N_EXPERT];
        for (int i = 0; i < N_LAYER * N_EXPERT; ++i) {
            counts[i] = count_of(step, i / N_EXPERT, i % N_EXPERT);
        }
        mt_history_record(&history, counts);
        assert_int_equal(history.n_step, step < window ? step : window);
        for (int i = 0; i < N_LAYER * history.n_step * N_EXPERT; ++i) {
            const int layer = i / (history.n_step * N_EXPERT);
            const int back = history.n_step - 1 - i / N_EXPERT % history.n_step;
            const int64_t *kept = mt_history_layer(&history, layer);
            assert_int_equal(kept[i % (history.n_step * N_EXPERT)],
                             count_of(step - back, layer, i % N_EXPERT));
        }
    }
    mt_history_clear(&history);
    assert_int_equal(mt_memory_n_live(), n_live);
}

static void the_last_steps_are_kept_newest_last(void **state)
{
    MT_UNUSED(state);
    for (int window = 1; window <= 6; ++window) {
        run_steps(window, 15);
    }
}

static void recording_allocates_nothing(void **state)
{
    MT_UNUSED(state);
    struct mt_history history;
    int64_t counts[N_LAYER * N_EXPERT] = {0};
    MT_TEST_OK(mt_history_init(&history, N_LAYER, N_EXPERT, 2));
    const int64_t n_allocated = mt_memory_n_allocated();
    for (int step = 0; step < 5; ++step) {
        mt_history_record(&history, counts);
    }
    assert_int_equal(mt_memory_n_allocated(), n_allocated);
    mt_history_clear(&history);
}

static void a_model_without_expert_layers_has_an_empty_history(void **state)
{
    MT_UNUSED(state);
    struct mt_history history;
    int64_t nothing = 0;
    MT_TEST_OK(mt_history_init(&history, 0, 1, 5));
    mt_history_record(&history, &nothing);
    assert_int_equal(history.n_step, 1);
    mt_history_clear(&history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_steps_are_kept_newest_last),
        cmocka_unit_test(recording_allocates_nothing),
        cmocka_unit_test(a_model_without_expert_layers_has_an_empty_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
