/* Saves that go on while their caller does: the same bytes as without, nothing of what comes later
 * in them, the order of what is asked of the disk, and its failures. */
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/intercept.h"
#include "checkpoint/saved.h"
#include "checkpoint/saver.h"
#include "fault/interpose.h"
#include "support/mpi_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EXPERTS = 5, LAYERS = 3 }; /* of mt_test_table_small */

static char folder[MT_PATH_BYTES];
static int rank, size;

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
    mt_test_intercept_end();
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

/* A store with a saver. */
struct run {
    struct mt_test_table *table;
    struct mt_test_world world;
    struct mt_checkpoint_options options;
    struct mt_saver *saver;
    int64_t counts[4];
    struct mt_state_array array;
};

static void open_run(struct run *run, const char *below, bool is_async, int turn, int64_t keep)
{
    run->table = mt_test_new_table(mt_test_table_small);
    mt_test_open(&run->world, run->table, MPI_COMM_WORLD, true, turn);
    run->options = (struct mt_checkpoint_options){
        .folder = below, .keep = keep, .config_text = "[run]\n", .versions = "tests 1.0"};
    run->array = (struct mt_state_array){"counts", run->counts, 4};
    MT_TEST_OK(
        mt_saver_create(run->world.store, &run->world.comm, &run->options, is_async, &run->saver));
}

static void close_run(struct run *run)
{
    mt_saver_destroy(run->saver);
    mt_test_world_close(&run->world);
    mt_memory_free(run->table);
}

static enum mt_status begin_save(struct run *run, int64_t step)
{
    for (int i = 0; i < 4; ++i) {
        run->counts[i] = 10 * step + i;
    }
    const struct mt_run_state state = {.step = step,
                                       .tokens_seen = 1000 * step,
                                       .next_sequence = 8 * step,
                                       .n_update = step - 1,
                                       .n_skipped = 1,
                                       .n_array = 1,
                                       .array = &run->array};
    mt_test_fill_store(run->world.store, (uint64_t)step);
    return mt_saver_begin(run->saver, &state);
}

static void save(struct run *run, int64_t step)
{
    MT_TEST_OK(begin_save(run, step));
    MT_TEST_OK(mt_saver_finish(run->saver));
    assert_false(mt_saver_is_busy(run->saver));
}

/* What a step loop does between two steps. */
static enum mt_status meet(struct run *run)
{
    enum mt_save_signal signal = MT_SIGNAL_NONE;
    MT_TRY(mt_saver_signal(run->saver, &signal));
    int n[2] = {signal != MT_SIGNAL_NONE, signal == MT_SIGNAL_FAILED};
    (void)MPI_Allreduce(MPI_IN_PLACE, n, 2, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    return mt_saver_advance(run->saver, n[0], n[1]);
}

static void step_name(char *name, int64_t step)
{
    (void)snprintf(name, 32, "step-%08lld", (long long)step);
}

static void expect_same_checkpoints(const char *a, const char *b)
{
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        mt_test_shell("diff -r '%s' '%s'", a, b);
    }
}

/* Owners move between saves, so that layouts serve twice and are made anew. */
static void saves_under_way_write_the_bytes_of_saves_waited_for(void **unused)
{
    MT_UNUSED(unused);
    char waited[MT_PATH_BYTES + 8];
    char under_way[MT_PATH_BYTES + 16];
    int owner[LAYERS * EXPERTS] = {0};
    struct run a = {0};
    struct run b = {0};
    (void)snprintf(waited, sizeof(waited), "%s/waited", folder);
    (void)snprintf(under_way, sizeof(under_way), "%s/under_way", folder);
    open_run(&a, waited, false, 1, 0);
    open_run(&b, under_way, true, 1, 0);
    for (int64_t step = 1; step <= 6; ++step) {
        save(&a, step);
        MT_TEST_OK(begin_save(&b, step));
        while (mt_saver_is_busy(b.saver)) {
            MT_TEST_OK(meet(&b));
        }
        assert_int_equal(mt_saver_times(b.saver)->n_saved, step);
        if (step % 2 == 0) {
            mt_test_random_owners(&a.world, (uint64_t)step, owner);
            MT_TEST_OK(mt_store_move_experts(a.world.store, owner));
            MT_TEST_OK(mt_store_move_experts(b.world.store, owner));
        }
    }
    close_run(&a);
    close_run(&b);
    expect_same_checkpoints(waited, under_way);
}

static void what_changes_after_the_copy_is_not_saved(void **unused)
{
    MT_UNUSED(unused);
    char name[32];
    int owner[LAYERS * EXPERTS] = {0};
    struct run run = {0};
    open_run(&run, folder, true, -1, 0);
    const struct mt_adamw update = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.9, .eps = 1, .step = 1};
    for (int64_t step = 1; step <= 2; ++step) {
        mt_test_intercept(folder);
        mt_test_intercept_hold("shard-"); /* nobody has written anything before they are let go */
        MT_TEST_OK(begin_save(&run, step));
        if (step == 1 || size == 1) {                  /* one rank has nobody to move experts to */
            mt_store_update(run.world.store, &update); /* waits for the copy */
        } else {
            mt_test_random_owners(&run.world, 3, owner);
            MT_TEST_OK(mt_store_move_experts(run.world.store, owner));
        }
        mt_test_poison_store(run.world.store);
        memset(run.counts, -1, sizeof(run.counts));
        MT_TEST_OK(meet(&run));
        assert_true(mt_saver_is_busy(run.saver));
        mt_test_intercept_hold("");
        MT_TEST_OK(mt_saver_finish(run.saver));
        mt_test_intercept_end();
    }
    for (int64_t step = 1; step <= 2; ++step) {
        struct mt_run_state state = {.n_array = 1, .array = &run.array};
        step_name(name, step);
        MT_TEST_OK(mt_checkpoint_load(run.world.store, &run.world.comm, mt_test_path(folder, name),
                                      false, &state));
        mt_test_expect_store(run.world.store, (uint64_t)step, true);
        assert_int_equal(run.counts[3], 10 * step + 3);
    }
    close_run(&run);
}

/* Index of a line that must be there, behind `after`. */
static int expect_line(const char *line, int after)
{
    const int at = mt_test_intercept_find(line, 0);
    if (at <= after) {
        for (int i = 0; i < mt_test_intercept_count(); ++i) {
            print_message("%3d %s\n", i, mt_test_intercept_line(i));
        }
        fail_msg("%s at %d, not behind %d", line, at, after);
    }
    return at;
}

/* The promise of a whole checkpoint or none is this order. */
static void the_disk_is_asked_in_the_promised_order(void **unused)
{
    MT_UNUSED(unused);
    char line[96];
    struct run run = {0};
    open_run(&run, folder, true, -1, 1);
    save(&run, 1);
    mt_test_intercept(folder);
    save(&run, 2);
    (void)snprintf(line, sizeof(line), ".step-00000002.tmp/shard-%05d-of-%05d.h5", rank, size);
    char text[3][128];
    static const char *const verb[3] = {"write", "sync", "read"};
    int at = -1;
    for (int i = 0; i < 3; ++i) {
        (void)snprintf(text[i], sizeof(text[i]), "%s %s", verb[i], line);
        at = expect_line(text[i], at);
    }
    if (rank == 0) {
        at = expect_line("write .step-00000002.tmp/index.h5", at);
        at = expect_line("sync .step-00000002.tmp/index.h5", at);
        at = expect_line("read .step-00000002.tmp/index.h5", at);
        at = expect_line("write .step-00000002.tmp/manifest.json", at);
        at = expect_line("sync .step-00000002.tmp/manifest.json", at);
        at = expect_line("read .step-00000002.tmp/manifest.json", at);
        at = expect_line("sync .step-00000002.tmp", at);
        at = expect_line("rename .step-00000002.tmp", at);
        assert_string_equal(mt_test_intercept_line(at + 1), "sync .");
        (void)expect_line("rename step-00000001", at + 1);
    }
    close_run(&run);
}

/* Writes of the last rank's shard, early ones and late ones, and of rank 0's other files fail in
 * turn. */
static void a_full_disk_in_the_writer_is_code_4_on_all_ranks_and_leaves_what_was(void **unused)
{
    MT_UNUSED(unused);
    static const char *const file[] = {"shard-", "index.h5", "manifest.json"};
    struct run run = {0};
    open_run(&run, folder, true, -1, 1);
    save(&run, 1);
    for (int f = 0; f < 3; ++f) {
        const int failing = f == 0 ? size - 1 : 0;
        for (int64_t k = 0;; k += 1 + k / 2) {
            mt_test_intercept(folder);
            if (rank == failing) {
                mt_test_intercept_fail(file[f], k, ENOSPC);
            }
            MT_TEST_OK(begin_save(&run, 2));
            const enum mt_status status = mt_saver_finish(run.saver);
            mt_test_intercept_end();
            if (status == MT_OK) {
                assert_true(k > 0);
                break;
            }
            assert_non_null(strstr(mt_error_last()->text, file[f]));
            MT_TEST_FAILS(status, MT_ERR_RESOURCE, "No space left on device");
            assert_true(mt_test_exists(mt_test_path(folder, "step-00000001/manifest.json")));
            assert_false(mt_test_exists(mt_test_path(folder, "step-00000002")));
            (void)MPI_Barrier(MPI_COMM_WORLD);
        }
        assert_false(mt_test_exists(mt_test_path(folder, "step-00000001"))); /* keep = 1 */
        (void)MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) {
            mt_test_shell("cd '%s' && mv step-00000002 step-00000001", folder);
        }
        (void)MPI_Barrier(MPI_COMM_WORLD);
    }
    close_run(&run);
}

static void bytes_that_do_not_read_back_are_no_checkpoint(void **unused)
{
    MT_UNUSED(unused);
    static const char *const file[] = {"shard-", "index.h5", "manifest.json"};
    struct run run = {0};
    open_run(&run, folder, true, -1, 1);
    save(&run, 1);
    for (int f = 0; f < 3; ++f) {
        mt_test_intercept(folder);
        if (rank == (f == 0 ? size - 1 : 0)) {
            mt_test_intercept_falsify(file[f]);
        }
        MT_TEST_OK(begin_save(&run, 2));
        MT_TEST_FAILS(mt_saver_finish(run.saver), MT_ERR_RESOURCE, "does not read back");
        mt_test_intercept_end();
        assert_true(mt_test_exists(mt_test_path(folder, "step-00000001/manifest.json")));
        (void)MPI_Barrier(MPI_COMM_WORLD);
        assert_false(mt_test_exists(mt_test_path(folder, ".step-00000002.tmp")));
    }
    save(&run, 2);
    close_run(&run);
}

/* As on machines without a disk in common, or when somebody tidies up. */
static void shards_that_rank_0_does_not_find_are_no_checkpoint(void **unused)
{
    MT_UNUSED(unused);
    static const char *const harm[] = {"rm", "truncate -s -1"};
    struct run run = {0};
    open_run(&run, folder, true, -1, 1);
    save(&run, 1);
    for (int h = 0; h < 2; ++h) {
        enum mt_save_signal signal = MT_SIGNAL_NONE;
        char name[80];
        (void)snprintf(name, sizeof(name), ".step-00000002.tmp/shard-%05d-of-%05d.h5", size - 1,
                       size);
        MT_TEST_OK(begin_save(&run, 2));
        while (signal == MT_SIGNAL_NONE) {
            MT_TEST_OK(mt_saver_signal(run.saver, &signal));
        }
        (void)MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) {
            mt_test_shell("%s '%s'", harm[h], mt_test_path(folder, name));
        }
        (void)MPI_Barrier(MPI_COMM_WORLD);
        MT_TEST_FAILS(mt_saver_finish(run.saver), MT_ERR_RESOURCE, "one folder for all ranks");
        assert_true(mt_test_exists(mt_test_path(folder, "step-00000001/manifest.json")));
        (void)MPI_Barrier(MPI_COMM_WORLD);
    }
    save(&run, 2);
    close_run(&run);
}

/* As of somebody else's folder. */
static int refuse_to_move_step_1(enum mt_fault_call call, const char *path)
{
    const char *slash = strrchr(path, '/');
    const bool is_it = slash != NULL && strcmp(slash, "/step-00000001") == 0;
    return call == MT_CALL_RENAME && is_it ? EACCES : 0;
}

static void an_old_checkpoint_that_cannot_go_fails_no_save(void **unused)
{
    MT_UNUSED(unused);
    struct run run = {0};
    open_run(&run, folder, true, -1, 1);
    mt_log_init(rank == 0, true);
    MT_TEST_OK(mt_log_open(mt_test_path(folder, "log")));
    save(&run, 1);
    mt_fault_listen(refuse_to_move_step_1);
    save(&run, 2);
    save(&run, 3); /* which removes what it can */
    mt_fault_listen(NULL);
    mt_log_close();
    mt_log_init(false, true);
    if (rank == 0) {
        MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000003")));
        assert_true(mt_test_exists(mt_test_path(folder, "step-00000001")));
        assert_false(mt_test_exists(mt_test_path(folder, "step-00000002")));
        mt_test_shell("[ \"$(grep -c 'older checkpoints stays: .*00000001' '%s/log')\" = 2 ]",
                      folder);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    save(&run, 4);
    assert_false(mt_test_exists(mt_test_path(folder, "step-00000001")));
    close_run(&run);
}

static void nothing_is_committed_before_the_last_rank_has_written(void **unused)
{
    MT_UNUSED(unused);
    struct run run = {0};
    open_run(&run, folder, true, -1, 0);
    mt_test_intercept(folder);
    if (rank == size - 1) {
        mt_test_intercept_hold("shard-");
    }
    MT_TEST_OK(begin_save(&run, 1));
    for (int i = 0; i < 20; ++i) {
        MT_TEST_OK(meet(&run));
    }
    assert_true(mt_saver_is_busy(run.saver));
    assert_int_equal(mt_test_intercept_find("write .step-00000001.tmp/index.h5", 0), -1);
    mt_test_intercept_hold("");
    MT_TEST_OK(mt_saver_finish(run.saver));
    assert_true(mt_test_exists(mt_test_path(folder, "step-00000001")));
    close_run(&run);
}

/* What is needed was planned: on other ranks than the first nothing is allocated from the second
 * save on. */
static void a_save_allocates_nothing_in_the_step_loop(void **unused)
{
    MT_UNUSED(unused);
    struct run run = {0};
    open_run(&run, folder, true, -1, 2);
    save(&run, 1);
    mt_test_intercept(folder);
    mt_test_intercept_hold("shard-");
    const int64_t before = mt_memory_n_allocated();
    MT_TEST_OK(begin_save(&run, 2));
    MT_TEST_OK(meet(&run));
    assert_int_equal(mt_memory_n_allocated(), before);
    mt_test_intercept_hold("");
    MT_TEST_OK(mt_saver_finish(run.saver));
    if (rank != 0) {
        assert_int_equal(mt_memory_n_allocated(), before);
    }
    close_run(&run);
}

static void a_saver_that_goes_leaves_a_whole_checkpoint_or_none(void **unused)
{
    MT_UNUSED(unused);
    char path[MT_PATH_BYTES];
    char notes[256];
    struct run run = {0};
    open_run(&run, folder, true, -1, 0);
    save(&run, 1);
    MT_TEST_OK(begin_save(&run, 2));
    close_run(&run);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    open_run(&run, folder, true, -1, 0);
    MT_TEST_OK(mt_checkpoint_find(&run.world.comm, folder, path, notes, sizeof(notes)));
    assert_string_equal(path, mt_test_path(folder, "step-00000001"));
    assert_string_equal(notes, "");
    save(&run, 3); /* removes what was left */
    assert_false(mt_test_exists(mt_test_path(folder, ".step-00000002.tmp")));
    close_run(&run);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(saves_under_way_write_the_bytes_of_saves_waited_for),
        IN_FOLDER(what_changes_after_the_copy_is_not_saved),
        IN_FOLDER(the_disk_is_asked_in_the_promised_order),
        IN_FOLDER(a_full_disk_in_the_writer_is_code_4_on_all_ranks_and_leaves_what_was),
        IN_FOLDER(bytes_that_do_not_read_back_are_no_checkpoint),
        IN_FOLDER(shards_that_rank_0_does_not_find_are_no_checkpoint),
        IN_FOLDER(an_old_checkpoint_that_cannot_go_fails_no_save),
        IN_FOLDER(nothing_is_committed_before_the_last_rank_has_written),
        IN_FOLDER(a_save_allocates_nothing_in_the_step_loop),
        IN_FOLDER(a_saver_that_goes_leaves_a_whole_checkpoint_or_none),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
