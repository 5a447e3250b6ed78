/* A save that is killed, loses power, or meets an error at any of its system calls: the newest
 * whole checkpoint is that of this step or of the one before, on one rank and on several. */
#include "base/job.h"
#include "base/memory.h"
#include "checkpoint/disk.h"
#include "checkpoint/saved.h"
#include "checkpoint/saver.h"
#include "fault/crash_states.h"
#include "support/mpi_main.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVERY_CALL = 1 << 30, N_LUCKY_STATES = 8 };

static char folder[MT_PATH_BYTES]; /* of the test: the checkpoints and what watches them */
static char saves[MT_PATH_BYTES + 16];
static char control[MT_PATH_BYTES + 16];
static struct mt_fault *fault;
static struct mt_test_table *table;
static struct mt_test_world world;

/* Saves experts in turn where it is there; else every save has a saver of its own. */
static struct mt_saver *turning;
static struct mt_checkpoint_options turning_options;

static bool is_staged; /* saves go through staging memory, as under a run's steps */

static enum mt_status save_by(struct mt_saver *saver, const struct mt_run_state *state)
{
    const enum mt_status status = mt_saver_begin(saver, state);
    return status == MT_OK && mt_saver_is_busy(saver) ? mt_saver_finish(saver) : status;
}

static enum mt_status save_staged(const struct mt_run_state *state,
                                  const struct mt_checkpoint_options *options)
{
    struct mt_saver *saver = NULL;
    MT_TEST_OK(mt_saver_create(world.store, &world.comm, options, true, &saver));
    const enum mt_status status = save_by(saver, state);
    mt_saver_destroy(saver);
    return status;
}

/* Steps one after another, of which one is kept; contents are a function of the step. */
static enum mt_status save_step(int64_t step)
{
    const struct mt_run_state state = {.step = step, .n_update = step};
    const struct mt_checkpoint_options options = {
        .folder = saves, .keep = 1, .config_text = "[run]\n", .config_hash = 1};
    mt_test_fill_store(world.store, (uint64_t)step);
    if (turning != NULL) {
        return save_by(turning, &state);
    }
    return is_staged ? save_staged(&state, &options)
                     : mt_checkpoint_save(world.store, &world.comm, &state, &options, NULL);
}

static void begin_turning(void)
{
    turning_options = (struct mt_checkpoint_options){
        .folder = saves, .keep = 1, .n_sparse = 2, .config_text = "[run]\n", .config_hash = 1};
    MT_TEST_OK(mt_saver_create(world.store, &world.comm, &turning_options, true, &turning));
}

static int begin(void **state)
{
    MT_UNUSED(state);
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    (void)snprintf(saves, sizeof(saves), "%s/checkpoints", folder);
    (void)snprintf(control, sizeof(control), "%s/fault", folder);
    fault = mt_fault_open(control, mt_job_rank());
    assert_non_null(fault);
    is_staged = false;
    table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    MT_TEST_OK(save_step(1));
    if (mt_job_rank() == 0) {
        mt_fault_watch(fault, saves);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    return 0;
}

static int end(void **state)
{
    MT_UNUSED(state);
    is_staged = false;
    mt_saver_destroy(turning);
    turning = NULL;
    mt_test_world_close(&world);
    mt_memory_free(table);
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
    return 0;
}

/* Rank 0 gives orders between two meetings. */
static void order(int rank, int64_t at, int64_t n_fault, int64_t action)
{
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (mt_job_rank() == 0) {
        mt_fault_order(fault, rank, at, n_fault, action);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

/* The newest step below `path`; every directory with the name of one must be whole. 0: none. */
static int64_t newest_whole(const char *path, const char *what)
{
    int64_t newest = 0;
    DIR *stream = opendir(path);
    assert_non_null(stream);
    for (const struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        char below[MT_PATH_BYTES + 300];
        long long step = 0;
        if (sscanf(entry->d_name, "step-%8lld", &step) != 1) { /* NOLINT(cert-err34-c): 8 digits */
            continue;
        }
        (void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        if (mt_checkpoint_verify(below) != MT_OK) {
            fail_msg("%s: %s", what, mt_error_last()->text);
        }
        newest = step > newest ? step : newest;
    }
    (void)closedir(stream);
    return newest;
}

/* Of the run's folder, for all ranks; one of them looks. */
static int64_t newest_save(const char *what)
{
    int64_t newest = mt_job_rank() == 0 ? newest_whole(saves, what) : 0;
    (void)MPI_Bcast(&newest, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
    return newest;
}

/* ---- what is on the disk after a crash ---- */

static struct mt_crash *record_step(int64_t step)
{
    struct mt_crash *crash = mt_crash_begin(saves);
    order(-1, 0, 0, 0);
    atomic_store(&fault->records, 1);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    MT_TEST_OK(save_step(step));
    (void)MPI_Barrier(MPI_COMM_WORLD);
    atomic_store(&fault->records, 0);
    mt_crash_read(crash, control, mt_job_size());
    assert_true(mt_crash_n_call(crash) > 20);
    return crash;
}

/* The first call from `from` on with this kind, and path as its path or the start of it. */
static int find_call(const struct mt_crash *crash, int from, enum mt_fault_call kind,
                     const char *path, bool is_start)
{
    for (int i = from; i < mt_crash_n_call(crash); ++i) {
        const struct mt_crash_call call = mt_crash_call(crash, i);
        if (call.kind == kind && (is_start ? strncmp(call.path, path, strlen(path)) == 0
                                           : strcmp(call.path, path) == 0)) {
            return i;
        }
    }
    fail_msg("after call %d there is no call of kind %d on %s", from, (int)kind, path);
    return -1;
}

static void a_save_syncs_files_then_folder_then_renames_then_syncs_the_parent(void **state)
{
    MT_UNUSED(state);
    static const char temporary[] = ".step-00000002.tmp";
    struct mt_crash *crash = record_step(2);
    const int renamed = find_call(crash, 0, MT_CALL_RENAME, temporary, false);
    const int folder_synced = find_call(crash, 0, MT_CALL_SYNC, temporary, false);
    const int parent_synced = find_call(crash, renamed, MT_CALL_SYNC, "", false);
    assert_true(folder_synced < renamed);
    assert_string_equal(mt_crash_call(crash, renamed).path_to, "step-00000002");
    for (int i = 0; i < mt_crash_n_call(crash); ++i) {
        const struct mt_crash_call call = mt_crash_call(crash, i);
        const bool is_in_save = strncmp(call.path, ".step-00000002.tmp/", 19) == 0;
        if (call.kind == MT_CALL_WRITE) {
            assert_true(is_in_save); /* and nothing is written elsewhere */
            assert_true(find_call(crash, i, MT_CALL_SYNC, call.path, false) < folder_synced);
        } else if (is_in_save && call.creates) {
            assert_true(i < folder_synced);
        }
    }
    const int manifest =
        find_call(crash, 0, MT_CALL_OPEN, ".step-00000002.tmp/manifest.json", false);
    for (int r = 0; r < mt_job_size(); ++r) {
        char shard[80];
        (void)snprintf(shard, sizeof(shard), "%s/shard-%05d-of-%05d.h5", temporary, r,
                       mt_job_size());
        assert_true(find_call(crash, 0, MT_CALL_SYNC, shard, false) < manifest);
    }
    assert_true(find_call(crash, 0, MT_CALL_RENAME, "step-00000001", false) > parent_synced);
    assert_true(find_call(crash, 0, MT_CALL_REMOVE, "", true) > parent_synced);
    mt_crash_end(crash);
}

static void expect_whole(struct mt_crash *crash, int64_t step, int n, enum mt_crash_luck luck,
                         uint64_t seed, bool is_torn)
{
    char state[MT_PATH_BYTES + 32];
    char what[128];
    (void)snprintf(state, sizeof(state), "%s/state-%d", folder, mt_job_rank());
    (void)snprintf(what, sizeof(what), "after %d of %d calls, luck %d, seed %llu%s", n,
                   mt_crash_n_call(crash), (int)luck, (unsigned long long)seed,
                   is_torn ? ", the last one torn" : "");
    if (!mt_crash_make(crash, state, n, luck, seed, is_torn)) {
        return;
    }
    const int64_t newest = newest_whole(state, what);
    if (newest < step - 1 || (n == mt_crash_n_call(crash) && newest != step)) {
        fail_msg("%s: the newest whole checkpoint is of step %lld", what, (long long)newest);
    }
    MT_TEST_OK(mt_disk_remove(state));
}

static void expect_whole_after_any_crash(int64_t step)
{
    struct mt_crash *crash = record_step(step);
    for (int n = mt_job_rank(); n <= mt_crash_n_call(crash); n += mt_job_size()) {
        expect_whole(crash, step, n, MT_LUCK_ALL, 0, false);
        expect_whole(crash, step, n, MT_LUCK_ALL, 0, true);
        expect_whole(crash, step, n, MT_LUCK_NONE, 0, false);
        for (uint64_t seed = 1; seed <= N_LUCKY_STATES; ++seed) {
            expect_whole(crash, step, n, MT_LUCK_ANY, seed, seed == 1);
        }
    }
    mt_crash_end(crash);
}

static void every_kill_and_every_power_cut_leaves_a_whole_checkpoint(void **state)
{
    MT_UNUSED(state);
    expect_whole_after_any_crash(2);
}

static void the_same_holds_of_a_save_under_training(void **state)
{
    MT_UNUSED(state);
    is_staged = true;
    expect_whole_after_any_crash(2);
}

/* Steps 2 and 5 are full; 4 takes files of both 2 and 3, which goes. */
static void the_same_holds_where_experts_are_saved_in_turn(void **state)
{
    MT_UNUSED(state);
    begin_turning();
    MT_TEST_OK(save_step(2));
    MT_TEST_OK(save_step(3));
    expect_whole_after_any_crash(4);
}

/* ---- a real process is killed ---- */

/* In a child, so that this process lives on. True: it was killed. */
static bool is_killed_in_save(int64_t step, int64_t at, int action)
{
    mt_fault_order(fault, 0, at, EVERY_CALL, action);
    is_staged = at / 2 % 2 == 0;
    const pid_t child = fork();
    if (child == 0) {
        _exit(save_step(step) == MT_OK ? 0 : 1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    mt_fault_order(fault, 0, 0, 0, 0);
    assert_true(WIFSIGNALED(how) ? WTERMSIG(how) == SIGKILL : WEXITSTATUS(how) == 0);
    return WIFSIGNALED(how);
}

static void a_process_killed_at_any_call_resumes_from_the_last_commit(void **state)
{
    MT_UNUSED(state);
    if (mt_job_size() > 1) {
        return; /* those who are left would wait: kills.sh has runs of several ranks */
    }
    int64_t step = 1;
    bool is_killed = true;
    for (int64_t at = 1; is_killed; ++at) {
        char what[64];
        (void)snprintf(what, sizeof(what), "killed at call %lld", (long long)at);
        is_killed = is_killed_in_save(step + 1, at, at % 2 == 0 ? MT_FAULT_KILL : MT_FAULT_TEAR);
        const int64_t newest = newest_whole(saves, what);
        assert_in_range(newest, step, step + 1);
        if (newest == step) {
            mt_test_poison_store(world.store);
            char name[32];
            struct mt_run_state loaded = {0};
            (void)snprintf(name, sizeof(name), "step-%08lld", (long long)step);
            MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, mt_test_path(saves, name),
                                          false, &loaded));
            mt_test_expect_store(world.store, (uint64_t)step, true);
        }
        step = newest;
        assert_true(at < 10000);
    }
    assert_true(step > 2);
}

/* ---- a call fails ---- */

/* Every other rank hears of it, what was there stays, and the next save works. */
static bool saves_despite_fault(int rank, int64_t at, int64_t n_fault, int action, int64_t *step)
{
    char what[96];
    (void)snprintf(what, sizeof(what), "rank %d's call %lld, action %d", rank, (long long)at,
                   action);
    order(rank, at, n_fault, action);
    const enum mt_status status = save_step(*step + 1);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    const int64_t n_hit = atomic_load(&fault->n_hit);
    order(-1, 0, 0, 0);
    const int64_t newest = newest_save(what);
    if (status != MT_OK && status != MT_ERR_RESOURCE) {
        fail_msg("%s: code %d, %s", what, (int)status, mt_error_last()->text);
    }
    if (status == MT_OK ? newest != *step + 1 : newest < *step) {
        fail_msg("%s: code %d, and the newest checkpoint is of step %lld", what, (int)status,
                 (long long)newest);
    }
    if (status != MT_OK && strstr(mt_error_last()->text, saves) == NULL) {
        fail_msg("%s: \"%s\" names no path", what, mt_error_last()->text);
    }
    int worst = (int)status;
    (void)MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    assert_int_equal(worst, status);
    mt_error_clear();
    *step = newest;
    return n_hit > 0;
}

/* What may be there after `step` was saved, and nothing else. */
static void expect_nothing_left_over(int64_t step)
{
    const char *kept = turning != NULL ? "1 2 3" : "1"; /* and two full ones */
    if (mt_job_rank() == 0) {
        mt_test_shell("case ' %s ' in *\" $(ls -A '%s' | wc -l) \"*) true;; *) false;; esac && "
                      "! ls -A '%s' | grep -v '^step-' && [ -e '%s/step-%08lld' ]",
                      kept, saves, saves, saves, (long long)step);
    }
}

static void sweep_faults(int64_t n_fault, int64_t stride)
{
    static const int actions[] = {EIO, ENOSPC, MT_FAULT_SHORT, EDQUOT};
    int64_t step = 1;
    for (int rank = 0; rank < mt_job_size(); ++rank) {
        bool is_hit = true;
        for (int64_t at = 1; is_hit; at += stride) {
            is_staged = at / 4 % 2 == 0;
            is_hit = saves_despite_fault(rank, at, n_fault, actions[at % 4], &step);
        }
    }
    assert_true(step > 1);
    MT_TEST_OK(save_step(step + 1));
    assert_int_equal(newest_save("after all faults"), step + 1);
    expect_nothing_left_over(step + 1);
}

static void any_one_call_may_fail(void **state)
{
    MT_UNUSED(state);
    sweep_faults(1, mt_job_size() < 3 ? 1 : 3); /* for time: 1 and 2 ranks try every call */
}

static void all_calls_from_any_on_may_fail(void **state)
{
    MT_UNUSED(state);
    sweep_faults(EVERY_CALL, mt_job_size() < 2 ? 1 : 3);
}

static void any_one_call_may_fail_where_experts_are_saved_in_turn(void **state)
{
    MT_UNUSED(state);
    begin_turning();
    sweep_faults(1, 2 * mt_job_size() - 1); /* every call on one rank; for time */
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(a_save_syncs_files_then_folder_then_renames_then_syncs_the_parent),
        IN_FOLDER(every_kill_and_every_power_cut_leaves_a_whole_checkpoint),
        IN_FOLDER(the_same_holds_of_a_save_under_training),
        IN_FOLDER(the_same_holds_where_experts_are_saved_in_turn),
        IN_FOLDER(a_process_killed_at_any_call_resumes_from_the_last_commit),
        IN_FOLDER(any_one_call_may_fail),
        IN_FOLDER(any_one_call_may_fail_where_experts_are_saved_in_turn),
        IN_FOLDER(all_calls_from_any_on_may_fail),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
