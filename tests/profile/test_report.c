/* The report of made runs: what it says first, what it keeps quiet about, what it does with names
 * that are no names. */
#include "base/memory.h"
#include "made_run.h"
#include "profile/report.h"
#include "profile/report_internal.h"
#include "profile/run_metrics.h"
#include "profile/trace_export.h"
#include "support/test.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES = 1 << 22 };
static char folder[] = "/tmp/moetrain-report-XXXXXX";
static char path[128];
static char content[FILE_BYTES];

static int set_up(void **state)
{
    MT_UNUSED(state);
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    char command[128];
    MT_UNUSED(state);
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static const char *in_folder(const char *name)
{
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static const char *slurp(const char *name)
{
    FILE *file = fopen(in_folder(name), "re");
    assert_non_null(file);
    const size_t n = fread(content, 1, FILE_BYTES - 1, file);
    assert_true(n < FILE_BYTES - 1);
    content[n] = '\0';
    (void)fclose(file);
    return content;
}

/* The text of the report of a profile, which is taken over. */
static const char *text_of(struct mt_profile *profile)
{
    struct mt_report *report = NULL;
    assert_int_equal(mt_report_create_from(folder, profile, &report), MT_OK);
    FILE *out = fopen(in_folder("text"), "we");
    assert_non_null(out);
    assert_int_equal(mt_report_write_text(report, out), MT_OK);
    (void)fclose(out);
    assert_int_equal(mt_report_write_html(report, in_folder("page.html")), MT_OK);
    mt_report_destroy(report);
    assert_int_equal(mt_memory_n_live(), 0);
    return slurp("text");
}

static const char *text_of_run(const struct made_run *run)
{
    struct mt_profile profile;
    assert_int_equal(made_run_profile(run, &profile), MT_OK);
    return text_of(&profile);
}

/* With one blank for every break: sentences are where they were before lines were broken. */
static const char *on_one_line(const char *text)
{
    static char line[FILE_BYTES];
    size_t n = 0;
    for (; *text != '\0' && n + 1 < sizeof(line); ++text) {
        const bool is_blank = *text == ' ' || *text == '\n';
        if (!is_blank || (n > 0 && line[n - 1] != ' ')) {
            line[n++] = is_blank ? ' ' : *text;
        }
    }
    line[n] = '\0';
    return line;
}

static struct made_run long_run(void)
{
    struct made_run run = made_run_plain();
    run.n_step = 30;
    run.jitter = 0.01;
    return run;
}

static void the_first_line_is_the_finding_and_the_second_says_it(void **state)
{
    MT_UNUSED(state);
    struct made_run run = long_run();
    run.slow_rank = 2;
    run.slowdown = 1.3;
    const char *text = text_of_run(&run);
    assert_ptr_equal(strstr(text, "finding: rank 2 slow-device "), text);
    assert_non_null(strstr(text, "\nRank 2 is slow: the same work takes it 1.3"));
    assert_non_null(strstr(text, " ms  rank 2 were as fast as the median rank\n"));

    run = long_run();
    run.hot_rank = 1;
    run.hot = 2;
    text = text_of_run(&run);
    assert_ptr_equal(strstr(text, "finding: rank 1 routing-load "), text);
    assert_non_null(strstr(text, "  the experts of rank 1 had the mean number of rows\n"));
    /* four ranks of two experts; rank 1 has twice the rows, its first expert 3/4 of them */
    assert_non_null(strstr(text, "\nlayer 1                 2   750.0      3.00  1 (100 %)\n"));

    run = long_run();
    text = text_of_run(&run);
    assert_ptr_equal(strstr(text, "finding: none\nNo rank holds the others up."), text);
}

static void a_rank_that_became_slow_is_slow_since_then(void **state)
{
    MT_UNUSED(state);
    struct made_run run = long_run();
    run.slow_rank = 3;
    run.slowdown = 1.4;
    run.slow_from = 12;
    const char *text = text_of_run(&run);
    assert_ptr_equal(strstr(text, "finding: rank 3 slow-device "), text);
    assert_non_null(strstr(on_one_line(text), "of step time, since step 13: the others stand"));
}

static void a_save_that_stops_all_ranks_is_nobodys_fault(void **state)
{
    MT_UNUSED(state);
    struct made_run run = long_run();
    run.checkpoint_every = 5;
    const char *text = text_of_run(&run);
    assert_non_null(strstr(text, " checkpoint "));
    assert_non_null(strstr(text, "\nSaving checkpoints stops every rank.\n"));
    assert_non_null(strstr(on_one_line(text), "all stand still, rank "));
    run.stalled_rank = 1;
    run.stall_ns = 60000000;
    text = text_of_run(&run);
    assert_ptr_equal(strstr(text, "finding: rank 1 checkpoint "), text);
    assert_non_null(strstr(text, "\nRank 1 holds the others up while it saves checkpoints.\n"));
}

static void expect_lines_of_80_columns(const char *text)
{
    for (const char *line = text; *line != '\0';) {
        const size_t n = strcspn(line, "\n");
        if (n > 80) {
            fail_msg("%zu columns: %.*s", n, (int)n, line);
        }
        line += n + (line[n] == '\n' ? 1 : 0);
    }
}

static void the_text_keeps_to_80_columns(void **state)
{
    MT_UNUSED(state);
    for (int n_rank = 1; n_rank <= 65; n_rank += 32) {
        struct mt_profile profile;
        struct made_run run = long_run();
        run.n_rank = n_rank;
        run.n_node = n_rank < 4 ? 1 : 9;
        run.slow_rank = n_rank - 1;
        run.slowdown = 2;
        run.checkpoint_every = 7;
        assert_int_equal(made_run_profile(&run, &profile), MT_OK);
        for (int r = 0; r < n_rank; ++r) {
            (void)snprintf(profile.rank[r].host, MT_PROFILE_NAME_BYTES,
                           "a-host-of-a-cluster-with-many-of-them-%02d.\xc3\xa4.example.org",
                           r / 8);
        }
        const char *text = text_of(&profile);
        expect_lines_of_80_columns(text);
        assert_true(n_rank == 1 || strstr(text, " mple.org ") != NULL);
    }
}

static void any_state_of_a_run_has_a_report(void **state)
{
    MT_UNUSED(state);
    struct made_run run = long_run();
    run.killed_rank = 1;
    run.killed_step = 17;
    assert_non_null(strstr(text_of_run(&run), "broke off at step 30"));

    run = long_run();
    run.n_rank = 1;
    assert_non_null(strstr(text_of_run(&run), "One rank: nobody to wait for"));

    run = long_run();
    run.n_step = 0;
    assert_non_null(strstr(text_of_run(&run), "Nobody's waits are known"));

    run = long_run();
    run.detailed_from = run.n_step; /* sums only */
    run.traced_from = run.n_step;
    assert_non_null(strstr(text_of_run(&run), "no step was recorded in detail by all ranks"));
    assert_non_null(strstr(content, " an unknown share of the ranks' time waiting for others"));
    assert_non_null(strstr(content, "\nno step was replayed for what-ifs: "));
    assert_null(strstr(content, "0.0 %"));
    assert_null(strstr(content, "0.00 %"));
    assert_null(strstr(slurp("page.html"), "0.00 % off"));

    run = long_run();
    run.hot_rank = 0;
    run.hot = 4; /* all rows on one rank, none on the others */
    assert_non_null(strstr(text_of_run(&run), "finding: rank 0 routing-load"));

    run = made_run_plain();
    run.n_step = 6;
    run.n_rank = 65; /* beyond what a mask of sources holds */
    run.n_node = 7;
    run.slow_rank = 64;
    run.slowdown = 2;
    assert_non_null(strstr(text_of_run(&run), "finding: rank 64 slow-device"));
}

static void foreign_names_stay_text_in_the_page(void **state)
{
    MT_UNUSED(state);
    static const char evil[] = "</script><b onload=\"x\">&\xff";
    struct mt_profile profile;
    struct made_run run = long_run();
    run.slow_rank = 3;
    run.slowdown = 2;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    (void)snprintf(profile.run, sizeof(profile.run), "%s", evil);
    for (int r = 0; r < profile.n_rank; ++r) {
        (void)snprintf(profile.rank[r].host, MT_PROFILE_NAME_BYTES, "%s", evil);
    }
    (void)text_of(&profile);
    const char *page = slurp("page.html");
    assert_null(strstr(page, "<b onload"));
    const char *end = strstr(strstr(page, "id=\"data\""), "</script>");
    assert_non_null(end);
    assert_memory_equal(end, "</script>\n<script>", 18); /* the data end where they should */
}

static void metrics_with_broken_lines_are_counted_and_the_rest_is_used(void **state)
{
    MT_UNUSED(state);
    struct mt_run_metrics metrics;
    FILE *out = fopen(in_folder("metrics.jsonl"), "we");
    assert_non_null(out);
    (void)fputs("{\"run\":{\"device\":\"cpu\"}}\n", out);
    for (int s = 1; s <= 30; ++s) {
        (void)fprintf(out,
                      "{\"step\":%d,\"step_time_s\":0.5,\"tokens_per_s\":100,"
                      "\"expert_load_max_over_mean_by_layer\":[1,2],\"placement\":{\"copies\":2,"
                      "\"late_copies\":1,\"moves\":1,\"decisions\":[{\"layer\":1,\"expert\":%d,"
                      "\"copies\":1,\"ranks\":[3],\"late\":true,\"rows\":7,\"saves_s\":1,"
                      "\"costs_s\":0.5}]}}\n%s",
                      s, s, s % 10 == 0 ? "{\"step\":3,\nnot json\n[]\n" : "");
    }
    (void)fputs("{\"step\":31,\"step_ti", out);
    (void)fclose(out);
    assert_int_equal(mt_run_metrics_read(folder, &metrics), MT_OK);
    assert_int_equal(metrics.n_step, 30);
    assert_int_equal(metrics.n_broken, 10);
    assert_true(metrics.copies == 2 && metrics.late == 1 && metrics.n_move == 30);
    assert_true(metrics.n_layer == 2 && metrics.layer_load[1] == 2);
    assert_int_equal(metrics.n_decision, MT_RUN_DECISIONS);
    assert_int_equal(metrics.decision[0].expert, 30); /* the latest first */
    assert_int_equal(metrics.decision[MT_RUN_DECISIONS - 1].expert, 30 - MT_RUN_DECISIONS + 1);
    mt_run_metrics_clear(&metrics);
    assert_int_equal(truncate(in_folder("metrics.jsonl"), (off_t)1 << 40), 0);
    assert_int_equal(mt_run_metrics_read(folder, &metrics), MT_OK);
    assert_int_equal(metrics.n_step, 30);
    assert_int_equal(metrics.n_broken, 10); /* the line without end is the one that was cut */
    mt_run_metrics_clear(&metrics);
    assert_int_equal(unlink(in_folder("metrics.jsonl")), 0);
    assert_int_equal(mt_run_metrics_read(folder, &metrics), MT_OK);
    assert_false(metrics.is_there);
    assert_int_equal(mkfifo(in_folder("metrics.jsonl"), 0666), 0); /* nobody writes into it */
    struct made_run run = long_run();
    assert_non_null(strstr(text_of_run(&run), "metrics.jsonl: skipped: cannot read "));
    assert_non_null(strstr(on_one_line(content), "/metrics.jsonl: it is not a regular file"));
    assert_int_equal(unlink(in_folder("metrics.jsonl")), 0);
    assert_int_equal(mt_memory_n_live(), 0);
}

static void large_runs_have_fewer_steps_replayed(void **state)
{
    MT_UNUSED(state);
    assert_int_equal(mt_report_replayed_steps(1, 0), 64);
    assert_int_equal(mt_report_replayed_steps(64, 1500), 64);
    assert_int_equal(mt_report_replayed_steps(128, 1500), 16);
    assert_int_equal(mt_report_replayed_steps(512, 100), 15);
    assert_int_equal(mt_report_replayed_steps(4096, INT64_MAX), 2);
}

/* The disk was full: profiles end, the run does not. */
static void profiles_that_end_before_the_run_are_no_broken_run(void **state)
{
    MT_UNUSED(state);
    struct made_run run = long_run();
    run.killed_rank = 1;
    run.killed_step = 17;
    for (int ahead = 2; ahead <= 10; ahead += 8) {
        FILE *out = fopen(in_folder("metrics.jsonl"), "we");
        assert_non_null(out);
        (void)fprintf(out, "{\"step\":%d,\"step_time_s\":0.5}\n", run.n_step + ahead);
        (void)fclose(out);
        const char *line = on_one_line(text_of_run(&run));
        if (ahead == 2) {
            assert_non_null(strstr(line, "broke off at step 30;"));
        } else {
            assert_non_null(strstr(line, "was recorded until step 30;"));
            assert_non_null(strstr(line, "with step 30, the run went on to step 40 at least."));
        }
    }
    assert_int_equal(unlink(in_folder("metrics.jsonl")), 0);
}

/* Decisions and policies in the text, and numbers that are none in the page. */
static void what_placement_decided_is_told(void **state)
{
    MT_UNUSED(state);
    FILE *out = fopen(in_folder("metrics.jsonl"), "we");
    assert_non_null(out);
    for (int s = 1; s <= 2; ++s) {
        (void)fprintf(out,
                      "{\"step\":%d,\"step_time_s\":0.5,\"rank_load_max_over_mean\":1.1,"
                      "\"placement\":{\"copies\":%s,\"predicted_s\":0.08,\"ideal_s\":0.06,"
                      "\"decisions\":[{\"layer\":1,\"expert\":17,\"copies\":%d,"
                      "\"ranks\":[9,12],\"late\":true,\"rows\":7,\"saves_s\":310e-6,"
                      "\"costs_s\":40e-6}],\"shadow\":{\"ep\":{\"predicted_s\":%d,"
                      "\"rank_load_max_over_mean\":2},\"x\":7}}}\n",
                      s, s == 1 ? "1e308" : "3", s + 1, s);
    }
    (void)fclose(out);
    struct made_run run = long_run();
    const char *text = text_of_run(&run);
    const char *line = on_one_line(text);
    assert_non_null(
        strstr(line, "step 2, layer 1: expert 17 also on ranks 9, 12 and 1 more: saves "));
    assert_non_null(strstr(line, "step 1, layer 1: expert 17 also on ranks 9 and 12: saves 310 us, "
                                 "costs 40 us (7 rows, after the gate) "));
    assert_non_null(strstr(text, "\nep                           1.50 s      18.75"));
    assert_non_null(strstr(slurp("page.html"), "expert 17 also on ranks 9 and 12"));
    assert_int_equal(unlink(in_folder("metrics.jsonl")), 0);
}

static void a_trace_keeps_to_its_size_and_has_the_last_steps(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_trace_export all;
    struct mt_trace_export few;
    struct made_run run = long_run();
    run.traced_from = 20;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_trace_export(&profile, in_folder("all"), MT_TRACE_MAX_BYTES, &all), MT_OK);
    assert_int_equal(all.n_step, 10);
    assert_int_equal(all.first_step, 21);
    assert_int_equal(all.n_left_out, 0);
    assert_null(strstr(slurp("all"), "\"name\":\"unknown\""));
    mt_profile_step(&profile, 25, 1)->collective[0].kind = -1; /* of a file that never named it */
    assert_int_equal(mt_trace_export(&profile, in_folder("all"), MT_TRACE_MAX_BYTES, &all), MT_OK);
    assert_non_null(strstr(slurp("all"), "\"name\":\"unknown\""));
    assert_null(strstr(content, "\"name\":\"device\""));
    mt_profile_step(&profile, 25, 1)->span[3].track = MT_TRACK_DEVICE;
    assert_int_equal(mt_trace_export(&profile, in_folder("all"), MT_TRACE_MAX_BYTES, &all), MT_OK);
    assert_non_null(strstr(slurp("all"), "\"pid\":1,\"tid\":3,\"name\":\"thread_name\","
                                         "\"args\":{\"name\":\"device\"}"));
    const int64_t all_bytes = (int64_t)strlen(slurp("all"));
    assert_int_equal(mt_trace_export(&profile, in_folder("few"), all_bytes / 2, &few), MT_OK);
    assert_true(few.n_step >= 3 && few.n_step <= 6);
    assert_int_equal(few.n_left_out, 10 - few.n_step);
    assert_int_equal(few.first_step, 31 - few.n_step);
    assert_true((int64_t)strlen(slurp("few")) <= all_bytes / 2);
    assert_int_equal(mt_trace_export(&profile, in_folder("few"), 1, &few), MT_OK);
    assert_int_equal(few.n_step, 1);
    assert_int_equal(mt_trace_export(&profile, in_folder("no/where"), 1, &few), MT_ERR_RESOURCE);
    mt_error_clear();
    mt_profile_clear(&profile);

    run.traced_from = run.n_step;
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_trace_export(&profile, in_folder("none"), 1, &few), MT_ERR_INPUT);
    mt_error_clear();
    mt_profile_clear(&profile);
    assert_int_equal(mt_memory_n_live(), 0);
}

/* As on a disk without room: a file may have so many bytes and no more. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int count_files(void)
{
    int n = 0;
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    while (readdir(stream) != NULL) {
        ++n;
    }
    (void)closedir(stream);
    return n;
}

static void what_cannot_be_written_leaves_what_was_there(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    struct mt_report *report = NULL;
    struct mt_trace_export trace;
    const struct made_run run = long_run();
    (void)text_of_run(&run);
    assert_int_equal(made_run_profile(&run, &profile), MT_OK);
    assert_int_equal(mt_report_create_from(folder, &profile, &report), MT_OK);
    const struct mt_profile *its = mt_report_profile(report);
    MT_TEST_OK(mt_trace_export(its, in_folder("trace.gz"), MT_TRACE_MAX_BYTES, &trace));
    MT_TEST_OK(mt_trace_export(its, in_folder("trace"), MT_TRACE_MAX_BYTES, &trace));
    static char page[FILE_BYTES];
    (void)snprintf(page, sizeof(page), "%s", slurp("page.html"));
    assert_non_null(strstr(page, "</html>"));
    const int n_file = count_files();
    limit_files(4096);
    MT_TEST_FAILS(mt_report_write_html(report, in_folder("page.html")), MT_ERR_RESOURCE,
                  "page.html: File too large; ");
    MT_TEST_FAILS(mt_trace_export(its, in_folder("trace"), MT_TRACE_MAX_BYTES, &trace),
                  MT_ERR_RESOURCE, "trace: File too large; ");
    MT_TEST_FAILS(mt_trace_export(its, in_folder("trace.gz"), MT_TRACE_MAX_BYTES, &trace),
                  MT_ERR_RESOURCE, "trace.gz: File too large; ");
    limit_files(RLIM_INFINITY);
    assert_string_equal(slurp("page.html"), page);
    assert_non_null(strstr(slurp("trace"), "\n]}\n"));
    assert_int_equal(count_files(), n_file);
    assert_int_equal(symlink("page.html", in_folder("link")), 0); /* and a link stays one */
    MT_TEST_OK(mt_report_write_html(report, path));
    assert_int_equal(unlink(in_folder("page.html")), 0);
    assert_int_equal(access(in_folder("link"), F_OK), -1);
    MT_TEST_FAILS(mt_report_write_html(report, folder), MT_ERR_RESOURCE, "not a regular file");
    mt_report_destroy(report);
    assert_int_equal(mt_memory_n_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_is_the_finding_and_the_second_says_it),
        cmocka_unit_test(a_rank_that_became_slow_is_slow_since_then),
        cmocka_unit_test(a_save_that_stops_all_ranks_is_nobodys_fault),
        cmocka_unit_test(the_text_keeps_to_80_columns),
        cmocka_unit_test(any_state_of_a_run_has_a_report),
        cmocka_unit_test(foreign_names_stay_text_in_the_page),
        cmocka_unit_test(metrics_with_broken_lines_are_counted_and_the_rest_is_used),
        cmocka_unit_test(large_runs_have_fewer_steps_replayed),
        cmocka_unit_test(profiles_that_end_before_the_run_are_no_broken_run),
        cmocka_unit_test(what_placement_decided_is_told),
        cmocka_unit_test(a_trace_keeps_to_its_size_and_has_the_last_steps),
        cmocka_unit_test(what_cannot_be_written_leaves_what_was_there),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
