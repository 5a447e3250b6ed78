/* Cutting metrics.jsonl to the resumed step. */
#include "base/memory.h"
#include "support/test.h"
#include "train/internal.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const PATH = "metrics-file-test.jsonl";

static void write_text(const char *text)
{
    FILE *file = fopen(PATH, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void assert_text(const char *expected)
{
    char text[4096] = "";
    FILE *file = fopen(PATH, "r");
    assert_non_null(file);
    const size_t n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    assert_int_equal(fclose(file), 0);
    assert_string_equal(text, expected);
}

static int64_t last_step(void)
{
    int64_t last = -1;
    MT_TEST_OK(mt_metrics_last_step(PATH, &last));
    return last;
}

static void cut_keeps_the_run_line_and_the_steps_up_to_the_resumed_one(void **state)
{
    MT_UNUSED(state);
    write_text("{\"run\":{\"name\":\"x\"}}\n{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2}\n"
               "{\"step\":2,\"eval_loss\":3}\n{\"step\":3,\"loss\":1}\n");
    assert_int_equal(last_step(), 3);
    assert_int_equal(mt_metrics_cut(PATH, 2), MT_OK);
    assert_text("{\"run\":{\"name\":\"x\"}}\n{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2}\n"
                "{\"step\":2,\"eval_loss\":3}\n");
    assert_int_equal(last_step(), 2);
}

static void half_a_line_of_a_killed_run_is_dropped(void **state)
{
    MT_UNUSED(state);
    write_text("{\"run\":{}}\n{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"lo");
    assert_int_equal(last_step(), 1);
    assert_int_equal(mt_metrics_cut(PATH, 5), MT_OK);
    assert_text("{\"run\":{}}\n{\"step\":1,\"loss\":2.5}\n");
    write_text("{\"run\":{}}\n{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2}"); /* no newline */
    assert_int_equal(last_step(), 1);
}

static void a_missing_file_has_no_steps_and_needs_no_cut(void **state)
{
    MT_UNUSED(state);
    (void)unlink(PATH);
    assert_int_equal(last_step(), 0);
    assert_int_equal(mt_metrics_cut(PATH, 2), MT_OK);
}

/* As on a full disk: no file may have a byte. */
static void a_failure_to_rewrite_says_why_and_keeps_the_file(void **state)
{
    MT_UNUSED(state);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit none = {0, before.rlim_max};
    write_text("{\"run\":{}}\n{\"step\":1}\n");
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(mt_metrics_cut(PATH, 1), MT_ERR_RESOURCE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(mt_error_last()->text, "metrics-file-test.jsonl: File too large;"));
    mt_error_clear();
    assert_text("{\"run\":{}}\n{\"step\":1}\n");
    assert_int_not_equal(access("metrics-file-test.jsonl.tmp", F_OK), 0);
}

static void foreign_text_is_not_taken_for_steps(void **state)
{
    MT_UNUSED(state);
    write_text("hello\n[1,2]\n{\"step\":\"7\"}\n{\"step\":-3}\n");
    assert_int_equal(last_step(), 0);
}

/* A terabyte of zeros, which take no room on the disk: read to the end they would take minutes and,
 * as one line, all memory. */
static void a_line_without_end_is_refused_and_the_file_kept(void **state)
{
    MT_UNUSED(state);
    const char *why = "metrics-file-test.jsonl has a line of more than 16 MiB; lines of a run";
    struct stat about;
    int64_t last = 0;
    bool has = false;
    write_text("{\"run\":{}}\n{\"step\":1}\n");
    assert_int_equal(truncate(PATH, (off_t)1 << 40), 0);
    MT_TEST_FAILS(mt_metrics_last_step(PATH, &last), MT_ERR_INPUT, why);
    MT_TEST_FAILS(mt_metrics_has_evaluation(PATH, 1, &has), MT_ERR_INPUT, why);
    MT_TEST_FAILS(mt_metrics_cut(PATH, 1), MT_ERR_INPUT, why);
    assert_int_equal(stat(PATH, &about), 0);
    assert_true(about.st_size == (off_t)1 << 40);
    assert_int_not_equal(access("metrics-file-test.jsonl.tmp", F_OK), 0);
    assert_true(mt_memory_peak_resident_bytes() < (int64_t)256 << 20);
}

static void an_evaluation_is_found_at_its_step_only(void **state)
{
    MT_UNUSED(state);
    bool has = false;
    write_text("{\"step\":2}\n{\"step\":2,\"eval_loss\":3}\n{\"step\":3}\n");
    MT_TEST_OK(mt_metrics_has_evaluation(PATH, 2, &has));
    assert_true(has);
    MT_TEST_OK(mt_metrics_has_evaluation(PATH, 3, &has));
    assert_false(has);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_keeps_the_run_line_and_the_steps_up_to_the_resumed_one),
        cmocka_unit_test(half_a_line_of_a_killed_run_is_dropped),
        cmocka_unit_test(a_missing_file_has_no_steps_and_needs_no_cut),
        cmocka_unit_test(a_failure_to_rewrite_says_why_and_keeps_the_file),
        cmocka_unit_test(foreign_text_is_not_taken_for_steps),
        cmocka_unit_test(a_line_without_end_is_refused_and_the_file_kept),
        cmocka_unit_test(an_evaluation_is_found_at_its_step_only),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(PATH);
    return failed;
}
