/* What a run leaves can be read back, and damage to it is named and costs only what it must. */
#include "support/test.h"

#include "base/memory.h"
#include "profile/run_folder.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_RANK = 3, N_STEP = 12 };
/* As long as today's: nanoseconds of the calendar. */
static const int64_t SESSION = INT64_C(1795000000000000000);

static char folder[300];

static int make_folder(void **state)
{
    MT_UNUSED(state);
    test_folder_make(folder, sizeof(folder));
    for (int r = 0; r < N_RANK; ++r) {
        test_folder_start(
            folder,
            &(struct test_start){
                .rank = r, .n_rank = N_RANK, .session = SESSION, .first = 1, .end = N_STEP + 1});
    }
    return 0;
}

static int remove_folder(void **state)
{
    MT_UNUSED(state);
    test_folder_remove(folder);
    return mt_memory_n_live() == 0 ? 0 : -1;
}

static void write_text(int rank, const char *mode, const char *text)
{
    char path[400];
    test_folder_file(folder, rank, path, sizeof(path));
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void cut(int rank, long bytes)
{
    char path[400];
    test_folder_file(folder, rank, path, sizeof(path));
    assert_int_equal(truncate(path, bytes), 0);
}

static long size_of(int rank)
{
    char path[400];
    test_folder_file(folder, rank, path, sizeof(path));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long bytes = ftell(file);
    (void)fclose(file);
    return bytes;
}

static void expect_problem(const struct mt_profile *profile, const char *part)
{
    for (int i = 0; i < profile->n_problem; ++i) {
        if (strstr(profile->problem[i], part) != NULL) {
            return;
        }
    }
    fail_msg("no problem says \"%s\"", part);
}

/* All steps of the ranks that are there, with the rows that every step had. */
static void expect_steps(const struct mt_profile *profile, int rank, int n_step)
{
    assert_true(profile->rank[rank].is_there);
    for (int s = 0; s < n_step; ++s) {
        const struct mt_profile_step *step = mt_profile_step(profile, s, rank);
        assert_true(step->is_there);
        assert_true(step->begin_ns <= step->end_ns && step->end_ns <= step->until_ns);
        assert_int_equal(step->n_token, 100);
        assert_int_equal(mt_profile_by_layer(profile, profile->rows, s, rank)[1], 20);
    }
}

/* Layer l has 10 * (l + 1) rows a step, all of expert 2 l + 1. */
static void expect_experts(const struct mt_profile *profile, int64_t n_step)
{
    for (int r = 0; r < N_RANK; ++r) {
        assert_int_equal(profile->expert_steps[r], n_step);
        for (int i = 0; i < TEST_LAYERS * 4; ++i) {
            const int layer = i / 4;
            const int64_t rows = i % 4 == 2 * layer + 1 ? 10 * (layer + 1) * n_step : 0;
            assert_int_equal(mt_profile_expert_rows(profile, r, layer)[i % 4], rows);
        }
    }
}

static void a_whole_run_is_read_as_it_was_written(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    MT_TEST_OK(mt_profile_read(folder, &profile));
    assert_int_equal(profile.n_problem, 0);
    assert_int_equal(profile.n_rank, N_RANK);
    assert_int_equal(profile.n_layer, TEST_LAYERS);
    assert_int_equal(profile.n_step, N_STEP);
    assert_int_equal(profile.n_expert, 4);
    assert_string_equal(profile.run, "a \"run\"");
    for (int r = 0; r < N_RANK; ++r) {
        expect_steps(&profile, r, N_STEP);
        assert_true(profile.rank[r].has_ended);
        assert_int_equal(profile.rank[r].last_step, N_STEP);
        assert_int_equal(profile.rank[r].error_ns, r);
        assert_string_equal(profile.rank[r].host, "test");
    }
    expect_experts(&profile, N_STEP);
    const struct mt_profile_step *step = mt_profile_step(&profile, 4, 1);
    assert_int_equal(step->n_collective, 1);
    const struct mt_profile_collective *c = step->collective;
    assert_int_equal(c->number, 15);
    assert_string_equal(profile.kind[c->kind], "alltoallv");
    assert_int_equal(c->phase, MT_PHASE_COMBINE);
    assert_int_equal(c->layer, TEST_LAYERS - 1);
    assert_int_equal(c->n_bytes, 77);
    assert_int_equal(c->sources, 2);
    assert_true(step->begin_ns <= c->begin_ns && c->begin_ns <= c->done_ns &&
                c->done_ns <= c->need_ns && c->need_ns <= step->end_ns);
    assert_int_equal(step->n_span, TEST_LAYERS + 1);
    assert_int_equal(step->span[1].phase, MT_PHASE_EXPERT);
    assert_int_equal(step->span[1].layer, 1);
    assert_int_equal(step->span[1].rows, 20);
    mt_profile_clear(&profile);
}

/* Steps of the three ranks were lived one after another, on one clock; rank r says that it is
 * r * skew behind. */
static void times_are_moved_onto_the_clock_of_rank_0(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    MT_TEST_OK(mt_profile_read(folder, &profile));
    for (int r = 0; r < N_RANK; ++r) {
        const struct mt_profile_knot *knot = profile.rank[r].knot;
        assert_int_equal(profile.rank[r].n_knot, 1);
        assert_int_equal(mt_profile_align(knot, 1, 12345), 12345 + r * TEST_SKEW_NS);
    }
    mt_profile_clear(&profile);
}

static void a_killed_run_keeps_all_but_its_last_line(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    cut(1, size_of(1) - 40); /* into the last line but one */
    MT_TEST_OK(mt_profile_read(folder, &profile));
    assert_int_equal(profile.n_problem, 1);
    expect_problem(&profile, "rank-00001.jsonl ends within a line after step 12");
    assert_false(profile.rank[1].has_ended);
    assert_true(profile.rank[2].has_ended);
    expect_steps(&profile, 1, N_STEP);
    mt_profile_clear(&profile);
}

static void a_resumed_run_goes_on_below_half_a_line(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    for (int r = 0; r < N_RANK; ++r) {
        cut(r, size_of(r) - 40);
        test_folder_start(folder, &(struct test_start){.rank = r,
                                                       .n_rank = N_RANK,
                                                       .session = SESSION + INT64_C(1000000000000),
                                                       .first = 11,
                                                       .end = 16,
                                                       .is_resumed = true});
    }
    MT_TEST_OK(mt_profile_read(folder, &profile));
    assert_int_equal(profile.n_problem, 0);
    assert_int_equal(profile.n_step, 15);
    expect_experts(&profile, 8 + 5); /* the line of the first start that is whole has 8 steps */
    expect_steps(&profile, 2, 15);
    assert_true(profile.rank[2].has_ended);
    assert_true(mt_profile_step(&profile, 10, 0)->begin_ns >= INT64_C(1000000000000));
    for (int s = 1; s < 15; ++s) { /* one time for both starts */
        assert_true(mt_profile_step(&profile, s, 0)->begin_ns >
                    mt_profile_step(&profile, s - 1, 0)->begin_ns - 1000);
    }
    mt_profile_clear(&profile);
}

/* Who was waited for may have been a rank that is there no more. */
static void a_start_with_other_ranks_has_steps_but_no_arrivals(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    for (int r = 0; r < 2; ++r) {
        test_folder_start(folder, &(struct test_start){.rank = r,
                                                       .n_rank = 2,
                                                       .session = SESSION + INT64_C(1000000000000),
                                                       .first = 11,
                                                       .end = 16,
                                                       .is_resumed = true});
    }
    MT_TEST_OK(mt_profile_read(folder, &profile));
    expect_problem(&profile, "rank-00002.jsonl is of another start, with 3 ranks");
    assert_int_equal(profile.n_rank, 2);
    for (int r = 0; r < 2; ++r) {
        expect_steps(&profile, r, 15);
        for (int s = 0; s < 15; ++s) {
            const struct mt_profile_step *step = mt_profile_step(&profile, s, r);
            assert_int_equal(step->n_collective, s < 10 ? 0 : 1);
            assert_true(step->session == SESSION + (s < 10 ? 0 : INT64_C(1000000000000)));
        }
    }
    mt_profile_clear(&profile);
}

static void damaged_files_are_named_and_the_rest_is_read(void **state)
{
    MT_UNUSED(state);
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"", "rank-00001.jsonl has not one whole line"},
        {"{\"profile\":1,\"ra", "rank-00001.jsonl has not one whole line"},
        {"{\"step\":3}\n", "rank-00001.jsonl is not a rank's profile"},
        {"{\"profile\":2,\"rank\":1,\"ranks\":3,\"layers\":2}\n", "is not a rank's profile"},
        {"{\"profile\":1,\"rank\":-1,\"ranks\":3,\"layers\":2}\n", "is not a rank's profile"},
        {"{\"profile\":1,\"rank\":7,\"ranks\":3,\"layers\":2}\n", "is not a rank's profile"},
        {"{\"profile\":1,\"rank\":2,\"ranks\":3,\"layers\":2,\"session\":1795000000000000000}\n",
         "rank-00001.jsonl says that it is rank 2's"},
        {"{\"profile\":1,\"rank\":1,\"ranks\":8,\"layers\":2,\"session\":1794999999000000000}\n",
         "rank-00001.jsonl is of another start, with 8 ranks"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); ++i) {
        struct mt_profile profile;
        write_text(1, "w", cases[i].text);
        MT_TEST_OK(mt_profile_read(folder, &profile));
        expect_problem(&profile, cases[i].problem);
        expect_problem(&profile, "rank 1 left nothing that can be read");
        assert_false(profile.rank[1].is_there);
        expect_steps(&profile, 0, N_STEP);
        expect_steps(&profile, 2, N_STEP);
        mt_profile_clear(&profile);
    }
}

/* Each of these made the reader wait for ever, or take all memory there is. */
static void what_is_no_file_of_lines_is_named(void **state)
{
    MT_UNUSED(state);
    enum { PIPE, FOLDER, ENDLESS_DEVICE, DANGLING_LINK, N_CASE };
    char path[400];
    test_folder_file(folder, 1, path, sizeof(path));
    for (int i = 0; i < N_CASE; ++i) {
        struct mt_profile profile;
        assert_int_equal(unlink(path), 0);
        assert_int_equal(i == PIPE             ? mkfifo(path, 0666)
                         : i == FOLDER         ? mkdir(path, 0777)
                         : i == ENDLESS_DEVICE ? symlink("/dev/zero", path)
                                               : symlink("/no/where", path),
                         0);
        MT_TEST_OK(mt_profile_read(folder, &profile));
        expect_problem(&profile, i == DANGLING_LINK ? "No such file" : "it is not a regular file");
        expect_problem(&profile, "/rank-00001.jsonl");
        expect_steps(&profile, 2, N_STEP);
        mt_profile_clear(&profile);
        if (i == FOLDER) {
            assert_int_equal(rmdir(path), 0);
            write_text(1, "w", "");
        }
    }
}

/* A sparse file: it has no end of a line in a terabyte. */
static void a_line_without_end_ends_the_file(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    cut(1, (long)1 << 40);
    MT_TEST_OK(mt_profile_read(folder, &profile));
    expect_problem(&profile, "rank-00001.jsonl is broken after step 12");
    expect_steps(&profile, 1, N_STEP);
    mt_profile_clear(&profile);
}

static void what_stands_before_a_broken_line_is_kept(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    write_text(2, "a", "\001\002 no JSON\n{\"step\":99}\n");
    MT_TEST_OK(mt_profile_read(folder, &profile));
    expect_problem(&profile, "rank-00002.jsonl is broken after step 12");
    assert_int_equal(profile.n_step, N_STEP);
    expect_steps(&profile, 2, N_STEP);
    mt_profile_clear(&profile);
}

static void lines_with_wrong_types_do_no_harm(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    write_text(0, "a",
               "{\"waits\":5,\"c\":[[1],[2,\"x\"],[3,-1,99999,7,1,1,1,9223372036854775807]]}\n"
               "{\"waits\":6,\"c\":[[4],[4],\"x\"]}\n"
               "{\"waits\":\"a\",\"c\":{}}\n{\"spans\":6,\"s\":[[99,-4]]}\n{\"kind\":[70,\"k\"]}\n"
               "{\"clock\":7}\n{\"experts\":3,\"e\":[[9,1,5],[0,-1,5],[0],7,[1,99,2],[0,0,-8]]}\n{"
               "\"step\":7,\"phase\":[[1e3]],\"rows\":3}\n{\"unheard\":[]}\n");
    MT_TEST_OK(mt_profile_read(folder, &profile));
    assert_int_equal(profile.n_problem, 0);
    assert_int_equal(mt_profile_step(&profile, 4, 0)->n_collective, 3);
    assert_int_equal(mt_profile_step(&profile, 4, 0)->collective[2].kind, -1);
    assert_int_equal(mt_profile_step(&profile, 5, 0)->n_collective, 0); /* in no order */
    expect_steps(&profile, 1, N_STEP);
    mt_profile_clear(&profile);
}

static void a_missing_rank_is_named(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    char path[400];
    test_folder_file(folder, 0, path, sizeof(path));
    assert_int_equal(unlink(path), 0);
    MT_TEST_OK(mt_profile_read(folder, &profile));
    expect_problem(&profile, "rank 0 left nothing");
    expect_steps(&profile, 1, N_STEP);
    mt_profile_clear(&profile);
}

static void a_folder_without_profiles_is_refused(void **state)
{
    MT_UNUSED(state);
    struct mt_profile profile;
    MT_TEST_FAILS(mt_profile_read("/nowhere", &profile), MT_ERR_INPUT, "cannot read /nowhere");
    for (int r = 0; r < N_RANK; ++r) {
        write_text(r, "w", "foreign\n");
    }
    MT_TEST_FAILS(mt_profile_read(folder, &profile), MT_ERR_INPUT, "has no profile");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_whole_run_is_read_as_it_was_written),
        TEST(times_are_moved_onto_the_clock_of_rank_0),
        TEST(a_killed_run_keeps_all_but_its_last_line),
        TEST(a_resumed_run_goes_on_below_half_a_line),
        TEST(a_start_with_other_ranks_has_steps_but_no_arrivals),
        TEST(damaged_files_are_named_and_the_rest_is_read),
        TEST(what_is_no_file_of_lines_is_named),
        TEST(a_line_without_end_ends_the_file),
        TEST(what_stands_before_a_broken_line_is_kept),
        TEST(lines_with_wrong_types_do_no_harm),
        TEST(a_missing_rank_is_named),
        TEST(a_folder_without_profiles_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
