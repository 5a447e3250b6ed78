/* The run directory's lock and folders. */
#include "base/memory.h"
#include "support/test.h"
#include "train/run_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mt_config *config;
static char folder[] = "/tmp/moetrain-run-dir-XXXXXX";

static int set_up(void **state)
{
    MT_UNUSED(state);
    if (mkdtemp(folder) == NULL || MT_ALLOCATE(config, 1, "test") != MT_OK) {
        return 1;
    }
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "%s/deep/run", folder);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    MT_UNUSED(state);
    mt_memory_free(config);
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static void open_makes_folders_and_a_fresh_directory_is_unused(void **state)
{
    struct mt_run_dir dir;
    MT_UNUSED(state);
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    assert_false(mt_run_dir_is_used(&dir));
    assert_int_equal(access(dir.checkpoints, W_OK), 0);
    char checkpoint[sizeof(dir.checkpoints) + 16];
    (void)snprintf(checkpoint, sizeof(checkpoint), "%s/step-1", dir.checkpoints);
    assert_int_equal(mkdir(checkpoint, 0777), 0);
    assert_true(mt_run_dir_is_used(&dir)); /* also without metrics */
    assert_int_equal(rmdir(checkpoint), 0);
    mt_run_dir_close(&dir);
}

/* Exit code of a child that tries to take the lock. */
static int try_in_child(void)
{
    struct mt_run_dir dir;
    int code = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        mt_run_dir_init(&dir, config);
        const enum mt_status status = mt_run_dir_open(&dir);
        const bool named = strstr(mt_error_last()->text, "pid") != NULL;
        _exit(status == MT_ERR_CONFIG && named ? 20 : (int)status);
    }
    assert_int_equal(waitpid(pid, &code, 0), pid);
    return WEXITSTATUS(code);
}

static void a_second_process_is_refused_and_told_who_is_there(void **state)
{
    struct mt_run_dir dir;
    MT_UNUSED(state);
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    assert_int_equal(try_in_child(), 20);
    mt_run_dir_close(&dir);
    assert_int_equal(try_in_child(), MT_OK); /* free again, also after a holder that just died */
    assert_int_equal(try_in_child(), MT_OK);
}

static void write_file(const char *folder_path, const char *name)
{
    char path[MT_PATH_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", folder_path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
}

/* What a start has left of run.log, and of the folders above its checkpoints. */
static void expect_left(const struct mt_run_dir *dir, bool has_log, bool has_folders)
{
    char path[MT_PATH_BYTES + 64];
    (void)snprintf(path, sizeof(path), "%s/run.log", dir->path);
    assert_int_equal(access(path, F_OK) == 0, has_log);
    (void)snprintf(path, sizeof(path), "%s/a", folder);
    assert_int_equal(access(path, F_OK) == 0, has_folders);
}

static void a_start_that_came_to_nothing_leaves_what_was_there_and_nothing_else(void **state)
{
    struct mt_run_dir dir;
    MT_UNUSED(state);
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "%s/a/b/run", folder);
    for (int round = 0; round < 4; ++round) {
        mt_run_dir_init(&dir, config);
        assert_int_equal(mt_run_dir_open(&dir), MT_OK);
        write_file(dir.path, "run.log");
        if (round == 1) {
            write_file(dir.checkpoints, "attempts");
        }
        if (round < 3) {
            mt_run_dir_take_back(&dir);
            expect_left(&dir, false, round > 0);
        }
        mt_run_dir_close(&dir);
    }
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    mt_run_dir_take_back(&dir); /* of a run that had begun before */
    mt_run_dir_close(&dir);
    expect_left(&dir, true, true);
}

/* A full disk is often full of that. */
static void what_an_unfinished_save_left_goes_before_anything_needs_room(void **state)
{
    struct mt_run_dir dir;
    char path[MT_PATH_BYTES + 64];
    MT_UNUSED(state);
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "%s/room", folder);
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    mt_run_dir_close(&dir);
    (void)snprintf(path, sizeof(path), "%s/.step-00000009.tmp", dir.checkpoints);
    assert_int_equal(mkdir(path, 0777), 0);
    write_file(dir.checkpoints, ".step-00000009.tmp/shard");
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    mt_run_dir_close(&dir);
}

static void what_is_no_file_under_a_files_name_is_refused_at_once(void **state)
{
    static const char *const name[] = {"metrics.jsonl", "run.log",
                                       "config.toml",   "lock",
                                       "samples.jsonl", "profile/rank-00001.jsonl"};
    struct mt_run_dir dir;
    char path[MT_PATH_BYTES + 64];
    MT_UNUSED(state);
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "%s/pipes", folder);
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    mt_run_dir_close(&dir);
    assert_int_equal(mkdir(dir.profile, 0777), 0);
    for (int i = 0; i < 12; ++i) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir.path, name[i / 2]);
        (void)unlink(path);
        assert_int_equal(i % 2 == 0 ? mkfifo(path, 0666) : symlink("/dev/full", path), 0);
        assert_int_equal(mt_run_dir_open(&dir), MT_ERR_RESOURCE);
        assert_non_null(strstr(mt_error_last()->text, name[i / 2]));
        assert_non_null(strstr(mt_error_last()->text, "is not a regular file"));
        mt_error_clear();
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(mt_run_dir_open(&dir), MT_OK);
    mt_run_dir_close(&dir);
}

static void a_directory_that_cannot_be_made_is_a_resource_error(void **state)
{
    struct mt_run_dir dir;
    MT_UNUSED(state);
    (void)snprintf(config->run.dir, sizeof(config->run.dir), "/proc/moetrain/run");
    mt_run_dir_init(&dir, config);
    assert_int_equal(mt_run_dir_open(&dir), MT_ERR_RESOURCE);
    mt_error_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_makes_folders_and_a_fresh_directory_is_unused),
        cmocka_unit_test(a_second_process_is_refused_and_told_who_is_there),
        cmocka_unit_test(a_start_that_came_to_nothing_leaves_what_was_there_and_nothing_else),
        cmocka_unit_test(what_an_unfinished_save_left_goes_before_anything_needs_room),
        cmocka_unit_test(what_is_no_file_under_a_files_name_is_refused_at_once),
        cmocka_unit_test(a_directory_that_cannot_be_made_is_a_resource_error),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
