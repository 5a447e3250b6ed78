/* Damage of every kind to a saved checkpoint: always found, the file named, never a crash; and an
 * older checkpoint is found instead. Every rank damages a copy of its own. */
#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/saved.h"
#include "support/mpi_main.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 16, FLIPS_A_FILE = 96, CUTS_A_FILE = 24 };

static char folder[MT_PATH_BYTES];
static char own[MT_PATH_BYTES + 32]; /* this rank's copy of step 2 */
static char file_name[MAX_FILES][64];
static int n_file;

static void list_files(int size)
{
    n_file = 0;
    (void)snprintf(file_name[n_file++], sizeof(file_name[0]), "manifest.json");
    (void)snprintf(file_name[n_file++], sizeof(file_name[0]), "index.h5");
    for (int r = 0; r < size; ++r) {
        (void)snprintf(file_name[n_file++], sizeof(file_name[0]), "shard-%05d-of-%05d.h5", r, size);
    }
}

static void copy_again(void)
{
    mt_test_shell("rm -rf '%s' && cp -r '%s/step-00000002' '%s'", own, folder, own);
}

/* Steps 1 and 2 of the same shapes with other contents, and a copy of step 2 a rank. */
static int begin(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    struct mt_test_table *table = NULL;
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .turn = -1};
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    MT_TEST_OK(MT_ALLOCATE(table, 1, "test table"));
    mt_test_table_tiny(table);
    mt_test_world_open(&world, table, &options);
    for (int64_t step = 1; step <= 2; ++step) {
        mt_test_fill_store(world.store, (uint64_t)step);
        MT_TEST_OK(mt_test_save(&world, folder, step));
    }
    list_files(world.comm.topology.n_rank);
    (void)snprintf(own, sizeof(own), "%s/copy-%d", folder, world.comm.rank);
    mt_test_world_close(&world);
    mt_memory_free(table);
    copy_again();
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

static void expect_found(const char *name)
{
    MT_TEST_FAILS(mt_checkpoint_verify(own), MT_ERR_INPUT, name);
}

static void every_flipped_bit_is_found(void **state)
{
    MT_UNUSED(state);
    for (int f = 0; f < n_file; ++f) {
        const char *path = mt_test_path(own, file_name[f]);
        const int64_t n_byte = mt_test_file_bytes(path);
        for (int i = mt_job_rank(); i < FLIPS_A_FILE; i += mt_job_size()) {
            const int64_t at = (n_byte - 1) * i / (FLIPS_A_FILE - 1);
            const unsigned char mask = (unsigned char)(1 << (i % 8));
            mt_test_flip(path, at, mask);
            expect_found(file_name[f]);
            mt_test_flip(path, at, mask);
        }
    }
    MT_TEST_OK(mt_checkpoint_verify(own));
}

static void every_truncation_is_found(void **state)
{
    MT_UNUSED(state);
    for (int f = 0; f < n_file; ++f) {
        const int64_t n_byte = mt_test_file_bytes(mt_test_path(own, file_name[f]));
        for (int i = mt_job_rank(); i < CUTS_A_FILE; i += mt_job_size()) {
            const char *path = mt_test_path(own, file_name[f]);
            assert_int_equal(truncate(path, (n_byte - 1) * i / (CUTS_A_FILE - 1)), 0);
            expect_found(file_name[f]);
            copy_again();
        }
    }
}

static void holes_growth_and_missing_files_are_found(void **state)
{
    MT_UNUSED(state);
    for (int f = 0; f < n_file; ++f) {
        mt_test_shell("dd if=/dev/zero of='%s/%s' bs=1 count=64 seek=%d conv=notrunc 2>/dev/null",
                      own, file_name[f], 128);
        expect_found(file_name[f]);
        copy_again();
        mt_test_shell("echo >>'%s/%s'", own, file_name[f]);
        expect_found(file_name[f]);
        copy_again();
        mt_test_shell("rm '%s/%s'", own, file_name[f]);
        expect_found(file_name[f]);
        mt_test_shell("mkdir '%s/%s'", own, file_name[f]);
        expect_found(file_name[f]);
        copy_again();
        mt_test_shell("rm '%s/%s' && mkfifo '%s/%s'", own, file_name[f], own, file_name[f]);
        expect_found(file_name[f]);
        copy_again();
    }
}

static void files_of_another_step_or_rank_are_found(void **state)
{
    MT_UNUSED(state);
    for (int f = 0; f < n_file; ++f) {
        mt_test_shell("cp '%s/step-00000001/%s' '%s/'", folder, file_name[f], own);
        /* another step's manifest is whole: the first file that it describes otherwise is named */
        expect_found(f > 0 ? file_name[f] : "index.h5");
        copy_again();
    }
    for (int f = 3; f < n_file; ++f) {
        mt_test_shell("cd '%s' && mv %s x && mv %s %s && mv x %s", own, file_name[f],
                      file_name[f - 1], file_name[f], file_name[f - 1]);
        expect_found(file_name[f - 1]);
        copy_again();
    }
}

static void a_foreign_file_is_found(void **state)
{
    MT_UNUSED(state);
    static const char *const foreign[] = {"notes.txt", ".hidden", "shard-00099-of-00100.h5"};
    for (int i = 0; i < 3; ++i) {
        mt_test_shell("touch '%s/%s'", own, foreign[i]);
        expect_found(foreign[i]);
        copy_again();
    }
    mt_test_shell("mkdir '%s/inside'", own);
    expect_found("inside is not part");
    copy_again();
}

static void a_directory_without_manifest_is_no_checkpoint(void **state)
{
    MT_UNUSED(state);
    struct mt_checkpoint_info info;
    mt_test_shell("rm '%s/manifest.json'", own);
    expect_found("manifest.json: No such file");
    MT_TEST_FAILS(mt_checkpoint_read_info(own, &info), MT_ERR_INPUT, "No such file");
    mt_test_shell("rm -r '%s'", own);
    expect_found("manifest.json: No such file");
    copy_again();
}

/* Collective: rank 0 damages step 2 by a shell command, all ranks look for a checkpoint. */
static void expect_fall_back(struct mt_test_world *world, const char *command, const char *name)
{
    char path[MT_PATH_BYTES];
    char notes[4096];
    struct mt_run_state state = {0};
    if (world->comm.rank == 0) {
        mt_test_shell("cd '%s/step-00000002' && %s", folder, command);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_FAILS(mt_checkpoint_load(world->store, &world->comm,
                                     mt_test_path(folder, "step-00000002"), false, &state),
                  MT_ERR_INPUT, name);
    MT_TEST_OK(mt_checkpoint_find(&world->comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, mt_test_path(folder, "step-00000001"));
    assert_non_null(strstr(notes, name));
    mt_test_poison_store(world->store);
    MT_TEST_OK(mt_checkpoint_load(world->store, &world->comm, path, false, &state));
    mt_test_expect_store(world->store, 1, true);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (world->comm.rank == 0) {
        mt_test_shell("rm -rf '%s/step-00000002' && cp -r '%s' '%s/step-00000002'", folder, own,
                      folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

static void an_older_checkpoint_is_used_instead(void **state)
{
    MT_UNUSED(state);
    struct mt_test_world world;
    struct mt_test_table *table = NULL;
    const struct mt_test_world_options options = {
        .world = MPI_COMM_WORLD, .training = true, .turn = 1};
    MT_TEST_OK(MT_ALLOCATE(table, 1, "test table"));
    mt_test_table_tiny(table);
    mt_test_world_open(&world, table, &options);
    for (int f = 0; f < n_file; ++f) {
        char command[2048];
        (void)snprintf(command, sizeof(command), "rm %s", file_name[f]);
        expect_fall_back(&world, command, file_name[f]);
        (void)snprintf(command, sizeof(command),
                       "printf X | dd of=%s bs=1 seek=300 conv=notrunc "
                       "2>/dev/null",
                       file_name[f]);
        expect_fall_back(&world, command, file_name[f]);
        (void)snprintf(command, sizeof(command), "truncate -s 100 %s", file_name[f]);
        expect_fall_back(&world, command, file_name[f]);
    }
    mt_test_world_close(&world);
    mt_memory_free(table);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(every_flipped_bit_is_found),
        IN_FOLDER(every_truncation_is_found),
        IN_FOLDER(holes_growth_and_missing_files_are_found),
        IN_FOLDER(files_of_another_step_or_rank_are_found),
        IN_FOLDER(a_foreign_file_is_found),
        IN_FOLDER(a_directory_without_manifest_is_no_checkpoint),
        IN_FOLDER(an_older_checkpoint_is_used_instead),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
