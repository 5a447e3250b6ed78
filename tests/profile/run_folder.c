#include "profile/run_folder.h"

#include "support/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void test_folder_make(char *path, size_t bytes)
{
    char profile[300];
    (void)snprintf(path, bytes, "/tmp/moetrain-profile-XXXXXX");
    assert_non_null(mkdtemp(path));
    (void)snprintf(profile, sizeof(profile), "%s/profile", path);
    assert_int_equal(mkdir(profile, 0777), 0);
}

void test_folder_remove(const char *path)
{
    char profile[300];
    (void)snprintf(profile, sizeof(profile), "%s/profile", path);
    DIR *stream = opendir(profile);
    assert_non_null(stream);
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        if (entry->d_name[0] != '.') {
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
        }
    }
    (void)closedir(stream);
    assert_int_equal(rmdir(profile), 0);
    assert_int_equal(rmdir(path), 0);
}

void test_folder_file(const char *path, int rank, char *file, size_t bytes)
{
    (void)snprintf(file, bytes, "%s/profile/rank-%05d.jsonl", path, rank);
}

/* One step as a rank lives it. */
static void live_a_step(int64_t number)
{
    mt_record_step_begin(number);
    mt_record_set_micro(0);
    mt_record_add_tokens(100);
    for (int l = 0; l < TEST_LAYERS; ++l) {
        mt_record_set_layer(l);
        mt_span_begin(MT_PHASE_EXPERT);
        mt_record_add_rows(2 * l + 1, 10 * (l + 1));
        mt_span_end(MT_PHASE_EXPERT);
    }
    mt_span_begin(MT_PHASE_COMBINE);
    const struct mt_collective_facts facts = {
        .name = "alltoallv", .number = number * 3, .n_bytes = 77, .n_source = 1, .sources = 2};
    const int64_t handle = mt_record_arrive(&facts);
    mt_record_done(handle);
    mt_record_need(handle, mt_clock_ns());
    mt_span_end(MT_PHASE_COMBINE);
    mt_record_step_end();
    mt_record_step_close();
    mt_span_reset();
}

void test_folder_start(const char *path, const struct test_start *start)
{
    static const struct mt_integer_list no_steps;
    char folder[300];
    struct mt_profile_writer writer;
    const struct mt_profile_header header = {.rank = start->rank,
                                             .n_rank = start->n_rank,
                                             .local_rank = start->rank,
                                             .host = "test",
                                             .run = "a \"run\"",
                                             .n_layer = TEST_LAYERS,
                                             .n_expert = 4,
                                             .window = 50,
                                             .session_utc_ns = start->session,
                                             .session_origin_ns = mt_clock_ns()};
    const struct mt_profile_knot knot = {.local_ns = mt_clock_ns(),
                                         .offset_ns = start->rank * TEST_SKEW_NS,
                                         .error_ns = start->rank};
    (void)snprintf(folder, sizeof(folder), "%s/profile", path);
    MT_TEST_OK(mt_profile_writer_open(&writer, folder, start->is_resumed, &header, &no_steps));
    MT_TEST_OK(mt_record_open(TEST_LAYERS, 4));
    mt_profile_writer_clock(&writer, &knot);
    for (int64_t number = start->first; number < start->end; ++number) {
        live_a_step(number);
        mt_profile_writer_step(&writer, 1000000000);
    }
    if (!start->is_killed) {
        mt_profile_writer_finish(&writer);
    }
    mt_profile_writer_close(&writer);
    mt_record_close();
}
