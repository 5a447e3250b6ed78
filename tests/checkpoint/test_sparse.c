/* Experts saved in turn: every checkpoint is whole in itself whichever others are removed, says
 * how old each expert in it is, and loads so on any ranks. */
#include "base/memory.h"
#include "checkpoint/saved.h"
#include "checkpoint/saver.h"
#include "support/mpi_main.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EXPERTS = 5, LAYERS = 3, N_SPARSE = 5 }; /* of mt_test_table_small */

static char folder[MT_PATH_BYTES];
static int rank, size;

/* The file system takes no second names, once told so. */
static bool has_no_links;
int link(const char *from, const char *to)
{
    if (has_no_links) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0L);
}

static int begin(void **state)
{
    MT_UNUSED(state);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    has_no_links = false;
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

/* A store with a saver, and what its last save must hold. */
struct run {
    struct mt_test_table *table;
    struct mt_test_world world;
    struct mt_checkpoint_options options;
    struct mt_saver *saver;
    int n_since_full; /* saves; -1: the next one must be full */
    int64_t part_step[MT_EXPERT_PARTS];
};

static void open_run(struct run *run, bool is_async, int turn, int64_t keep)
{
    *run = (struct run){.n_since_full = -1};
    run->table = mt_test_new_table(mt_test_table_small);
    mt_test_open(&run->world, run->table, MPI_COMM_WORLD, true, turn);
    run->options = (struct mt_checkpoint_options){
        .folder = folder, .keep = keep, .n_sparse = N_SPARSE, .config_text = "[run]\n"};
    MT_TEST_OK(
        mt_saver_create(run->world.store, &run->world.comm, &run->options, is_async, &run->saver));
}

static void close_run(struct run *run)
{
    mt_saver_destroy(run->saver);
    mt_test_world_close(&run->world);
    mt_memory_free(run->table);
}

static enum mt_status try_save(struct run *run, int64_t step)
{
    const struct mt_run_state state = {
        .step = step, .tokens_seen = 1000 * step, .n_update = 10 * step};
    mt_test_fill_store(run->world.store, (uint64_t)step);
    MT_TRY(mt_saver_begin(run->saver, &state));
    return mt_saver_finish(run->saver);
}

/* The rotation as docs/checkpoint.md has it. */
static void save(struct run *run, int64_t step)
{
    MT_TEST_OK(try_save(run, step));
    const bool is_full = run->n_since_full < 0 || run->n_since_full == N_SPARSE;
    run->n_since_full = is_full ? 0 : run->n_since_full + 1;
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        if (is_full || (run->n_since_full - 1) % MT_EXPERT_PARTS == p) {
            run->part_step[p] = step;
        }
    }
}

static const char *path_of(int64_t step)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "step-%08lld", (long long)step);
    return mt_test_path(folder, name);
}

/* The manifest tells the same, and its files are those that it tells of. */
static void expect_info(const char *path, int64_t step, const int64_t *part_step)
{
    struct mt_checkpoint_info info;
    int64_t n_lost = 0;
    MT_TEST_OK(mt_checkpoint_verify(path));
    MT_TEST_OK(mt_checkpoint_read_info(path, &info));
    assert_true(info.parts.is_told);
    assert_int_equal(info.format_version, MT_CHECKPOINT_SPARSE_VERSION);
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        int64_t n_expert = 0; /* layer 0 has none */
        for (int e = 0; e < 2 * EXPERTS; ++e) {
            n_expert += (1 + e / EXPERTS + e % EXPERTS) % MT_EXPERT_PARTS == p;
        }
        assert_int_equal(info.parts.step[p], part_step[p]);
        assert_int_equal(info.parts.n_update[p], 10 * part_step[p]);
        assert_int_equal(info.parts.n_expert[p], n_expert);
        assert_int_equal(mt_checkpoint_lost_by_part(&info, p), 10 * (step - part_step[p]));
        n_lost += 10 * (step - part_step[p]) * n_expert;
    }
    assert_int_equal(mt_checkpoint_lost(&info), n_lost);
    mt_checkpoint_info_clear(&info);
}

/* Loads on the first `n_rank` ranks, with owners by `turn`. Collective over all. */
static void expect_load(const struct run *run, int n_rank, int turn, int64_t step)
{
    MPI_Comm comm = MPI_COMM_NULL;
    struct mt_test_world world;
    struct mt_run_state state = {0};
    (void)MPI_Comm_split(MPI_COMM_WORLD, rank < n_rank ? 0 : MPI_UNDEFINED, rank, &comm);
    if (comm != MPI_COMM_NULL) {
        mt_test_open(&world, run->table, comm, true, turn);
        mt_test_poison_store(world.store);
        MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, path_of(step), false, &state));
        mt_test_expect_parts(world.store, (uint64_t)step, run->part_step);
        mt_test_world_close(&world);
        (void)MPI_Comm_free(&comm);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

static void experts_are_saved_in_turn(bool is_async, int turn, int64_t n_save)
{
    struct run run;
    int64_t full_bytes = 0;
    open_run(&run, is_async, turn, 0);
    for (int64_t step = 1; step <= n_save; ++step) {
        save(&run, step);
        if (rank == 0) {
            expect_info(path_of(step), step, run.part_step);
        }
        const int64_t n_byte = mt_saver_times(run.saver)->n_byte;
        full_bytes = run.n_since_full == 0 ? n_byte : full_bytes;
        assert_true(run.n_since_full == 0 || n_byte < full_bytes);
        if (step % 4 == 3 || step == n_save) {
            for (int n_rank = 1; n_rank <= size; ++n_rank) {
                expect_load(&run, n_rank, n_rank == size ? MT_TEST_CUT : 1, step);
                expect_load(&run, n_rank, -1, step);
            }
        }
    }
    close_run(&run);
}

static void experts_are_saved_in_turn_and_load_so_on_any_ranks(void **unused)
{
    MT_UNUSED(unused);
    experts_are_saved_in_turn(true, -1, 2 * N_SPARSE + 2);
}

static void so_are_cut_experts_and_saves_that_are_waited_for(void **unused)
{
    MT_UNUSED(unused);
    experts_are_saved_in_turn(false, MT_TEST_CUT, 3);
}

static void a_file_system_without_links_gets_copies(void **unused)
{
    MT_UNUSED(unused);
    has_no_links = true;
    experts_are_saved_in_turn(true, 1, 3);
}

/* keep = 1, and the two newest full ones. */
static void what_is_removed_is_missed_by_none(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    open_run(&run, true, -1, 1);
    for (int64_t step = 1; step <= 2 * N_SPARSE + 6; ++step) { /* 1, 7 and 13 are full */
        save(&run, step);
    }
    if (rank == 0) {
        mt_test_shell("[ \"$(ls '%s' | tr '\\n' ' ')\" = "
                      "'step-00000007 step-00000013 step-00000016 ' ]",
                      folder);
        MT_TEST_OK(mt_checkpoint_verify(path_of(7)));
        MT_TEST_OK(mt_checkpoint_verify(path_of(13)));
        mt_test_shell("rm -r '%s/step-00000007' '%s/step-00000013'", folder, folder);
        expect_info(path_of(16), 16, run.part_step);
        mt_test_shell("cp -r '%s' '%s'", path_of(16), path_of(99));
        expect_info(path_of(99), 16, run.part_step);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    expect_load(&run, size, -1, 16);
    close_run(&run);
}

static void expect_found(struct run *run, int64_t step, const char *note)
{
    char path[MT_PATH_BYTES];
    char notes[8192];
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_OK(mt_checkpoint_find(&run->world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, path_of(step));
    assert_non_null(strstr(notes, note));
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

/* A damaged file may have names in several checkpoints: the full one before them has none of it. */
static void a_missing_or_damaged_part_is_named_and_an_older_checkpoint_is_used(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    open_run(&run, true, -1, 2);
    for (int64_t step = 1; step <= 10; ++step) { /* 1 and 7 are full */
        save(&run, step);
    }
    if (rank == 0) {
        mt_test_shell("rm '%s'/experts-1-of-4-00000-of-*", path_of(10));
        assert_int_not_equal(mt_checkpoint_verify(path_of(10)), MT_OK);
        mt_error_clear();
    }
    expect_found(&run, 9, "experts-1-of-4-00000-of-0000");
    if (rank == 0) { /* of step 7, in 9 and 7 */
        char name[64];
        (void)snprintf(name, sizeof(name), "step-00000009/experts-3-of-4-00000-of-%05d.h5", size);
        mt_test_flip(mt_test_path(folder, name), mt_test_file_bytes(mt_test_path(folder, name)) / 2,
                     1);
    }
    expect_found(&run, 1, "experts-3-of-4-00000-of-0000");
    close_run(&run);
}

static void owners_that_moved_and_a_load_and_an_end_make_a_save_full(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    int owner[LAYERS * EXPERTS] = {0};
    open_run(&run, true, -1, 0);
    save(&run, 1);
    save(&run, 2);
    mt_saver_want_full(run.saver);
    run.n_since_full = -1;
    save(&run, 3);
    expect_load(&run, size, -1, 3);
    save(&run, 4);
    mt_test_random_owners(&run.world, 5, owner);
    MT_TEST_OK(mt_store_move_experts(run.world.store, owner));
    run.n_since_full = size > 1 ? -1 : run.n_since_full; /* one rank has nobody to move them to */
    save(&run, 5);
    expect_load(&run, size, -1, 5);
    run.options.keep_every = 7;
    save(&run, 6);
    run.n_since_full = -1;
    save(&run, 7);
    expect_load(&run, 1, -1, 7);
    close_run(&run);
}

static void without_the_checkpoint_before_a_save_fails_and_the_next_one_is_full(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    open_run(&run, true, -1, 2);
    save(&run, 1);
    save(&run, 2);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        mt_test_shell("rm -r '%s'", path_of(2));
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_FAILS(try_save(&run, 3), MT_ERR_RESOURCE, "step-00000002/experts-");
    run.n_since_full = -1;
    save(&run, 4);
    if (rank == 0) {
        expect_info(path_of(4), 4, run.part_step);
        MT_TEST_OK(mt_checkpoint_verify(path_of(1)));
    }
    expect_load(&run, size, 1, 4);
    close_run(&run);
}

static void damage_before_a_save_does_not_spread_and_the_next_one_is_full(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    open_run(&run, true, -1, 0);
    save(&run, 1);
    save(&run, 2);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) { /* of save 1; save 3 writes another part */
        char name[64];
        (void)snprintf(name, sizeof(name), "step-00000002/experts-3-of-4-00000-of-%05d.h5", size);
        mt_test_flip(mt_test_path(folder, name), mt_test_file_bytes(mt_test_path(folder, name)) / 2,
                     1);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_FAILS(try_save(&run, 3), MT_ERR_RESOURCE, "experts-3-of-4-00000-of-");
    run.n_since_full = -1;
    save(&run, 4);
    if (rank == 0) {
        expect_info(path_of(4), 4, run.part_step);
    }
    expect_load(&run, size, 1, 4);
    close_run(&run);
}

static void a_converted_checkpoint_says_what_is_lost_too(void **unused)
{
    MT_UNUSED(unused);
    struct run run;
    const struct mt_convert_options options = {.dtype = MT_FLOAT32};
    struct mt_checkpoint_info info;
    open_run(&run, true, -1, 0);
    for (int64_t step = 1; step <= 3; ++step) {
        save(&run, step);
    }
    if (rank == 0) {
        MT_TEST_OK(mt_checkpoint_convert(path_of(3), path_of(4), &options));
        MT_TEST_OK(mt_checkpoint_convert(path_of(1), path_of(5), &options));
        expect_info(path_of(4), 3, run.part_step);
        MT_TEST_OK(mt_checkpoint_read_info(path_of(5), &info)); /* of a full one: as any other */
        assert_false(info.parts.is_told);
        assert_int_equal(info.format_version, MT_CHECKPOINT_PLAIN_VERSION);
        mt_checkpoint_info_clear(&info);
        mt_test_shell("rm -r '%s' && mv '%s' '%s'", path_of(3), path_of(4), path_of(3));
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    expect_load(&run, size, -1, 3);
    close_run(&run);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(experts_are_saved_in_turn_and_load_so_on_any_ranks),
        IN_FOLDER(so_are_cut_experts_and_saves_that_are_waited_for),
        IN_FOLDER(a_file_system_without_links_gets_copies),
        IN_FOLDER(what_is_removed_is_missed_by_none),
        IN_FOLDER(a_missing_or_damaged_part_is_named_and_an_older_checkpoint_is_used),
        IN_FOLDER(owners_that_moved_and_a_load_and_an_end_make_a_save_full),
        IN_FOLDER(without_the_checkpoint_before_a_save_fails_and_the_next_one_is_full),
        IN_FOLDER(damage_before_a_save_does_not_spread_and_the_next_one_is_full),
        IN_FOLDER(a_converted_checkpoint_says_what_is_lost_too),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
