/* What the job does without ending; how it ends is looked at from outside, by endings.sh. */
#include "base/clock.h"
#include "base/job.h"
#include "base/log.h"
#include "support/mpi_main.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void the_world_is_a_duplicate_that_returns_errors(void **state)
{
    MT_UNUSED(state);
    int comparison = MPI_IDENT;
    int size = 0;
    int value = 0;
    assert_true(mt_job_is_started());
    assert_int_equal(MPI_Comm_compare(mt_job_world(), MPI_COMM_WORLD, &comparison), MPI_SUCCESS);
    assert_int_equal(comparison, MPI_CONGRUENT);
    assert_int_equal(MPI_Comm_size(mt_job_world(), &size), MPI_SUCCESS);
    assert_int_equal(size, mt_job_size());
    assert_true(mt_job_rank() >= 0 && mt_job_rank() < size);
    assert_true(strlen(mt_job_host()) > 0 && strchr(mt_job_host(), '.') == NULL);
    const int code = MPI_Bcast(&value, 1, MPI_INT, -3, mt_job_world());
    MT_TEST_FAILS(mt_job_mpi_status(code, "MPI_Bcast(&value, 1)", "src/base/job.c", 1),
                  MT_ERR_INTERNAL, "MPI_Bcast failed: MPI_ERR_ROOT");
    MT_TEST_OK(mt_job_mpi_status(MPI_SUCCESS, "MPI_Bcast", "src/base/job.c", 1));
}

static void all_well_is_agreed_silently(void **state)
{
    MT_UNUSED(state);
    MT_TEST_OK(mt_job_agree(MT_OK));
    MT_TEST_OK(mt_job_check_same(12345, "a constant"));
}

/* Standard error goes nowhere meanwhile: what is spoken is endings.sh's to check. */
static enum mt_status agree_quietly(enum mt_status status)
{
    const int saved = dup(STDERR_FILENO);
    FILE *nowhere = fopen("/dev/null", "w");
    assert_true(saved >= 0 && nowhere != NULL);
    assert_true(dup2(fileno(nowhere), STDERR_FILENO) >= 0);
    const enum mt_status agreed = mt_job_agree(status);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)fclose(nowhere);
    return agreed;
}

static void the_lowest_failing_rank_decides_for_all(void **state)
{
    MT_UNUSED(state);
    for (int lowest = 0; lowest < mt_job_size(); ++lowest) {
        enum mt_status status = MT_OK;
        if (mt_job_rank() >= lowest) {
            status = MT_FAIL(lowest % 2 ? MT_ERR_INPUT : MT_ERR_RESOURCE, "rank %d has failed",
                             mt_job_rank());
        }
        char text[64];
        (void)snprintf(text, sizeof(text), "rank %d has failed", lowest);
        MT_TEST_FAILS(agree_quietly(status), lowest % 2 ? MT_ERR_INPUT : MT_ERR_RESOURCE, text);
    }
}

static void a_rank_that_differs_is_named(void **state)
{
    MT_UNUSED(state);
    if (mt_job_size() == 1) {
        MT_TEST_OK(mt_job_check_same(1, "it"));
        return;
    }
    for (int odd = 0; odd < mt_job_size(); ++odd) {
        const uint64_t hash = mt_job_rank() == odd ? UINT64_MAX : 5;
        char text[64];
        /* Of two ranks neither has a majority: the higher one is named. */
        (void)snprintf(text, sizeof(text), "the file of rank %d differs",
                       mt_job_size() == 2 ? 1 : odd);
        MT_TEST_FAILS(mt_job_check_same(hash, "the file"), MT_ERR_CONFIG, text);
    }
}

static void a_watchdog_starts_and_stops_at_once(void **state)
{
    MT_UNUSED(state);
    MT_TEST_OK(mt_job_watchdog_start(0));
    mt_job_watchdog_stop();
    for (int i = 0; i < 3; ++i) {
        MT_TEST_OK(mt_job_watchdog_start(600));
        mt_job_watch_begin("barrier", i + 1);
        assert_int_equal(MPI_Barrier(mt_job_world()), MPI_SUCCESS);
        mt_job_watch_end();
        mt_job_watchdog_stop();
    }
}

static void a_signal_asks_for_a_stop_and_a_lost_reader_does_not_kill(void **state)
{
    MT_UNUSED(state);
    int ends[2];
    MT_TEST_OK(mt_job_signals_install());
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(close(ends[0]), 0);
    assert_int_equal(write(ends[1], "x", 1), -1);
    assert_int_equal(close(ends[1]), 0);
    assert_false(mt_job_stop_requested());
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    for (int i = 0; i < 500 && !mt_job_stop_requested(); ++i) {
        mt_clock_sleep_until_ns(mt_clock_ns() + 10000000);
    }
    assert_true(mt_job_stop_requested());
}

static void stop_signals_never_interrupt_a_thread_that_computes(void **state)
{
    sigset_t blocked;
    MT_UNUSED(state);
    MT_TEST_OK(mt_job_signals_install());
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
    assert_int_equal(sigismember(&blocked, SIGUSR1), 1);
    assert_int_equal(sigismember(&blocked, SIGTERM), 1);
    assert_int_equal(sigismember(&blocked, SIGINT), 1);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_world_is_a_duplicate_that_returns_errors),
    cmocka_unit_test(all_well_is_agreed_silently),
    cmocka_unit_test(the_lowest_failing_rank_decides_for_all),
    cmocka_unit_test(a_rank_that_differs_is_named),
    cmocka_unit_test(a_watchdog_starts_and_stops_at_once),
    cmocka_unit_test(a_signal_asks_for_a_stop_and_a_lost_reader_does_not_kill),
    cmocka_unit_test(stop_signals_never_interrupt_a_thread_that_computes),
};
MT_TEST_MPI_MAIN(tests)
