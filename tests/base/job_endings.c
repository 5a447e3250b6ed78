/* Ends in the way that its first argument names; the other arguments are ignored, they mark the
 * process for endings.sh. Rank 2 is the odd one; on fewer ranks the last. */
#include "base/clock.h"
#include "base/job.h"
#include "base/status.h"

#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_odd_rank(void)
{
    return mt_job_rank() == 2 || (mt_job_size() < 3 && mt_job_rank() == mt_job_size() - 1);
}

static void sleep_s(int64_t seconds)
{
    mt_clock_sleep_until_ns(mt_clock_ns() + seconds * 1000000000);
}

static void watched_barrier(int64_t number)
{
    mt_job_watch_begin("barrier", number);
    (void)MPI_Barrier(mt_job_world());
    mt_job_watch_end();
}

static int abort_one(void)
{
    if (is_odd_rank()) {
        mt_job_set_step(12);
        mt_span_begin(MT_PHASE_DISPATCH);
        mt_job_abort(MT_FAIL(MT_ERR_RESOURCE, "no room; room was expected; make room"));
    }
    sleep_s(60);
    return 0;
}

/* Every rank aborts with a code of its own; the odd one a moment earlier. */
static int abort_all(void)
{
    (void)MPI_Barrier(mt_job_world());
    mt_job_abort(
        MT_FAIL((enum mt_status)(2 + mt_job_rank() % 4), "code %d; -; -", 2 + mt_job_rank() % 4));
}

static int agree_all(void)
{
    return mt_job_finish(
        mt_job_agree(MT_FAIL(MT_ERR_CONFIG, "file.toml:3:1: bad key\nfile.toml:9:1: bad value")));
}

/* Ranks 1 and above fail, each in its own words: the lowest of them speaks. */
static int agree_some(void)
{
    enum mt_status status = MT_OK;
    if (mt_job_rank() >= 1) {
        status = MT_FAIL(MT_ERR_INPUT, "shard %d is short; -; -", mt_job_rank());
    }
    return mt_job_finish(mt_job_agree(status));
}

static int check_same(void)
{
    const uint64_t hash = is_odd_rank() ? 7 : 8;
    return mt_job_finish(mt_job_agree(mt_job_check_same(hash, "the resolved configuration")));
}

static int hang_stopped(void)
{
    if (mt_job_watchdog_start(1) != MT_OK) {
        return 1;
    }
    mt_job_set_step(7);
    if (is_odd_rank()) {
        (void)raise(SIGSTOP);
    }
    mt_span_begin(MT_PHASE_DISPATCH);
    watched_barrier(93);
    return mt_job_finish(MT_OK);
}

/* The odd rank leaves out a collective and computes on. */
static int hang_skipped(void)
{
    if (mt_job_watchdog_start(1) != MT_OK) {
        return 1;
    }
    if (is_odd_rank()) {
        sleep_s(60);
    }
    watched_barrier(94);
    return mt_job_finish(MT_OK);
}

/* Many waits, none of them longer than the deadline, all of them together longer. */
static int slow_but_sound(void)
{
    if (mt_job_watchdog_start(1) != MT_OK) {
        return 1;
    }
    for (int i = 1; i <= 5; ++i) {
        if (is_odd_rank()) {
            mt_clock_sleep_until_ns(mt_clock_ns() + 300000000);
        }
        watched_barrier(i);
    }
    return mt_job_finish(MT_OK);
}

static int assert_one(void)
{
    MT_ASSERT(!is_odd_rank());
    sleep_s(60);
    return 0;
}

static int assert_all(void)
{
    (void)MPI_Barrier(mt_job_world());
    MT_ASSERT(mt_job_rank() < 0);
    return 0;
}

static int mpi_error(void)
{
    int value = 0;
    const enum mt_status status =
        mt_job_mpi_status(MPI_Bcast(&value, 1, MPI_INT, mt_job_size() + 5, mt_job_world()),
                          "MPI_Bcast(&value)", "src/base/job.c", 1);
    return mt_job_finish(mt_job_agree(status));
}

/* Steps until a stop is requested anywhere; the ranks share the flag as the step loop does. With
 * `ask` the odd rank requests it itself, `ask` times. */
static int stop(int ask)
{
    if (mt_job_signals_install() != MT_OK) {
        return 1;
    }
    for (int step = 0;; ++step) {
        if (step == 3 && is_odd_rank()) {
            for (int i = 0; i < ask; ++i) {
                (void)kill(getpid(), i == 0 ? SIGTERM : SIGUSR1);
            }
            if (ask > 1) { /* the second one ends the process; the first must not be faster */
                mt_clock_sleep_until_ns(mt_clock_ns() + 10000000000);
            }
        }
        int flag = mt_job_stop_requested();
        (void)MPI_Allreduce(MPI_IN_PLACE, &flag, 1, MPI_INT, MPI_MAX, mt_job_world());
        if (flag) {
            return mt_job_finish(mt_job_agree(MT_STOPPED));
        }
        if (step == 0 && mt_job_rank() == 0) {
            printf("running\n");
            (void)fflush(stdout);
        }
        mt_clock_sleep_until_ns(mt_clock_ns() + 10000000);
    }
}

static int stop_by_others(void)
{
    return stop(0);
}

static int stop_once(void)
{
    return stop(1);
}

static int stop_twice(void)
{
    return stop(2);
}

/* As a kernel of the system would send it, and by a library that gives up. */
static int crash(void (*crash_here)(void))
{
    if (is_odd_rank()) {
        mt_job_set_step(12);
        mt_span_begin(MT_PHASE_DISPATCH);
        crash_here();
    }
    sleep_s(60);
    return 0;
}

static void read_nothing(void)
{
    const volatile int *volatile nothing = NULL;
    printf("%d", *nothing);
}

static int crash_one(void)
{
    return crash(read_nothing);
}

static int give_up_one(void)
{
    return crash(abort);
}

static int fail_unspoken(void)
{
    return mt_job_finish(MT_FAIL(MT_ERR_DIVERGED, "loss is NaN; -; -"));
}

static int done(void)
{
    return mt_job_finish(mt_job_agree(MT_OK));
}

static const struct {
    const char *name;
    int (*run)(void);
} endings[] = {
    {"abort_one", abort_one},         {"abort_all", abort_all},
    {"agree_all", agree_all},         {"agree_some", agree_some},
    {"check_same", check_same},       {"hang_stopped", hang_stopped},
    {"hang_skipped", hang_skipped},   {"slow_but_sound", slow_but_sound},
    {"assert_one", assert_one},       {"assert_all", assert_all},
    {"mpi_error", mpi_error},         {"stop_by_others", stop_by_others},
    {"stop_once", stop_once},         {"stop_twice", stop_twice},
    {"fail_unspoken", fail_unspoken}, {"done", done},
    {"crash_one", crash_one},         {"give_up_one", give_up_one},
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    mt_job_crashes_install();
    if (strcmp(name, "fail_without_mpi") == 0) {
        return mt_job_finish(mt_job_agree(MT_FAIL(MT_ERR_CONFIG, "bad usage; -; -")));
    }
    MT_ASSERT(strcmp(name, "assert_before_init") != 0);
    if (mt_job_init(&argc, &argv) != MT_OK) {
        return mt_job_finish(MT_ERR_INTERNAL);
    }
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); ++i) {
        if (strcmp(name, endings[i].name) == 0) {
            return endings[i].run();
        }
    }
    return mt_job_finish(mt_job_agree(MT_FAIL(MT_ERR_CONFIG, "no ending is called '%s'", name)));
}
