/* Saving and loading on real ranks: the same, others, other owners; and what is kept. */
#include "base/memory.h"
#include "checkpoint/saved.h"
#include "support/mpi_main.h"

#include <stdio.h>
#include <string.h>

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

/* Ranks 0 .. n - 1, or MPI_COMM_NULL on the others. */
static MPI_Comm first_ranks(int n)
{
    int rank = 0;
    MPI_Comm comm = MPI_COMM_NULL;
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_split(MPI_COMM_WORLD, rank < n ? 0 : MPI_UNDEFINED, rank, &comm);
    return comm;
}

static void any_ranks_load_what_any_ranks_saved(void **unused)
{
    MT_UNUSED(unused);
    int size = 0;
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_small);
    for (int savers = 1; savers <= size; ++savers) {
        MPI_Comm from = first_ranks(savers);
        mt_test_save_on(from, folder, table, savers % 2 == 0 ? 1 : -1, savers);
        for (int loaders = 1; loaders <= size; ++loaders) {
            MPI_Comm to = first_ranks(loaders);
            mt_test_load_on(to, folder, table, -1, savers, false);
            mt_test_load_on(to, folder, table, 2, savers,
                            false); /* other owners: pieces are cut anew */
            if (to != MPI_COMM_NULL) {
                (void)MPI_Comm_free(&to);
            }
        }
        if (from != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&from);
        }
    }
    mt_memory_free(table);
}

/* Random owners for the store; seed 0: those that it was created with. */
static void move(struct mt_test_world *world, uint64_t seed)
{
    int owner[64];
    if (seed > 0) {
        mt_test_random_owners(world, seed, owner);
        MT_TEST_OK(mt_store_move_experts(world->store, owner));
    }
}

/* What a store on `from` saved after its experts moved, one on `to` loads, whose owners may have
 * moved as well. */
static void cross(MPI_Comm from, MPI_Comm to, const struct mt_test_table *table, int64_t step,
                  uint64_t seed)
{
    struct mt_test_world world;
    struct mt_run_state state = {0};
    char name[32];
    (void)snprintf(name, sizeof(name), "step-%08lld", (long long)step);
    if (from != MPI_COMM_NULL) {
        mt_test_open(&world, table, from, true, -1);
        mt_test_fill_store(world.store, (uint64_t)step);
        move(&world, seed % 3);
        mt_test_expect_store(world.store, (uint64_t)step, true);
        MT_TEST_OK(mt_test_save(&world, folder, step));
        mt_test_world_close(&world);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    if (to != MPI_COMM_NULL) {
        mt_test_open(&world, table, to, true, -1);
        mt_test_poison_store(world.store);
        move(&world, seed / 3);
        MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, mt_test_path(folder, name), false,
                                      &state));
        mt_test_expect_store(world.store, (uint64_t)step, true);
        move(&world, seed + 7);
        mt_test_expect_store(world.store, (uint64_t)step, true);
        mt_test_world_close(&world);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
}

static void checkpoints_cross_between_owners_that_moved(void **unused)
{
    MT_UNUSED(unused);
    int size = 0;
    int64_t step = 0;
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_small);
    for (int savers = 1; savers <= size; ++savers) {
        MPI_Comm from = first_ranks(savers);
        MPI_Comm to = first_ranks(size + 1 - savers);
        cross(from, to, table, ++step, 1); /* saved after a move */
        cross(from, to, table, ++step, 3); /* loaded after a move */
        cross(from, to, table, ++step, 5); /* both, to other owners */
        if (from != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&from);
        }
        if (to != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&to);
        }
    }
    mt_memory_free(table);
}

/* Experts of 3 rows: on 4 ranks a piece of each is empty. */
static void init_thin_table(struct mt_test_table *table)
{
    mt_test_table_init(table);
    mt_test_table_dense(table, 0, 5, 3, false);
    mt_test_table_layer(table, 3, 1, 1);
}

/* With experts owned whole, then cut: steps first_step and the next. */
static void save_both(MPI_Comm from, const struct mt_test_table *table, int64_t first_step)
{
    static const int turns[2] = {-1, MT_TEST_CUT};
    char name[32];
    for (int64_t saved = 0; saved < 2; ++saved) {
        mt_test_save_on(from, folder, table, turns[saved], first_step + saved);
        (void)snprintf(name, sizeof(name), "step-%08lld", (long long)(first_step + saved));
        MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, name)));
    }
}

static void load_crosswise(MPI_Comm to, const struct mt_test_table *table, int64_t first_step)
{
    mt_test_load_on(to, folder, table, MT_TEST_CUT, first_step, false);
    mt_test_load_on(to, folder, table, -1, first_step + 1, false);
    mt_test_load_on(to, folder, table, 2, first_step + 1, true);
    mt_test_load_on(to, folder, table, MT_TEST_CUT, first_step + 1, false);
}

static void checkpoints_cross_between_cut_and_whole_experts(void **unused)
{
    MT_UNUSED(unused);
    int size = 0;
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct mt_test_table *tables[] = {mt_test_new_table(mt_test_table_small),
                                      mt_test_new_table(init_thin_table)};
    for (int savers = 1; savers <= size; ++savers) {
        MPI_Comm from = first_ranks(savers);
        for (int64_t t = 0; t < 2; ++t) {
            save_both(from, tables[t], 10 * savers + 2 * t);
            for (int loaders = 1; loaders <= size; ++loaders) {
                MPI_Comm to = first_ranks(loaders);
                load_crosswise(to, tables[t], 10 * savers + 2 * t);
                if (to != MPI_COMM_NULL) {
                    (void)MPI_Comm_free(&to);
                }
            }
        }
        if (from != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&from);
        }
    }
    mt_memory_free(tables[0]);
    mt_memory_free(tables[1]);
}

static void info_of_cut_experts_counts_rows_of_their_matrices(void **unused)
{
    MT_UNUSED(unused);
    int size = 0;
    char owners[256];
    struct mt_checkpoint_info info;
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, MT_TEST_CUT, 7);
    const char *path = mt_test_path(folder, "step-00000007");
    MT_TEST_OK(mt_checkpoint_read_info(path, &info));
    assert_int_equal(info.format_version, MT_CHECKPOINT_CUT_VERSION);
    assert_int_equal(info.tensor[2].n_dim, 3);
    assert_int_equal(info.tensor[2].dim[0], 3);
    assert_int_equal(info.tensor[2].dim[1], 2);
    /* 3 experts of 2 rows of gate, 2 of up, 4 of down: 24 elements; a piece of 12, or of 8 */
    MT_TEST_OK(mt_checkpoint_owners(path, "/model/2/gate", owners, sizeof(owners)));
    static const char *const gate[] = {"0:0-1 0:2-3 0:4-5", "0:0-1 1:2-3 0:4-5",
                                       "0:0-1 1:2-3 2:4-5"};
    static const char *const up[] = {"0:0-1 0:2-3 0:4-5", "0:0-0 1:1-1 1:2-2 0:3-3 0:4-4 1:5-5",
                                     "1:0-1 2:2-3 0:4-5"};
    if (size <= 3) {
        assert_string_equal(owners, gate[size - 1]);
        MT_TEST_OK(mt_checkpoint_owners(path, "/model/3/up", owners, sizeof(owners)));
        assert_string_equal(owners, up[size - 1]);
    }
    mt_checkpoint_info_clear(&info);
    mt_memory_free(table);
}

static void weights_load_without_optimizer_state(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_small);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 5);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, 1, 5, true);
    mt_memory_free(table);
}

static void a_saved_checkpoint_verifies(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_small);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, 1, 7);
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000007")));
    mt_memory_free(table);
}

static void info_says_what_was_saved(void **unused)
{
    MT_UNUSED(unused);
    int size = 0;
    char owners[256];
    struct mt_checkpoint_info info;
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 7);
    const char *path = mt_test_path(folder, "step-00000007");
    MT_TEST_OK(mt_checkpoint_read_info(path, &info));
    assert_int_equal(info.step, 7);
    assert_int_equal(info.tokens_seen, 7000);
    assert_int_equal(info.format_version, MT_CHECKPOINT_PLAIN_VERSION);
    assert_int_equal(info.world_size, size);
    assert_true(info.config_hash == 0xFEDCBA9876543210U);
    assert_string_equal(info.config_text, "[run]\nname = \"t\u00e9st\"\n");
    assert_int_equal(info.n_file, size + 1);
    assert_int_equal(info.n_tensor, 3 * table->table.n_tensor);
    assert_string_equal(info.tensor[0].name, "/model/0/dense");
    assert_int_equal(info.tensor[0].n_dim, 2);
    assert_int_equal(info.tensor[0].dim[0], 11);
    MT_TEST_OK(mt_checkpoint_owners(path, "/model/2/gate", owners, sizeof(owners)));
    static const char *const want[] = {"0:0-2", "0:0-1 1:2-2", "0:0-0 1:1-1 2:2-2"};
    if (size <= 3) {
        assert_string_equal(owners, want[size - 1]);
    }
    MT_TEST_FAILS(mt_checkpoint_owners(path, "/model/none", owners, sizeof(owners)), MT_ERR_INPUT,
                  "has no tensor /model/none");
    mt_checkpoint_info_clear(&info);
    mt_memory_free(table);
}

static void the_same_state_gives_the_same_bytes(void **unused)
{
    MT_UNUSED(unused);
    char first[MT_PATH_BYTES + 8];
    int rank = 0;
    int size = 0;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_small);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 3);
    (void)snprintf(first, sizeof(first), "%s/first", folder);
    if (rank == 0) {
        mt_test_shell("mv '%s/step-00000003' '%s'; sleep 1.1", folder, first);
    }
    (void)MPI_Barrier(MPI_COMM_WORLD);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 3);
    const char *second = mt_test_path(folder, "step-00000003");
    assert_true(mt_test_same_file(mt_test_path(first, "manifest.json"),
                                  mt_test_path(second, "manifest.json")));
    assert_true(
        mt_test_same_file(mt_test_path(first, "index.h5"), mt_test_path(second, "index.h5")));
    char name[64];
    (void)snprintf(name, sizeof(name), "shard-%05d-of-%05d.h5", rank, size);
    assert_true(mt_test_same_file(mt_test_path(first, name), mt_test_path(second, name)));
    mt_memory_free(table);
}

static void state_arrays_come_back(void **unused)
{
    MT_UNUSED(unused);
    int64_t counts[6] = {5, -4, 3, INT64_MAX, INT64_MIN, 0};
    int64_t one[1] = {42};
    struct mt_state_array arrays[] = {
        {.name = "load_history", .values = counts, .n = 6}, {"one", one, 1}, {"none", NULL, 0}};
    struct mt_run_state run = {.step = 9, .n_array = 3, .array = arrays};
    const struct mt_checkpoint_options options = {.folder = folder, .config_text = ""};
    char path[MT_PATH_BYTES];
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    mt_test_fill_store(world.store, 9);
    MT_TEST_OK(mt_checkpoint_save(world.store, &world.comm, &run, &options, path));
    assert_string_equal(path, mt_test_path(folder, "step-00000009"));
    memset(counts, 1, sizeof(counts));
    one[0] = 0;
    MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, path, false, &run));
    const int64_t want[6] = {5, -4, 3, INT64_MAX, INT64_MIN, 0};
    assert_memory_equal(counts, want, sizeof(want));
    assert_int_equal(one[0], 42);
    arrays[0].n = 4; /* configured otherwise since: no half histories */
    arrays[1].name = "unknown";
    MT_TEST_OK(mt_checkpoint_load(world.store, &world.comm, path, false, &run));
    for (int i = 0; i < 4; ++i) {
        assert_int_equal(counts[i], 0);
    }
    assert_int_equal(one[0], 0);
    mt_test_world_close(&world);
    mt_memory_free(table);
}

static void old_checkpoints_are_removed_by_keep_and_keep_every(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_world world;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    for (int64_t step = 10; step <= 60; step += 10) {
        const struct mt_run_state run = {.step = step};
        const struct mt_checkpoint_options options = {
            .folder = folder, .keep = 2, .keep_every = 20, .config_text = ""};
        mt_test_fill_store(world.store, (uint64_t)step);
        MT_TEST_OK(mt_checkpoint_save(world.store, &world.comm, &run, &options, NULL));
    }
    static const bool kept[7] = {false, false, true, false, true, true, true};
    for (int i = 1; i <= 6; ++i) {
        char name[32];
        (void)snprintf(name, sizeof(name), "step-%08d", 10 * i);
        assert_int_equal(mt_test_exists(mt_test_path(folder, name)), kept[i]);
    }
    mt_test_world_close(&world);
    mt_memory_free(table);
}

static void newer_checkpoints_do_not_count_as_kept(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    struct mt_test_world world;
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    static const int64_t steps[] = {10, 50, 60, 20};
    for (int i = 0; i < 4; ++i) {
        const struct mt_run_state run = {.step = steps[i]};
        const struct mt_checkpoint_options options = {
            .folder = folder, .keep = 2, .config_text = ""};
        mt_test_fill_store(world.store, 1);
        MT_TEST_OK(mt_checkpoint_save(world.store, &world.comm, &run, &options, NULL));
        if (i == 2) {
            assert_false(mt_test_exists(mt_test_path(folder, "step-00000010")));
            (void)MPI_Barrier(MPI_COMM_WORLD);
        }
    }
    assert_true(mt_test_exists(mt_test_path(folder, "step-00000020")));
    assert_true(mt_test_exists(mt_test_path(folder, "step-00000050")));
    assert_true(mt_test_exists(mt_test_path(folder, "step-00000060")));
    mt_test_world_close(&world);
    mt_memory_free(table);
}

static void a_copy_under_another_spelling_does_not_count(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    struct mt_test_world world;
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    mt_test_fill_store(world.store, 1);
    for (int64_t step = 1; step <= 3; ++step) {
        const struct mt_run_state run = {.step = step};
        const struct mt_checkpoint_options options = {
            .folder = folder, .keep = 1, .config_text = ""};
        MT_TEST_OK(mt_checkpoint_save(world.store, &world.comm, &run, &options, NULL));
        if (step == 1 && world.comm.rank == 0) {
            mt_test_shell("cd '%s' && cp -r step-00000001 step-000000001", folder);
        }
        (void)MPI_Barrier(MPI_COMM_WORLD);
    }
    assert_false(mt_test_exists(mt_test_path(folder, "step-00000002")));
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-000000001")));
    mt_test_world_close(&world);
    mt_memory_free(table);
}

static void a_complete_checkpoint_of_the_step_is_left_alone(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_tiny);
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 4);
    struct mt_test_world world;
    mt_test_open(&world, table, MPI_COMM_WORLD, true, -1);
    mt_test_fill_store(world.store, 999); /* were it written again, this would be in it */
    MT_TEST_OK(mt_test_save(&world, folder, 4));
    mt_test_world_close(&world);
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 4, false);
    mt_memory_free(table);
}

static void a_rank_that_owns_nothing_saves_and_loads(void **unused)
{
    MT_UNUSED(unused);
    struct mt_test_table *table = mt_test_new_table(mt_test_table_init);
    mt_test_table_dense(table, 0, 1, 0, false); /* one element: one owner */
    mt_test_save_on(MPI_COMM_WORLD, folder, table, -1, 1);
    MT_TEST_OK(mt_checkpoint_verify(mt_test_path(folder, "step-00000001")));
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 1, false);
    mt_memory_free(table);
}

/* More pieces a rank than travel to rank 0 at once, and not the same number on every rank. */
static void many_pieces_arrive_in_the_manifest(void **unused)
{
    MT_UNUSED(unused);
    char owners[256];
    int size = 0;
    struct mt_test_table *table = mt_test_new_table(mt_test_table_init);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    mt_test_table_dense(table, 0, 3, 2, false);
    for (int layer = 0; layer < 30; ++layer) {
        mt_test_table_layer(table, 7, 2, 3);
    }
    mt_test_save_on(MPI_COMM_WORLD, folder, table, 1, 1);
    const char *path = mt_test_path(folder, "step-00000001");
    MT_TEST_OK(mt_checkpoint_verify(path));
    MT_TEST_OK(mt_checkpoint_owners(path, "/model/90/down", owners, sizeof(owners)));
    if (size == 2) {
        assert_string_equal(owners, "0:0-0 1:1-1 0:2-2 1:3-3 0:4-4 1:5-5 0:6-6");
    }
    mt_test_load_on(MPI_COMM_WORLD, folder, table, -1, 1, false);
    mt_memory_free(table);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        IN_FOLDER(any_ranks_load_what_any_ranks_saved),
        IN_FOLDER(checkpoints_cross_between_owners_that_moved),
        IN_FOLDER(checkpoints_cross_between_cut_and_whole_experts),
        IN_FOLDER(info_of_cut_experts_counts_rows_of_their_matrices),
        IN_FOLDER(weights_load_without_optimizer_state),
        IN_FOLDER(a_saved_checkpoint_verifies),
        IN_FOLDER(info_says_what_was_saved),
        IN_FOLDER(the_same_state_gives_the_same_bytes),
        IN_FOLDER(state_arrays_come_back),
        IN_FOLDER(old_checkpoints_are_removed_by_keep_and_keep_every),
        IN_FOLDER(newer_checkpoints_do_not_count_as_kept),
        IN_FOLDER(a_copy_under_another_spelling_does_not_count),
        IN_FOLDER(a_complete_checkpoint_of_the_step_is_left_alone),
        IN_FOLDER(a_rank_that_owns_nothing_saves_and_loads),
        IN_FOLDER(many_pieces_arrive_in_the_manifest),
    };
    return mt_test_mpi_main(argc, argv, tests, (int)(sizeof(tests) / sizeof(tests[0])));
}
