/* What a checkpoint links to is never deleted before it: random sequences of saves with experts in
 * turn, failures, rollbacks, new processes, removals by hand, and changes of keep and keep_every,
 * against a model of what must be there. After every one of them
 *
 *   - the folder has the checkpoints that the rule keeps, no others, and each is whole;
 *   - each says how old its experts are, and they are;
 *   - a part's file has as many names as checkpoints have that part of that save.
 *
 * test_retention [SEQUENCES SEED]: more of them, or others. */
#include "base/memory.h"
#include "base/random.h"
#include "checkpoint/damage.h"
#include "checkpoint/folder.h"
#include "checkpoint/intercept.h"
#include "checkpoint/saved.h"
#include "checkpoint/saver.h"
#include "fault/interpose.h"
#include "support/mpi_main.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { N_OPERATION = 40, MAX_SAVED = 4 * N_OPERATION, N_FULL_KEPT = 2 };

static int64_t n_sequence = 3;
static uint64_t seed = 20261122;

static char folder[MT_PATH_BYTES];
static int rank, size;

/* A checkpoint as it must be. */
struct saved {
    int64_t step;
    bool is_full;
    int64_t part_step[MT_EXPERT_PARTS];
    int64_t origin[MT_EXPERT_PARTS]; /* number of the save that wrote the part's files */
};

struct run {
    struct mt_test_table *table;
    struct mt_test_world world;
    struct mt_checkpoint_options options;
    struct mt_saver *saver;
    int64_t step, n_save;
    uint64_t number, n_drawn; /* of the sequence, and of what was drawn in it */
    bool has_base, wants_full;
    int64_t n_since_full;
    struct saved base;
    int n; /* in any order */
    struct saved saved[MAX_SAVED];
};

static uint64_t draw(struct run *run, uint64_t below)
{
    return mt_random_u64(seed, run->number, run->n_drawn++) % below;
}

static int find(const struct run *run, int64_t step)
{
    int found = -1;
    for (int i = 0; i < run->n; ++i) {
        found = run->saved[i].step == step ? i : found;
    }
    return found;
}

static const char *path_of(int64_t step)
{
    char name[MT_STEP_NAME_BYTES];
    mt_folder_step_name(name, step);
    return mt_test_path(folder, name);
}

/* ---- the model ---- */

static int n_newer(const struct run *run, int64_t step, int64_t newest, bool of_full)
{
    int n = 0;
    for (int i = 0; i < run->n; ++i) {
        const struct saved *saved = &run->saved[i];
        n += saved->step > step && saved->step <= newest && (saved->is_full || !of_full);
    }
    return n;
}

static void retire(struct run *run, int64_t newest)
{
    const int64_t keep = run->options.keep;
    const int64_t every = run->options.keep_every;
    const struct run before = *run;
    run->n = 0;
    for (int i = 0; i < before.n; ++i) {
        const struct saved *saved = &before.saved[i];
        const bool is_kept =
            keep < 1 || saved->step > newest ||
            n_newer(&before, saved->step, newest, false) < keep ||
            (saved->is_full && n_newer(&before, saved->step, newest, true) < N_FULL_KEPT) ||
            (every > 0 && saved->step % every == 0);
        if (is_kept) {
            run->saved[run->n++] = *saved;
        }
    }
}

/* What a save of this moment has. */
static struct saved expect_save(struct run *run)
{
    const int64_t every = run->options.keep_every;
    struct saved saved = run->base;
    saved.step = run->step;
    saved.is_full = !run->has_base || run->wants_full ||
                    run->n_since_full >= run->options.n_sparse ||
                    (every > 0 && run->step % every == 0);
    run->n_since_full = saved.is_full ? 0 : run->n_since_full + 1;
    run->wants_full = false;
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        if (saved.is_full || (run->n_since_full - 1) % MT_EXPERT_PARTS == p) {
            saved.part_step[p] = run->step;
            saved.origin[p] = run->n_save;
        }
    }
    run->n_save++;
    return saved;
}

/* ---- what is there ---- */

static void expect_names(const struct run *run, const struct saved *saved)
{
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        char name[64];
        struct stat about;
        nlink_t n = 0;
        for (int i = 0; i < run->n; ++i) {
            n += run->saved[i].origin[p] == saved->origin[p];
        }
        (void)snprintf(name, sizeof(name), "experts-%d-of-4-%05d-of-%05d.h5", p, size - 1, size);
        assert_int_equal(stat(mt_test_path(path_of(saved->step), name), &about), 0);
        assert_int_equal(about.st_nlink, n);
    }
}

static void expect_whole(const struct run *run, const struct saved *saved)
{
    struct mt_manifest manifest;
    MT_TEST_OK(mt_manifest_read(path_of(saved->step), &manifest));
    assert_int_equal(manifest.state.step, saved->step);
    assert_int_equal(mt_manifest_is_full(&manifest), saved->is_full);
    for (int p = 0; p < MT_EXPERT_PARTS; ++p) {
        assert_int_equal(manifest.parts.step[p], saved->part_step[p]);
    }
    for (int64_t i = 0; i < manifest.n_file; ++i) {
        MT_TEST_OK(mt_damage_check_file(path_of(saved->step), &manifest, i));
    }
    mt_manifest_clear(&manifest);
    expect_names(run, saved);
}

static void expect_folder(const struct run *run)
{
    int64_t *step = NULL;
    int64_t n = 0;
    if (rank == 0) {
        MT_TEST_OK(mt_folder_steps(folder, &step, &n));
        assert_int_equal(n, run->n);
        for (int64_t i = 0; i < n; ++i) {
            assert_true(find(run, step[i]) >= 0);
            expect_whole(run, &run->saved[find(run, step[i])]);
        }
        mt_memory_free(step);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

/* ---- operations ---- */

static enum mt_status try_save(struct run *run)
{
    const struct mt_run_state state = {.step = run->step, .n_update = run->step};
    mt_test_fill_store(run->world.store, (uint64_t)run->step);
    MT_TRY(mt_saver_begin(run->saver, &state));
    return mt_saver_finish(run->saver);
}

/* fails: on one rank the disk refuses a write. */
static void save(struct run *run, bool fails)
{
    static const char *const file[] = {"shard-", "experts-", "index.h5", "manifest.json"};
    run->step += 1 + (int64_t)draw(run, 3);
    const uint64_t which = draw(run, 4);
    const int victim = which < 2 ? (int)draw(run, (uint64_t)size) : 0;
    if (find(run, run->step) >= 0) { /* of the course that was left; it stays */
        MT_TEST_OK(try_save(run));
        run->has_base = false;
        retire(run, run->step);
        return;
    }
    const bool misses_base = run->has_base && find(run, run->base.step) < 0;
    const struct saved saved = expect_save(run);
    if (fails && rank == victim) {
        mt_test_intercept(folder);
        mt_test_intercept_fail(file[which], 0, ENOSPC);
    }
    fails = fails || (misses_base && !saved.is_full);
    const enum mt_status status = try_save(run);
    mt_test_intercept_end();
    if (status != (fails ? MT_ERR_RESOURCE : MT_OK)) {
        fail_msg("sequence %llu, step %lld: code %d, %s", (unsigned long long)run->number,
                 (long long)run->step, (int)status, mt_error_last()->text);
    }
    mt_error_clear();
    run->has_base = !fails;
    if (!fails) {
        run->base = saved;
        run->saved[run->n++] = saved;
        retire(run, run->step);
    }
}

static void open_saver(struct run *run)
{
    MT_TEST_OK(
        mt_saver_create(run->world.store, &run->world.comm, &run->options, true, &run->saver));
    run->has_base = false;
    run->wants_full = false;
    run->n_since_full = 0;
}

static void restart(struct run *run)
{
    mt_saver_destroy(run->saver);
    (void)MPI_Barrier(MPI_COMM_WORLD);
    open_saver(run);
}

/* To any checkpoint, as one is that was asked for: those behind it stay. */
static void roll_back(struct run *run)
{
    if (run->n > 0) {
        run->step = run->saved[draw(run, (uint64_t)run->n)].step;
        mt_saver_want_full(run->saver);
        run->wants_full = true;
    }
}

static void remove_by_hand(struct run *run)
{
    if (run->n > 0) {
        const int i = (int)draw(run, (uint64_t)run->n);
        if (rank == 0) {
            mt_test_shell("rm -r '%s'", path_of(run->saved[i].step));
        }
        run->saved[i] = run->saved[--run->n];
        (void)MPI_Barrier(MPI_COMM_WORLD);
    }
}

static void change_rule(struct run *run)
{
    run->options.keep = (int64_t)draw(run, 4);
    run->options.keep_every = (int64_t)draw(run, 3) * 5;
}

static void operate(struct run *run)
{
    const uint64_t what = draw(run, 20);
    if (what < 12) {
        save(run, false);
    } else if (what < 14) {
        save(run, true);
    } else if (what < 15) {
        restart(run);
    } else if (what < 16) {
        roll_back(run);
    } else if (what < 18) {
        remove_by_hand(run);
    } else {
        change_rule(run);
    }
}

/* Every checkpoint that is left loads: on all ranks, cut, and has what the model says. */
static void expect_loads(const struct run *run)
{
    struct mt_test_world world;
    mt_test_open(&world, run->table, MPI_COMM_WORLD, true, MT_TEST_CUT);
    for (int i = 0; i < run->n; ++i) {
        struct mt_run_state state = {0};
        mt_test_poison_store(world.store);
        MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, path_of(run->saved[i].step), false,
                                      &state));
        mt_test_expect_parts(world.store, (uint64_t)run->saved[i].step, run->saved[i].part_step);
    }
    mt_test_world_close(&world);
}

static void go_through(uint64_t number)
{
    static struct run run;
    run = (struct run){.number = number};
    mt_test_make_folder(MPI_COMM_WORLD, folder);
    run.table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&run.world, run.table, MPI_COMM_WORLD, true, -1);
    run.options = (struct mt_checkpoint_options){
        .folder = folder, .keep = 2, .n_sparse = 1 + (int64_t)draw(&run, 6), .config_text = ""};
    open_saver(&run);
    for (int i = 0; i < N_OPERATION; ++i) {
        operate(&run);
        expect_folder(&run);
    }
    expect_loads(&run);
    mt_saver_destroy(run.saver);
    mt_test_world_close(&run.world);
    mt_memory_free(run.table);
    mt_test_remove_folder(MPI_COMM_WORLD, folder);
}

static void whatever_happens_the_rest_is_whole(void **state)
{
    MT_UNUSED(state);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int64_t s = 0; s < n_sequence; ++s) {
        go_through((uint64_t)s);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens_the_rest_is_whole),
    };
    if (argc == 3) {
        n_sequence = strtoll(argv[1], NULL, 10);
        seed = strtoull(argv[2], NULL, 10);
        argc = 1;
    }
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
