/* A run directory with profiles, made by the recorder and the writer as a run makes them. */
#ifndef MT_TEST_PROFILE_RUN_FOLDER_H
#define MT_TEST_PROFILE_RUN_FOLDER_H

#include "profile/writer.h"

enum { TEST_LAYERS = 2, TEST_SKEW_NS = 5000 };

/* A folder of its own below /tmp, with profile/ in it. */
void test_folder_make(char *path, size_t bytes);
void test_folder_remove(const char *path);
/* profile/rank-..., as a path. */
void test_folder_file(const char *path, int rank, char *file, size_t bytes);

/* One start of a rank: steps [first, end), each with a span of experts in each layer and one
 * collective; its clock is rank * TEST_SKEW_NS behind. Ended regularly, or killed. */
struct test_start {
    int rank, n_rank;
    int64_t session, first, end;
    bool is_resumed, is_killed;
};
void test_folder_start(const char *path, const struct test_start *start);

#endif
