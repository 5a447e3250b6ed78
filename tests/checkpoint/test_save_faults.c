/* Saves that cannot work, what killed ones leave, checkpoints that do not fit: the right code on
 * every rank, and what was there before stays of use. */
#include "base/memory.h"
#include "checkpoint/index.h"
#include "checkpoint/saved.h"
#include "support/mpi_main.h"

#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[MT_PATH_BYTES];

static int begin(void **state)
{
    MT_UNUSED(state);
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

static void what_killed_saves_left_is_removed_at_the_next(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    char notes[1024];
    char path[MT_PATH_BYTES];
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    if (rank == 0) {
        mt_test_shell("cd '%s' && cp -r step-00000001 .step-00000002.tmp && "
                      "rm .step-00000002.tmp/manifest.json && mkdir -p .step-00000001.old.tmp/x && "
                      "mkdir .step-00000003.tmp",
                      folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, mt_test_path(folder, "step-00000001"));
    assert_string_equal(notes, "");
    mt_test_world_close(&world);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 3);
    assert_false(mt_test_exists(mt_test_path(folder, ".step-00000001.old.tmp")));
    assert_false(mt_test_exists(mt_test_path(folder, ".step-00000002.tmp")));
    assert_false(mt_test_exists(mt_test_path(folder, ".step-00000003.tmp")));
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 3, false);
    mt_memory_free(table);
}

static void a_folder_that_cannot_be_written_is_code_4_on_all_ranks(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    mt_test_fill_store(world.store, 1);
    MT_TEST_FAILS(mt_test_save(&world, "/proc/checkpoints", 1), MT_ERR_RESOURCE,
                  "/proc/checkpoints");
    MT_TEST_FAILS(mt_test_save(&world, "/dev/null", 1), MT_ERR_RESOURCE, "Not a directory");
    if (geteuid() != 0) { /* to root, everything is permitted */
        char path[MT_PATH_BYTES + 8];
        (void)snprintf(path, sizeof(path), "%s/locked", folder);
        mt_test_shell("mkdir -p '%s' && chmod 555 '%s'", path, path);
        (void)MPI_Barrier(MPI_COMM_WORLD);
        MT_TEST_FAILS(mt_test_save(&world, path, 1), MT_ERR_RESOURCE, "Permission denied");
    }
    mt_test_world_close(&world);
    mt_memory_free(table);
}

/* The last rank may write only so many bytes a file, as on a full disk; every limit up to the whole
 * shard hits another write. */
static void a_rank_that_cannot_write_is_code_4_on_all_and_nothing_is_lost(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    int size = 0;
    struct rlimit before;
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    char name[64];
    (void)snprintf(name, sizeof(name), "step-00000001/shard-%05d-of-%05d.h5", size - 1, size);
    const int64_t shard_bytes = mt_test_file_bytes(mt_test_path(folder, name));
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    mt_test_fill_store(world.store, 2);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (int64_t limit = 0; limit < shard_bytes; limit += 1 + shard_bytes / 40) {
        const struct rlimit full = {(rlim_t)limit, before.rlim_max};
        if (rank == size - 1) {
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
        }
        const enum mt_status status = mt_test_save(&world, folder, 2);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_null(strchr(mt_error_last()->text, '\n'));
        assert_non_null(strstr(mt_error_last()->text, "File too large"));
        MT_TEST_FAILS(status, MT_ERR_RESOURCE, "shard-");
        assert_false(mt_test_exists(mt_test_path(folder, "step-00000002")));
        (void)MPI_Barrier(MPI_COMM_WORLD);
        assert_false(mt_test_exists(mt_test_path(folder, ".step-00000002.tmp")));
    }
    mt_test_world_close(&world);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 1, false);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 2);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 2, false);
    mt_memory_free(table);
}

static void fail_load(const struct mt_test_table *table, const char *part)
{
    struct mt_test_world world;
    struct mt_run_state state = {0};
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    MT_TEST_FAILS(mt_checkpoint_load(world.store, &world.comm,
                                     mt_test_path(folder, "step-00000001"), false, &state),
                  MT_ERR_INPUT, part);
    mt_test_world_close(&world);
}

static void another_models_checkpoint_is_refused_with_what_differs(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    table->row[0].dim[1] = 4;
    fail_load(table, "/model/0/dense is [11,3], not [11,4]");
    fail_load(table, "/optimizer/0/dense/exp_avg is [11,3], not [11,4]");
    table->row[0].dim[1] = 3;
    (void)snprintf(table->row[1].name, sizeof(table->row[1].name), "1/other");
    fail_load(table, "it lacks /model/1/other");
    mt_test_table_tiny(table);
    mt_test_table_dense(table, 1, 7, 0, false);
    fail_load(table, "it lacks /model/5/dense");
    mt_test_table_init(table);
    mt_test_table_dense(table, 0, 11, 3, true);
    fail_load(table, "it has 4 tensors that this model lacks");
    mt_memory_free(table);
}

static void a_store_that_trains_needs_optimizer_state(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&world, table, MPI_COMM_WORLD, false, -1);
    mt_test_fill_store(world.store, 1);
    MT_TEST_OK(mt_test_save(&world, folder, 1));
    mt_test_world_close(&world);
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000001")));
    fail_load(table, "step-00000001 holds weights only");
    table->row[0].dim[1] = 4; /* another model's weights are that first */
    fail_load(table, "/model/0/dense is [11,3], not [11,4]");
    mt_test_table_tiny(table);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, 1, 1, true);
    mt_memory_free(table);
}

static void find_takes_the_newest_valid_and_says_what_it_skipped(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    char notes[8192];
    char path[MT_PATH_BYTES];
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    MT_TEST_OK(mt_checkpoint_find(&world.comm, mt_test_path(folder, "nothing"), path, notes,
                                  sizeof(notes)));
    assert_string_equal(path, "");
    for (int64_t step = 1; step <= 4; ++step) {
        mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, step);
    }
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, mt_test_path(folder, "step-00000004"));
    if (rank == 0) {
        mt_test_shell("cd '%s' && rm step-00000004/manifest.json && mkdir step-00000009 && "
                      "mkdir step-9 && touch other",
                      folder);
        mt_test_flip(mt_test_path(folder, "step-00000003/index.h5"), 777, 4);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, mt_test_path(folder, "step-00000002"));
    assert_non_null(strstr(notes, "step-00000009 is not used"));
    assert_non_null(strstr(notes, "step-00000004 is not used"));
    assert_non_null(strstr(notes, "step-00000003/index.h5 is damaged"));
    assert_null(strstr(notes, "step-00000002"));
    char small[20];
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, small, sizeof(small)));
    assert_int_equal(strlen(small), sizeof(small) - 1);
    if (rank == 0) {
        mt_test_shell("cd '%s' && rm */index.h5", folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, "");
    mt_test_world_close(&world);
    mt_memory_free(table);
}

static void a_damaged_checkpoint_of_the_step_is_replaced(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 4);
    if (rank == 0) {
        mt_test_flip(mt_test_path(folder, "step-00000004/index.h5"), 100, 1);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 4);
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000004")));
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 4, false);
    mt_memory_free(table);
}

static void a_checkpoint_under_the_name_of_another_step_is_no_candidate(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    char notes[8192];
    char path[MT_PATH_BYTES];
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 2);
    if (rank == 0) {
        mt_test_shell("cd '%s' && mv step-00000001 step-00000009", folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    MT_TEST_OK(mt_checkpoint_find(&world.comm, folder, path, notes, sizeof(notes)));
    mt_test_world_close(&world);
    assert_string_equal(path, mt_test_path(folder, "step-00000002"));
    assert_non_null(strstr(notes, "step-00000009 is not used: it holds step 1;"));
    /* Nor does it pass for that step's save, which leaves it beside. */
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 9);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 9, false);
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000009.failed")));
    mt_memory_free(table);
}

static void a_link_that_leads_nowhere_gives_way(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        mt_test_shell("ln -s nowhere '%s/step-00000009'", folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 9);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 9, false);
    mt_memory_free(table);
}

/* Damaged ones make the library read beyond its buffers. */
static void attributes_of_the_index_are_never_opened(void **unused)
{
    MT_UNUSED(unused);
    int rank = 0;
    struct mt_manifest manifest;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    if (rank == 0) {
        const char *path = mt_test_path(folder, "step-00000001/index.h5");
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(H5Adelete(file, "step") >= 0 && H5Fclose(file) >= 0);
        MT_TEST_OK(mt_manifest_read(mt_test_path(folder, "step-00000001"), &manifest));
        MT_TEST_OK(mt_index_check(path, &manifest));
        mt_manifest_clear(&manifest);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_memory_free(table);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(what_killed_saves_left_is_removed_at_the_next),
        IN_FOLDER(a_folder_that_cannot_be_written_is_code_4_on_all_ranks),
        IN_FOLDER(a_rank_that_cannot_write_is_code_4_on_all_and_nothing_is_lost),
        IN_FOLDER(another_models_checkpoint_is_refused_with_what_differs),
        IN_FOLDER(a_store_that_trains_needs_optimizer_state),
        IN_FOLDER(a_checkpoint_under_the_name_of_another_step_is_no_candidate),
        IN_FOLDER(find_takes_the_newest_valid_and_says_what_it_skipped),
        IN_FOLDER(a_link_that_leads_nowhere_gives_way),
        IN_FOLDER(attributes_of_the_index_are_never_opened),
        IN_FOLDER(a_damaged_checkpoint_of_the_step_is_replaced),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
