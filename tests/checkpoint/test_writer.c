/* The thread of the checkpoint's writer: one task at a time, its errors, what it lets go early. */
#include "base/clock.h"
#include "checkpoint/writer.h"
#include "support/test.h"

#include <pthread.h>
#include <stdatomic.h>

/* Two gates, so that no test depends on time. */
struct job {
    struct mt_writer *writer;
    atomic_bool may_release, may_end;
    enum mt_status status;
    int n_run;
    int released_value;
};

static void await(const atomic_bool *gate)
{
    while (!atomic_load(gate)) {
        mt_clock_sleep_until_ns(mt_clock_ns() + 100000);
    }
}

static enum mt_status work(void *context)
{
    struct job *job = context;
    job->n_run++;
    await(&job->may_release);
    job->released_value = 42;
    mt_writer_release(job->writer);
    await(&job->may_end);
    return job->status == MT_OK ? MT_OK : MT_FAIL(job->status, "the disk is full");
}

static void a_task_releases_before_it_is_done(void **state)
{
    MT_UNUSED(state);
    struct job job = {.may_release = true};
    int64_t cpu_ns = -1;
    MT_TEST_OK(mt_writer_create(&job.writer));
    assert_false(mt_writer_has_task(job.writer));
    mt_writer_await_release(job.writer); /* of nothing */
    mt_writer_begin(job.writer, work, &job);
    assert_true(mt_writer_has_task(job.writer));
    mt_writer_await_release(job.writer);
    assert_int_equal(job.released_value, 42);
    assert_false(mt_writer_is_done(job.writer));
    mt_writer_await_done(job.writer, mt_clock_ns() + 1000000); /* in vain */
    assert_false(mt_writer_is_done(job.writer));
    atomic_store(&job.may_end, true);
    mt_writer_await_done(job.writer, INT64_MAX);
    assert_true(mt_writer_is_done(job.writer));
    assert_false(mt_writer_has_failed(job.writer));
    MT_TEST_OK(mt_writer_end(job.writer, &cpu_ns));
    assert_true(cpu_ns >= 0);
    assert_false(mt_writer_has_task(job.writer));
    mt_writer_destroy(job.writer);
}

static void a_tasks_error_arrives_with_its_words(void **state)
{
    MT_UNUSED(state);
    struct job job = {.may_release = true, .may_end = true, .status = MT_ERR_RESOURCE};
    int64_t cpu_ns = 0;
    MT_TEST_OK(mt_writer_create(&job.writer));
    for (int i = 1; i <= 3; ++i) {
        mt_writer_begin(job.writer, work, &job);
        mt_writer_await_done(job.writer, INT64_MAX);
        assert_true(mt_writer_has_failed(job.writer));
        MT_TEST_FAILS(mt_writer_end(job.writer, &cpu_ns), MT_ERR_RESOURCE, "the disk is full");
        assert_int_equal(job.n_run, i);
    }
    job.status = MT_OK; /* an error is not kept for the next task */
    mt_writer_begin(job.writer, work, &job);
    mt_writer_await_done(job.writer, INT64_MAX);
    MT_TEST_OK(mt_writer_end(job.writer, &cpu_ns));
    mt_writer_fail(job.writer, MT_FAIL(MT_ERR_INTERNAL, "it could not begin"));
    assert_true(mt_writer_is_done(job.writer));
    MT_TEST_FAILS(mt_writer_end(job.writer, &cpu_ns), MT_ERR_INTERNAL, "it could not begin");
    mt_writer_destroy(job.writer);
}

static void a_begun_task_is_done_before_the_writer_goes(void **state)
{
    MT_UNUSED(state);
    for (int i = 0; i < 50; ++i) { /* the thread may have taken it, or not yet */
        struct job job = {.may_release = true, .may_end = true};
        MT_TEST_OK(mt_writer_create(&job.writer));
        mt_writer_begin(job.writer, work, &job);
        mt_writer_destroy(job.writer);
        assert_int_equal(job.n_run, 1);
    }
    mt_writer_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_releases_before_it_is_done),
        cmocka_unit_test(a_tasks_error_arrives_with_its_words),
        cmocka_unit_test(a_begun_task_is_done_before_the_writer_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
